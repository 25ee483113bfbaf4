import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Transform } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { proveRestore } from "../../src/dumps/prove-restore.ts";
import { createThrowaway } from "../../src/dumps/throwaway.ts";
import { clock } from "../../src/machine/clock.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { type Authority, createAuthority } from "../support/certificates.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { sql } from "../support/postgres-server.ts";
import { docker, isEngineThere } from "../support/tiny-image.ts";

const isThere = isEngineThere();
if (!isThere && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

const MARK = "land.fx.fula-node.drill=tls-test";
const DATA = "/var/lib/postgresql/data";

describe.runIf(isThere)("a dump over TLS, as a second master makes it", () => {
  let source: DumpSource;
  let authority: Authority;
  let other: Authority;
  const directory = mkdtempSync(join(tmpdir(), "fula-node-dump-tls-"));

  beforeAll(async () => {
    source = await startDumpSource("dump-tls");
    authority = await createAuthority();
    other = await createAuthority();
    const { certificate, key } = await authority.issue(`IP:${source.target.host}`);
    for (const [name, text] of Object.entries({ "server.crt": certificate, "server.key": key })) {
      writeFileSync(join(directory, name), text, { mode: 0o600 });
      docker("cp", join(directory, name), `${source.container}:${DATA}/${name}`);
    }
    docker("exec", source.container, "sh", "-c", `chown postgres ${DATA}/server.crt ${DATA}/server.key`);
    docker(
      "exec",
      source.container,
      "sed",
      "-i",
      "s/^host all all all/hostssl all all all/",
      `${DATA}/pg_hba.conf`,
    );
    await sql(source.target, "CREATE TABLE numbers AS SELECT n FROM generate_series(1, 1000) AS n");
    await sql(source.target, "ALTER SYSTEM SET ssl = on");
    await sql(source.target, "SELECT pg_reload_conf()");
  });
  afterAll(async () => {
    source?.stop();
    await Promise.all([authority?.close(), other?.close()]);
    rmSync(directory, { recursive: true, force: true });
  });

  async function prove(tls: Pick<PostgresTarget, "ssl" | "sslCaPem">, of = createThrowaway(process.env)) {
    try {
      return await proveRestore(
        of,
        { ...source.target, ...tls },
        {
          mark: MARK,
          suffix: "tls",
          image: source.image,
          dataPath: DATA,
          stop: new AbortController().signal,
          timeoutMs: 60_000,
          clock,
          report: () => {},
        },
      );
    } finally {
      await of.removeMarked(MARK);
    }
  }

  it.each(["verify-full", "require"] as const)("passes with %s and a CA of its own", async (ssl) => {
    const proof = await prove({ ssl, sslCaPem: authority.certificate });
    expect(proof).toMatchObject({ differences: [], tables: 1, rows: 1000n });
  });

  it("passes with TLS that checks nobody", async () => {
    expect(await prove({ ssl: "require" })).toMatchObject({ differences: [], rows: 1000n });
  });

  it("gives the CA to pg_dump, which refuses whoever else answers", async () => {
    const engine = createThrowaway(process.env);
    const wrong = {
      ...engine,
      // Our own session has the right one.
      attach: (spec: Parameters<typeof engine.attach>[0]) => {
        const running = engine.attach(spec);
        const stdin = new Transform({
          transform(text: Buffer, _encoding, done) {
            done(null, text.toString().replace(authority.certificate.trim(), other.certificate.trim()));
          },
        });
        stdin.pipe(running.stdin);
        return { ...running, stdin };
      },
    };
    await expect(prove({ ssl: "verify-full", sslCaPem: authority.certificate }, wrong)).rejects.toMatchObject(
      {
        what: "pg_dump did not complete the dump.",
        why: expect.stringContaining("certificate verify failed") as string,
      },
    );
  });
});
