import { describe, expect, it } from "vitest";
import { newEnvText, parseEnvFile, quoteValue, setValues } from "../../../src/settings/env-file.ts";
import { findConflicts } from "../../../src/settings/conflicts.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import { resolveSettings } from "../../../src/settings/settings.ts";

/** A `.env` of the bash installer and its operators, with keys that only upstream's programs know. */
const UPSTREAM = `# written by join-as-master.sh
POSTGRES_HOST=127.0.0.1
POSTGRES_PORT=5432
POSTGRES_DB=pinning_service
POSTGRES_USER=pinning_user
POSTGRES_PASSWORD=Zm9vYmFyYmF6cXV4
POSTGRES_SSL=false
POSTGRES_MAX_CONNECTIONS=25
SYSTEM_KEY="0123456789abcdef0123456789abcdef"
PINNING_SYSTEM_KEY="0123456789abcdef0123456789abcdef"
JWT_SECRET=c29tZSBzZWNyZXQgdGhhdCBzaWducw==
SESSION_SECRET=YW5vdGhlciBzZWNyZXQgdGhhdCBzaWducw==
ENCRYPTION_KEY=${"0a".repeat(32)}
PINNING_SERVICE_URL=http://localhost:6000
S3_INTERNAL_URL=http://127.0.0.1:9000
MAINNET_REWARDS_URL=http://127.0.0.1:5667
WEBUI_PORT=3001
BIND_HOST=127.0.0.1
GOOGLE_CLIENT_ID=1234-abc.apps.googleusercontent.com
GOOGLE_ADDITIONAL_AUDIENCES=
ADMIN_EMAILS=ops@example.com,root@example.com
VAULT_ADDRESS=
BASE_RPC_URL=https://mainnet.base.org
ETHERSCAN_API_KEY=
FREE_TIER_BYTES=524288000
FULA_PER_GB_MONTH=3
REFERRAL_BONUSES_ENABLED=true
BILLING_IDEMPOTENCY=true
CRON_LEADER_LEASE=true
DAG_IMPORT_MAX_CAR_BYTES=838860800
IPFS_API_ADDR=/ip4/127.0.0.1/tcp/5001
IPFS_CLUSTER_API_ADDR=/ip4/127.0.0.1/tcp/9094
FULA_BUCKET_ROOT_CAS=false
REPL_MIN=2
KEEP=28
`;

function parsed(text: string) {
  const file = parseEnvFile(text);
  if (!file.ok) throw new Error(`line ${file.line}: ${file.what}`);
  return file;
}

function resolve(text: string, flags: Readonly<Record<string, string>> = {}) {
  return resolveSettings(MASTER_SETTINGS, {
    flags: new Map(Object.entries(flags)),
    environment: {},
    adoptsEnvironment: true,
    version: "1.2.3",
    saved: parsed(text),
  });
}

