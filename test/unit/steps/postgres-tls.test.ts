import { describe, expect, it } from "vitest";
import { NAMES, POSTGRES_TLS_FILES } from "../../../src/settings/layout.ts";
import { boxBefore, join, joinedBox, LAYOUT, lookAt, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const ADDRESS = "10.0.0.7";
const BOUND = { set: { POSTGRES_BIND: ADDRESS } };
const AUTHORITY = `${LAYOUT.postgresTlsDir}/ca.pem`;
const AUTHORITY_KEY = `${LAYOUT.postgresTlsDir}/ca.key`;
const [CERTIFICATE, KEY, RULES] = (["certificate", "key", "rules"] as const).map(
  (name) => `${LAYOUT.postgresTlsDir}/${POSTGRES_TLS_FILES.directory}/${POSTGRES_TLS_FILES[name]}`,
) as [string, string, string];
const YEAR_MS = 365 * 86_400_000;

const before = await boxBefore("postgres-tls", BOUND);
const step = await stepOn(before, "postgres-tls", BOUND);

stepLaws("postgres-tls", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "others can read the CA's key",
      arrange: (host) => host.files.put(AUTHORITY_KEY, host.files.textOf(AUTHORITY_KEY), 0o640),
      names: /other users can read .*ca\.key/,
    },
    {
      name: "others can read the server's key",
      arrange: (host) => host.files.put(KEY, host.files.textOf(KEY), 0o644),
      names: /other users can read .*server\.key/,
    },
    {
      name: "the certificate is gone",
      arrange: (host) => host.files.drop(CERTIFICATE),
      names: /server\.pem: absent/,
    },
    {
      name: "the key is another one",
      arrange: (host) => host.files.put(KEY, host.files.textOf(AUTHORITY_KEY), 0o600),
      names: /server\.key is not its key/,
    },
    {
      name: "somebody edited the rules",
      arrange: (host) => host.files.put(RULES, host.files.textOf(RULES).replace("hostssl", "host"), 0o644),
      names: /pg_hba\.conf differs/,
    },
  ],
  foreign: [
    {
      name: "the CA's key is lost",
      arrange: async (host) => {
        const validity = { from: new Date(0), until: new Date(Date.UTC(2060, 0, 1)) };
        const key = "-----BEGIN PRIVATE KEY-----\nanother\n-----END PRIVATE KEY-----\n";
        host.files.put(AUTHORITY, await host.certificates.makeAuthority("x", key, validity), 0o644);
      },
      why: /ca\.key is missing\. Other masters trust this CA/,
    },
  ],
  secrets: (host) =>
    [AUTHORITY_KEY, KEY].flatMap((path) =>
      host.files.tree.has(path) ? [host.files.textOf(path).split("\n")[1] ?? ""] : [],
    ),
});

describe("a database that other machines reach", () => {
  it("is not made without POSTGRES_BIND, and the document is the one of before", async () => {
    const host = await joinedBox();
    expect(host.files.tree.has(AUTHORITY)).toBe(false);
    expect(host.files.textOf(LAYOUT.composeFile)).not.toMatch(/entrypoint|\/etc\/fula-node\/tls/);
  });

  it("is published there with TLS, and keeps its keys to root", async () => {
    const host = await joinedBox(BOUND);
    const text = host.files.textOf(LAYOUT.composeFile);
    expect(text).toContain(`- ${ADDRESS}:\${POSTGRES_PORT:-5432}:5432`);
    expect(text).toContain("- 127.0.0.1:${POSTGRES_PORT:-5432}:5432");
    expect(text).toContain("- ssl=on");
    expect(text).toContain("POSTGRES_SSL_MODE: require");
    for (const path of [KEY, AUTHORITY_KEY]) expect(host.files.tree.get(path)).toMatchObject({ mode: 0o600 });
    const lines = host.files
      .textOf(RULES)
      .split("\n")
      .filter((line) => line.startsWith("host"));
    const outside = lines.filter((line) => !/ (?:127\.0\.0\.1\/32|::1\/128) /.test(line));
    expect(outside.map((line) => line.split(/ +/))).toEqual([
      ["hostssl", "all", "all", "all", "scram-sha-256"],
    ]);
    // The CA's key is in no container.
    expect(text).toContain(`source: ${LAYOUT.postgresTlsDir}/${POSTGRES_TLS_FILES.directory}\n`);
  });

  it("is changed by nothing in a second run", async () => {
    const host = await joinedBox(BOUND);
    expect(await join(host, BOUND)).toMatchObject({ changes: [] });
    expect(host.writes).toEqual([]);
  });

  it("gets a new certificate for another address, of the same CA, and is made again", async () => {
    const host = await joinedBox(BOUND);
    const [authority, certificate] = [AUTHORITY, CERTIFICATE].map((path) => host.files.textOf(path));
    await join(host, { set: { POSTGRES_BIND: "10.0.0.8" } });
    expect(host.files.textOf(AUTHORITY)).toBe(authority);
    expect(host.files.textOf(CERTIFICATE)).not.toBe(certificate);
    expect(host.files.textOf(LAYOUT.composeFile)).toContain("- 10.0.0.8:");
  });

  it("renews its certificate in the year before it ends, with a restart of Postgres, and keeps its CA", async () => {
    const host = await joinedBox(BOUND);
    const tls = await stepOn(host, "postgres-tls", BOUND);
    await host.clock.wait(2 * YEAR_MS - 86_400_000);
    expect((await lookAt(tls, host)).finding.state).toBe("ours");
    await host.clock.wait(2 * 86_400_000);
    expect((await lookAt(tls, host)).finding).toMatchObject({
      drift: [expect.stringMatching(/server\.pem: it ends on/)],
    });
    const authority = host.files.textOf(AUTHORITY);
    await join(host, BOUND);
    expect(host.files.textOf(AUTHORITY)).toBe(authority);
    expect(host.writes.some((one) => /restart.*postgres-pinning/.test(one))).toBe(true);
    expect(await join(host, BOUND)).toMatchObject({ changes: [] });
  });

  it("that lets somebody in without TLS is no success", async () => {
    const host = await joinedBox(BOUND);
    const { onAsk } = host.postgres;
    const running = await stepOn(host, "postgres", BOUND);
    await running.verify(host);
    host.postgres.onAsk = (target) => onAsk({ ...target, ssl: "require" });
    await expect(running.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringContaining("does not refuse a connection without TLS: it let it in"),
    });
  });

  it("is reached by nobody else after POSTGRES_BIND is gone", async () => {
    const host = await joinedBox(BOUND);
    const text = host.files.textOf(LAYOUT.envFile).replace(/^POSTGRES_BIND=.*\n/m, "");
    host.files.put(LAYOUT.envFile, text, 0o600);
    await join(host);
    const mounts = host.docker.boxes.get(NAMES.postgres)?.mounts ?? [];
    expect(mounts.map(({ destination }) => destination)).not.toContain("/etc/fula-node/tls");
    expect(host.files.textOf(LAYOUT.composeFile)).not.toContain(ADDRESS);
  });
});
