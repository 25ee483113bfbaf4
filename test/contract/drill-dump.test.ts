import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Transform } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { DrillOutcome } from "../../src/drills/drill.ts";
import { DUMP_MARK, dumpDrill } from "../../src/drills/dump-drill.ts";
import { readClientMajor } from "../../src/dumps/client-version.ts";
import { proveRestore } from "../../src/dumps/prove-restore.ts";
import { parseRestoreRecord } from "../../src/dumps/restore-record.ts";
import { createThrowaway, type Running, type Throwaway } from "../../src/dumps/throwaway.ts";
import { clock } from "../../src/machine/clock.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import { createHost } from "../../src/world.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { migratorOf, SHIPPED } from "../support/migrations.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { docker, isEngineThere } from "../support/tiny-image.ts";

const isThere = isEngineThere();
if (!isThere && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

const host = createHost({ env: process.env, migrationsDir: SHIPPED, toolVersion: "0.0.0-test" });
const deps = { host, environment: process.env };
const CHILD = fileURLToPath(new URL("../support/dump-drill-child.ts", import.meta.url));
const MARKED = ["--filter", `label=${DUMP_MARK}`];

const base = mkdtempSync(join(tmpdir(), "fula-node-drill-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

function lines(...args: readonly string[]): readonly string[] {
  return docker(...args)
    .split("\n")
    .filter((line) => line !== "");
}

/** What is on the engine with the mark of this drill. */
function marked(): readonly string[] {
  return [...lines("ps", "--all", "--quiet", ...MARKED), ...lines("volume", "ls", "--quiet", ...MARKED)];
}

/** Runs a statement in the Postgres without network. */
function inScratch(text: string): string {
  const [name = ""] = lines(
    "ps",
    ...MARKED,
    "--filter",
    "name=fula-drill-postgres",
    "--format",
    "{{.Names}}",
  );
  return docker("exec", name, "psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "restored", "-qtAc", text);
}

describe.runIf(isThere)("D9, a dump restored without network", () => {
  let source: DumpSource;

  beforeAll(async () => {
    source = await startDumpSource("drill-dump");
    await migratorOf().up(source.target, { report: () => {} });
    await sql(source.target, FILL);
  });
  afterAll(() => source?.stop());
  afterEach(async () => {
    rmSync(masterLayout(base).restoreRecord, { force: true });
    // Its settings are for each new session there.
    await sql({ ...source.target, database: "postgres" }, "ALTER DATABASE pinning_service RESET ALL");
    await sql(source.target, "DROP SCHEMA IF EXISTS odd CASCADE");
  });

  function contextOf(report: (line: string) => void, values: Readonly<Record<string, string>> = {}) {
    const all: Readonly<Record<string, string>> = { ...source.values, ...values };
    return {
      master: { layout: masterLayout(base), values: (key: string) => all[key] },
      report,
    };
  }

  /** Runs the drill and cleans up, as the runner does. `when` is called with each line that it reports. */
  async function drill(
    when: (line: string) => void = () => {},
    given: { readonly values?: Readonly<Record<string, string>>; readonly stop?: AbortSignal } = {},
  ): Promise<DrillOutcome> {
    const context = contextOf(when, given.values);
    try {
      return await dumpDrill.run(deps, { ...context, stop: given.stop ?? new AbortController().signal });
    } finally {
      await dumpDrill.cleanUp(deps, context);
      expect(marked()).toEqual([]);
    }
  }

  /** Calls `work` between the restore and the comparison. */
  function afterRestore(work: () => void): (line: string) => void {
    return (line) => {
      if (line.startsWith("comparing")) work();
    };
  }

  /** Sessions of the drill in the source. */
  async function sessions(): Promise<number> {
    const text = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE 'fula-node d%'";
    return (await sql<{ n: number }>({ ...source.target, database: "postgres" }, text))[0]?.n ?? -1;
  }

  it("passes with whatever a table can hold, and leaves nothing", async () => {
    await sql(source.target, ODD);
    const volumes: string[] = [];
    const outcome = await drill(
      afterRestore(() => {
        const ids = lines("ps", "--all", "--quiet", ...MARKED);
        volumes.push(...lines("inspect", ...ids, "--format", "{{range .Mounts}}{{.Name}}\n{{end}}"));
      }),
    );
    expect(outcome).toMatchObject({ state: "passed", todo: null });
    expect(outcome.summary).toMatch(
      /^\d+ tables, \d+ rows, a dump of .+, restored in .+; the copy is the same$/,
    );
    const { restoreRecord } = masterLayout(base);
    const proven = parseRestoreRecord(readFileSync(restoreRecord, "utf8"));
    expect(Date.now() - Date.parse(proven?.at ?? "")).toBeLessThan(60_000);
    expect(proven?.dumpBytes).toBe(Number(outcome.evidence["bytes of the dump"]));
    expect(volumes.length).toBeGreaterThan(0);
    expect(lines("volume", "ls", "--quiet").filter((name) => volumes.includes(name))).toEqual([]);
    expect(await sessions()).toBe(0);
  });

  it("reaches nothing from the restored copy, and shows no secret in Docker", async () => {
    const seen: string[] = [];
    const outcome = await drill(
      afterRestore(() => {
        const ids = lines("ps", "--all", "--quiet", ...MARKED);
        seen.push(
          docker(
            "inspect",
            ...ids,
            "--format",
            "{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Ports}}",
          ),
        );
        seen.push(docker("inspect", ...ids));
      }),
    );
    expect(outcome.state).toBe("passed");
    // The third one was asked for its version.
    expect(seen[0]?.split("\n").sort()).toEqual(["host {}", "none {}", "none {}"]);
    expect(seen[1]).toContain("pg_dump");
    expect(seen[1]).not.toContain("7canary");
    expect(JSON.stringify(outcome)).not.toContain("7canary");
  });

  it("compares with the snapshot, although the database goes on", async () => {
    const count = () => sql<{ n: number }>(source.target, "SELECT count(*)::int AS n FROM webui_users");
    const [before] = await count();
    const outcome = await drill((line) => {
      if (!line.startsWith("dumping")) return;
      const write =
        "INSERT INTO webui_users (email) SELECT 'new' FROM generate_series(1, 50); DELETE FROM users WHERE id = 3; VACUUM users";
      const login = ["-U", "pinning_user", "-d", "pinning_service", "-qtA"];
      docker("exec", source.container, "psql", ...login, ...write.split("; ").flatMap((one) => ["-c", one]));
    });
    expect(outcome).toMatchObject({ state: "passed" });
    expect((await count())[0]?.n).toBe((before?.n ?? 0) + 50);
  });

  it.each([
    [
      "a row was changed",
      "UPDATE users SET username = 'x' WHERE id = 7",
      "table public.users has other rows in the restored copy (of ",
    ],
    [
      "a row is lost",
      "DELETE FROM webui_users WHERE id = 7",
      /table public\.webui_users has \d+ rows, and the restored copy \d+/,
    ],
    [
      "a table is missing",
      "DROP TABLE bucket_roots CASCADE",
      "table public.bucket_roots is missing in the restored copy",
    ],
    [
      "a constraint is missing",
      "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE",
      "constraint public.users users_pkey is missing in the restored copy",
    ],
    [
      "an index is missing",
      "DROP INDEX idx_users_username",
      "index public.users idx_users_username is missing in the restored copy",
    ],
    [
      "an index is not valid",
      "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_users_username'::regclass",
      /idx_users_username is "btree \(username\) valid", and in the restored copy "btree \(username\) INVALID"/,
    ],
    [
      "a sequence stands elsewhere",
      "SELECT setval('users_id_seq', 9000)",
      "sequence public.users_id_seq stands at 500, and in the restored copy at 9000",
    ],
    [
      "a column changed",
      "ALTER TABLE users ALTER username TYPE varchar(90)",
      'column public.users.username is "text", and in the restored copy "character varying(90)"',
    ],
  ] as const)("fails if %s", async (_what, change, says) => {
    const outcome = await drill(afterRestore(() => inScratch(change)));
    expect(outcome.state).toBe("failed");
    expect(outcome.summary).toMatch(/^the restored copy is not the same: /);
    if (typeof says === "string") expect(outcome.summary).toContain(says);
    else expect(outcome.summary).toMatch(says);
    expect(outcome.todo).toContain("rely on no dump");
    expect(existsSync(masterLayout(base).restoreRecord)).toBe(false);
  });

  it("names an index that is INVALID in the database itself, and how to rebuild it", async () => {
    const setValid = (isValid: boolean) =>
      sql(
        source.target,
        `UPDATE pg_index SET indisvalid = ${isValid} WHERE indexrelid = 'idx_users_username'::regclass`,
      );
    await setValid(false);
    const outcome = await drill();
    await setValid(true);
    expect(outcome).toMatchObject({
      state: "failed",
      todo: "see fula-node drill D2; with psql: REINDEX INDEX CONCURRENTLY public.idx_users_username;",
    });
    expect(outcome.summary).toBe(
      "a fault of the database itself, which its dump leaves out: index public.users idx_users_username is INVALID in the database itself; all else is the same in the restored copy",
    );
  });

  it("asks the programs of an image for their major", async () => {
    const engine = createThrowaway(process.env);
    const given = { name: `${source.container}-client`, mark: DUMP_MARK, image: source.image };
    const server = lines("run", "--rm", "--entrypoint", "postgres", source.image, "--version").join("");
    try {
      expect(await readClientMajor(engine, given)).toBe(/\d+/.exec(server)?.[0]);
    } finally {
      await engine.removeMarked(DUMP_MARK);
    }
  });

  it("fails if a restore ends with an error, and says at which table", async () => {
    await sql(source.target, UNRESTORABLE);
    const outcome = await drill();
    expect(outcome).toMatchObject({ state: "failed" });
    expect(outcome.summary).toMatch(
      /^The dump could not be restored\. COPY failed for table "depends": ERROR: relation "known" does not exist$/,
    );
    expect(outcome.summary).not.toContain("a secret value");
  });

  it("fails if a dump is cut off, although its program ended well", async () => {
    await expect(proveWith(cutAfter(20_000))).rejects.toMatchObject({
      exit: "integrity",
      what: "The dump could not be restored.",
    });
  });

  it("fails if pg_dump is killed in the middle, and says so instead of what its restore says", async () => {
    await expect(proveWith(killedAfter(20_000))).rejects.toMatchObject({
      exit: "unavailable",
      what: "pg_dump did not complete the dump.",
    });
  });

  it("fails if a table is locked, and names it", async () => {
    await inSession(source.target, async (client) => {
      await client.query("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE");
      const outcome = await drill();
      expect(outcome).toMatchObject({
        state: "failed",
        summary: "The table public.users could not be read: canceling statement due to lock timeout.",
      });
      expect(outcome.todo).toContain("wait until that ends");
      await client.query("ROLLBACK");
    });
  });

  it("fails with the reason if the database, an image or space is missing", async () => {
    const down = await drill(undefined, { values: { POSTGRES_PORT: "1" } });
    expect(down).toMatchObject({ state: "failed" });
    expect(down.summary).toContain(":1");

    const little = { freeBytes: 1000 ** 3, totalBytes: 1000 ** 4, freeInodes: 1, totalInodes: 1 };
    const files = { ...host.files, space: async () => little };
    const context = { ...contextOf(() => {}), stop: new AbortController().signal };
    const full = await dumpDrill.run({ ...deps, host: { ...host, files } }, context);
    expect(full).toMatchObject({ state: "failed", todo: "free some space there, then run it again" });
    expect(full.summary).toMatch(/^not run: 1\.0 GB free on the disk of .+ needs 1\.0 GB$/);
    await dumpDrill.cleanUp({ ...deps, host: { ...host, files } }, context);
    expect(marked()).toEqual([]);
  });

  it("is stopped at any time, and leaves nothing on the engine nor in the database", async () => {
    for (const at of REPORTS) {
      const stop = new AbortController();
      const began = Date.now();
      const run = drill((line) => void (line.startsWith(at) && stop.abort(new Error("stopped"))), {
        stop: stop.signal,
      });
      await expect(run, at).rejects.toThrow("stopped");
      expect(Date.now() - began, at).toBeLessThan(30_000);
      await expect.poll(sessions, { timeout: 10_000 }).toBe(0);
    }
  });

  it("is killed at any time, and the next run removes what it left, and nothing else", async () => {
    docker("volume", "create", "--label", "land.fx.fula-node.drill=D0", `${source.container}-other`);
    for (const at of REPORTS) {
      const environment = { ...process.env, DRILL: JSON.stringify(source.values), BASE: base };
      const child = spawn(process.execPath, ["--import", "tsx", CHILD], { env: environment });
      const ended = new Promise((resolve) => child.once("exit", (_code, signal) => resolve(signal)));
      let output = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        output += text;
        if (output.includes(at)) child.kill("SIGKILL");
      });
      expect(await ended, at).toBe("SIGKILL");
      const removed = await dumpDrill.cleanUp(
        deps,
        contextOf(() => {}),
      );
      if (!at.startsWith("starting"))
        expect(removed.join(), at).toContain("removed the container fula-drill-postgres");
      // What the Docker client was about to start, a second look finds.
      await expect
        .poll(
          async () =>
            (
              await dumpDrill.cleanUp(
                deps,
                contextOf(() => {}),
              )
            ).length,
        )
        .toBe(0);
      expect(marked()).toEqual([]);
      await expect.poll(sessions, { timeout: 10_000 }).toBe(0);
    }
    expect(lines("volume", "ls", "--quiet")).toContain(`${source.container}-other`);
    docker("volume", "rm", `${source.container}-other`);
  });

  /** The proof with another engine than the real one. */
  async function proveWith(change: (engine: Throwaway) => Throwaway): Promise<unknown> {
    const engine = createThrowaway(process.env);
    try {
      return await proveRestore(change(engine), source.target, {
        mark: DUMP_MARK,
        suffix: "twin",
        image: source.image,
        dataPath: "/var/lib/postgresql/data",
        stop: new AbortController().signal,
        timeoutMs: 60_000,
        clock,
        report: () => {},
      });
    } finally {
      await engine.removeMarked(DUMP_MARK);
      expect(marked()).toEqual([]);
    }
  }
});

/** What the drill reports, in order. */
const REPORTS = ["starting", "dumping", "restored", "comparing"];

/** The stream of the dump ends after so many bytes, and everybody says that all is well. */
function cutAfter(bytes: number): (engine: Throwaway) => Throwaway {
  return (engine) => ({
    ...engine,
    attach(spec) {
      const running = engine.attach(spec);
      let seen = 0;
      const cut = new Transform({
        transform(chunk: Buffer, _encoding, done) {
          const rest = chunk.subarray(0, Math.max(0, bytes - seen));
          seen += chunk.length;
          done(null, rest);
        },
      });
      return { ...running, stdout: running.stdout.pipe(cut) };
    },
  });
}

/** The container with pg_dump is killed after so many bytes. */
function killedAfter(bytes: number): (engine: Throwaway) => Throwaway {
  return (engine) => ({
    ...engine,
    attach(spec): Running {
      const running = engine.attach(spec);
      let seen = 0;
      const through = new Transform({
        transform(chunk: Buffer, _encoding, done) {
          const isTime = seen < bytes && seen + chunk.length >= bytes;
          seen += chunk.length;
          if (!isTime) return done(null, chunk);
          // What is in a pipe goes on meanwhile: Docker does not kill what waits for us.
          this.push(chunk);
          spawn("docker", ["kill", spec.name], { stdio: "ignore" });
          done();
        },
      });
      return { ...running, stdout: running.stdout.pipe(through) };
    },
  });
}

/** Some rows, more than a pipe holds. */
const FILL = `
INSERT INTO users (username, password_hash, user_id)
  SELECT 'u' || n, repeat('h', 900), 'i' || n FROM generate_series(1, 500) AS n;
INSERT INTO webui_users (email, user_id) SELECT repeat('e', 4000) || n, 'i' || n FROM generate_series(1, 3000) AS n;`;

/** What is easily dumped or compared wrong. What the database prints by default is not what the restored one does. */
const ODD = `
ALTER DATABASE pinning_service SET timezone = 'Asia/Tokyo';
ALTER DATABASE pinning_service SET datestyle = 'German';
ALTER DATABASE pinning_service SET extra_float_digits = -5;
ALTER DATABASE pinning_service SET bytea_output = 'escape';
ALTER DATABASE pinning_service SET intervalstyle = 'iso_8601';
ALTER DATABASE pinning_service SET statement_timeout = '1ms';
ALTER DATABASE pinning_service SET idle_in_transaction_session_timeout = '1s';
CREATE SCHEMA odd;
CREATE TYPE odd.mood AS ENUM ('fine', 'so so');
CREATE TABLE odd."T able.s" (t double precision, raw bytea, at timestamptz, span interval, many text[], mood odd.mood,
  doc jsonb, of regclass, gone text, state varchar(9) CHECK (state IN ('a', 'b')));
ALTER TABLE odd."T able.s" DROP gone;
INSERT INTO odd."T able.s" VALUES
  ('NaN', '\\x00ff', '2024-02-29 23:59:59.999999+13', '1 mon -3 days 00:00:01.5', '{a,NULL,"b,c"}', 'so so',
   '{"b": 1.0, "a": null}', 'odd."T able.s"', 'a'),
  ('-0', '', 'infinity', NULL, '{}', NULL, '"\\u00e9"', NULL, NULL),
  (0.1::float8 + 0.2, NULL, NULL, NULL, NULL, 'fine', NULL, 'pg_class', 'b');
CREATE INDEX "some rows" ON odd."T able.s" (lower(state), t) WHERE state IN ('a', 'b');
CREATE TABLE odd.parent (n int, at date) PARTITION BY RANGE (at);
CREATE TABLE odd.child PARTITION OF odd.parent FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO odd.parent SELECT n, '2024-03-01' FROM generate_series(1, 9) AS n;
CREATE TABLE odd.none ();
CREATE UNLOGGED TABLE odd.quick AS SELECT 1 AS one;
CREATE SEQUENCE odd.back INCREMENT -2 MAXVALUE 100 START 50;
SELECT nextval('odd.back');
CREATE SEQUENCE odd.lowest MINVALUE -9223372036854775808 START -9223372036854775808;
CREATE SEQUENCE odd.highest INCREMENT -1 MAXVALUE 9223372036854775807 START 9223372036854775807;
DO $$ BEGIN CREATE ROLE "odd ""Reader"; CREATE ROLE postgres_reader LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$;
ALTER TABLE odd.none ENABLE ROW LEVEL SECURITY;
CREATE POLICY read_it ON odd.none FOR SELECT TO "odd ""Reader", postgres_reader USING (true);
GRANT SELECT ON odd.none TO postgres_reader;
CREATE VIEW odd.seen AS SELECT * FROM odd.child WHERE n IN (1, 2);
CREATE MATERIALIZED VIEW odd.kept AS SELECT count(*) FROM odd.parent;
CREATE FUNCTION odd.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON odd.child FOR EACH ROW EXECUTE FUNCTION odd.touch();`;

/** A check that looks up another table without its schema holds until a restore, which has an empty search path. */
const UNRESTORABLE = `
CREATE SCHEMA odd;
CREATE TABLE odd.known (n text);
INSERT INTO odd.known VALUES ('a secret value');
SET search_path = odd;
CREATE FUNCTION odd.is_known(text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM known WHERE n = $1)';
CREATE TABLE odd.depends (n text CHECK (odd.is_known(n)));
INSERT INTO odd.depends VALUES ('a secret value');
RESET search_path;`;