describe("the settings of a master", () => {
  it("have defaults that keep their own rules and can be written", () => {
    for (const { key, byDefault, rule } of MASTER_SETTINGS) {
      if (byDefault === undefined) continue;
      expect([key, rule.holds(byDefault), quoteValue(byDefault)]).toEqual([key, true, byDefault]);
    }
    expect(resolve("").problems).toEqual([]);
    expect(findConflicts(resolve("").settings)).toEqual([]);
  });

  it("are listed once, described in one line, and generate nothing that their rule refuses", () => {
    const keys = MASTER_SETTINGS.map(({ key }) => key);
    expect(new Set(keys).size).toBe(keys.length);
    for (const { key, about, generated, byDefault, secret, rule } of MASTER_SETTINGS) {
      expect(key).toMatch(/^[A-Z][A-Z0-9_]*$/);
      expect(about).toMatch(/^\S[^\n#]*\S$/);
      if (generated === undefined) continue;
      const length = generated.kind === "hex" ? 2 * generated.bytes : generated.characters;
      // An identity is generated like a secret, and is none.
      const isSecret = key === "MASTER_ID" ? undefined : true;
      expect([key, secret, byDefault, rule.holds("a".repeat(length))]).toEqual([
        key,
        isSecret,
        undefined,
        true,
      ]);
    }
  });

  it("hide everything with the name of a secret, and are immutable if data depends on them", () => {
    const hidden = MASTER_SETTINGS.filter(({ secret }) => secret === true).map(({ key }) => key);
    const named = MASTER_SETTINGS.map(({ key }) => key).filter((key) =>
      /PASSWORD|SECRET|_KEY|BASIC_AUTH$/.test(key),
    );
    // The path of a key.
    named.splice(named.indexOf("EDGE_KEY"), 1);
    expect(hidden).toEqual(expect.arrayContaining(named));
    expect(MASTER_SETTINGS.filter(({ immutable }) => immutable === true).map(({ key }) => key)).toEqual([
      "CLUSTER_SECRET",
      "POSTGRES_PASSWORD",
      "JWT_SECRET",
      "SESSION_SECRET",
      "ENCRYPTION_KEY",
    ]);
  });

  it("accept an upstream .env unchanged", () => {
    const { settings, problems } = resolve(UPSTREAM);
    expect(problems).toEqual([]);
    expect(findConflicts(settings)).toEqual([]);
    expect(settings.get("SYSTEM_KEY")).toEqual({
      value: "0123456789abcdef0123456789abcdef",
      origin: "saved",
    });
    expect(settings.has("VAULT_ADDRESS")).toBe(false);
  });

  it.each(["disabled", "DISABLED"])("refuse the SYSTEM_KEY %s, without showing it", (key) => {
    for (const { problems } of [resolve("", { SYSTEM_KEY: key }), resolve(`SYSTEM_KEY=${key}\n`)]) {
      expect(problems.map(({ subject }) => subject)).toEqual(["SYSTEM_KEY"]);
      expect(problems[0]?.what).toContain("(8 characters, not shown)");
    }
  });
});

describe("findConflicts", () => {
  const conflicts = (flags: Readonly<Record<string, string>>) =>
    findConflicts(resolve("", flags).settings).map(({ what }) => what);

  it.each([
    ["2", "3"],
    ["2", "2"],
    ["-1", "-1"],
  ])("accepts the factors %s and %s", (least, most) => {
    expect(conflicts({ CLUSTER_REPLICATION_MIN: least, CLUSTER_REPLICATION_MAX: most })).toEqual([]);
  });

  it.each([
    [{ CLUSTER_REPLICATION_MIN: "10", CLUSTER_REPLICATION_MAX: "9" }, /\(10\) is higher than .*\(9\)/],
    [{ CLUSTER_REPLICATION_MIN: "2" }, /set both to -1, or neither/],
    [{ CLUSTER_REPLICATION_MAX: "2" }, /set both to -1, or neither/],
    [{ WEBUI_PORT: "6000" }, /WEBUI_PORT and PINNING_API_PORT are both 6000/],
    [{ PINNING_METRICS_PORT: "6001" }, /PINNING_METRICS_PORT and PINNING_EDGE_PORT are both 6001/],
    [{ WEBUI_METRICS_PORT: "16000" }, /WEBUI_METRICS_PORT and PINNING_METRICS_PORT are both 16000/],
    [{ POSTGRES_SSL_CA: "/ca.pem" }, /POSTGRES_SSL_CA is set, but POSTGRES_SSL is false/],
    [{ POSTGRES_SSL_CA: "/ca.pem", POSTGRES_SSL: "disable" }, /the connection would not be encrypted/],
    [{ PINNING_API_PORT: "5432" }, /PINNING_API_PORT and POSTGRES_PORT are both 5432/],
    [{ PINNING_API_PORT: "9094" }, /PINNING_API_PORT is 9094, the port of ipfs-cluster's REST API/],
    [{ WEBUI_METRICS_PORT: "5001" }, /WEBUI_METRICS_PORT is 5001, the port of kubo's RPC/],
    [{ PUBLIC_HOST: "m.example.org", PINNING_EDGE_PORT: "443" }, /PINNING_EDGE_PORT is 443, .* the edge/],
    [{ PUBLIC_HOST: "m.example.org", POSTGRES_PORT: "80" }, /POSTGRES_PORT is 80, the port of the edge/],
  ])("finds %j", (flags, what) => {
    expect(conflicts(flags)).toEqual([expect.stringMatching(what)]);
  });

  it.each(["require", "verify-full", "true"])("accepts a CA with POSTGRES_SSL=%s", (mode) => {
    expect(conflicts({ POSTGRES_SSL_CA: "/ca.pem", POSTGRES_SSL: mode })).toEqual([]);
  });

  it("says by name which setting to change", () => {
    const [problem] = findConflicts(resolve("", { WEBUI_PORT: "6000" }).settings);
    expect(problem).toMatchObject({
      subject: "WEBUI_PORT",
      remedy: "Give each its own port: --set WEBUI_PORT=PORT.",
    });
  });

  it("leaves 80 and 443 free without an edge, and the ports of a writer on another machine", () => {
    expect(conflicts({ PINNING_EDGE_PORT: "443" })).toEqual([]);
    expect(conflicts({ IPFS_API_ADDR: "/ip4/192.0.2.1/tcp/5001", WEBUI_PORT: "5001" })).toEqual([]);
  });

  it("ignores the port of a database on another machine", () => {
    expect(conflicts({ POSTGRES_HOST: "db.example", PINNING_API_PORT: "5432" })).toEqual([]);
  });

  it("ignores a value that has its own problem", () => {
    expect(conflicts({ CLUSTER_REPLICATION_MIN: "many", WEBUI_PORT: "x", PINNING_API_PORT: "x" })).toEqual(
      [],
    );
  });
});

describe("the text of .env", () => {
  const values = new Map([
    ["OF_OURS", "1.2.3"],
    ["POSTGRES_PORT", "5433"],
    ["CLUSTERNAME", "it's a pool"],
  ]);

  it("lists settings in the order of the table, each below its description, and defaults as comments", () => {
    const some = MASTER_SETTINGS.filter(({ key }) =>
      ["CLUSTERNAME", "POOL_API", "POSTGRES_PORT", "KEEP"].includes(key),
    );
    expect(newEnvText(some, values)).toMatchInlineSnapshot(`
      "# Settings and secrets of this fula-node. Keep a copy of this file on another machine: you need it, together
      # with the data, to rebuild this node. Without it, encrypted data can't be read. Your own keys and comments
      # stay as they are. After a change, run the same fula-node join command again.
      # A line such as "# KEEP=28" shows the default of the day when this file was written. The installed version's
      # own default counts, so a newer version brings its newer images. Remove the # to keep your value for good.

      # the name of the pool, the same on every node of the pool
      CLUSTERNAME="it's a pool"

      # port of the database
      POSTGRES_PORT=5433

      # the newest snapshots that always stay; older ones are thinned out
      # KEEP=28

      OF_OURS=1.2.3
      "
    `);
  });

  it("changes only the given keys in an upstream .env", () => {
    expect(
      setValues(
        parsed(UPSTREAM),
        new Map([
          ["WEBUI_PORT", "3002"],
          ["VAULT_ADDRESS", "0x1"],
        ]),
      ),
    ).toBe(
      UPSTREAM.replace("WEBUI_PORT=3001", "WEBUI_PORT=3002").replace("VAULT_ADDRESS=", "VAULT_ADDRESS=0x1"),
    );
    expect(setValues(parsed(UPSTREAM), new Map())).toBe(UPSTREAM);
  });
});
