import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { keepBeating } from "../../src/database/masters.ts";
import { splitStatements } from "../../src/database/migration-file.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { idOf, masterOf } from "../support/masters.ts";
import {
  catalogueOf,
  listen,
  migrationsDirectory,
  migratorOf,
  SHIPPED,
  SHIPPED_FILES,
} from "../support/migrations.ts";
import { poolOf } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const VERSION = 22;

/** The files that 0.1.0 and 0.2.0 shipped. */
async function olderFiles(): Promise<string> {
  const files = SHIPPED_FILES.filter((name) => Number(name.slice(0, 3)) < VERSION);
  return migrationsDirectory(
    Object.fromEntries(files.map((name) => [name, readFileSync(join(SHIPPED, name), "utf8")])),
  );
}

/** What 0.1.0's flags step did. */
async function recordByName(target: PostgresTarget, master: string, flag: string): Promise<void> {
  await sql(target, "INSERT INTO fula_node.flags_in_use (master, flag) VALUES ($1, $2)", [master, flag]);
}

async function mastersOf(target: PostgresTarget): Promise<readonly string[]> {
  const masters = (await migratorOf().readMasters(target)) ?? [];
  return masters.map(({ name, flags, machine, version }) =>
    [name, flags.join("+") || "-", machine === null ? "by name" : "by identity", version].join(" "),
  );
}

describeOnPostgres("migration 022", (postgres) => {
  test("takes over what 0.1.0 recorded by name; a master then replaces its own row", async () => {
    const target = await postgres.createDatabase();
    await migratorOf({ directory: await olderFiles() }).up(target, listen());
    await recordByName(target, "debian", "BILLING_IDEMPOTENCY");
    await recordByName(target, "other", "BILLING_IDEMPOTENCY");
    await recordByName(target, "other", "FULA_BUCKET_ROOT_CAS");
    expect(await migratorOf().readMasters(target)).toBeNull();
    await expect(migratorOf().recordMaster(target, masterOf("debian"))).rejects.toMatchObject({
      exit: "pending",
    });

    await migratorOf().up(target, listen());

    expect(await mastersOf(target)).toEqual([
      "debian BILLING_IDEMPOTENCY by name 0.1.0",
      "other BILLING_IDEMPOTENCY+FULA_BUCKET_ROOT_CAS by name 0.1.0",
    ]);
    expect(await sql(target, "SELECT FROM fula_node.flags_in_use")).toEqual([]);
    await expect(migratorOf().down(target, [20], listen())).rejects.toMatchObject({
      exit: "drift",
      what: expect.stringContaining("FULA_BUCKET_ROOT_CAS is in use on: other ("),
    });

    await migratorOf().recordMaster(target, masterOf("debian", { flags: ["BILLING_IDEMPOTENCY"] }));
    // It does not cover what else was recorded under that name, perhaps by another machine.
    await migratorOf().recordMaster(target, masterOf("other", { flags: ["BILLING_IDEMPOTENCY"] }));
    expect(await mastersOf(target)).toEqual(
      [
        "debian BILLING_IDEMPOTENCY by identity 0.0.0-test",
        "other BILLING_IDEMPOTENCY by identity 0.0.0-test",
        "other BILLING_IDEMPOTENCY+FULA_BUCKET_ROOT_CAS by name 0.1.0",
      ].sort(),
    );
  });

  test("two masters with one name do not harm each other", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    const name = "debian";
    await migratorOf().recordMaster(target, masterOf("a", { name, flags: ["FULA_BUCKET_ROOT_CAS"] }));
    await migratorOf().recordMaster(target, masterOf("b", { name }));

    await expect(migratorOf().down(target, [20], listen())).rejects.toMatchObject({
      what: expect.stringContaining(`FULA_BUCKET_ROOT_CAS is in use on: debian (${idOf("a")}, seen `),
    });
    await migratorOf().forgetMaster(target, { id: idOf("b"), name });
    expect(await migratorOf().readMasters(target)).toMatchObject([{ id: idOf("a") }]);
  });

  test("a master is in one pool, and its row says when it was last heard of", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    await migratorOf().recordMaster(target, masterOf("a", { flags: ["A", "B"] }));
    await migratorOf().recordMaster(target, masterOf("a", { pool: "pool-b", flags: ["B"] }));
    await sql(target, "UPDATE masters SET heartbeat_at = now() - interval '7 minutes'");
    const masters = await migratorOf().readMasters(target);
    expect(Math.round((masters?.[0]?.heartbeatAgeMs ?? 0) / 60_000)).toBe(7);
    expect(masters).toEqual([
      {
        ...masterOf("a", { pool: "pool-b", flags: ["B"] }),
        version: "0.0.0-test",
        heartbeatAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
        heartbeatAgeMs: expect.any(Number),
      },
    ]);
    await expect(migratorOf().recordMaster(target, masterOf("a", { id: "not an identity" }))).rejects.toThrow(
      /masters_id_check/,
    );
  });

  test("beats while its service runs; a database that does not answer is said once", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    await migratorOf().recordMaster(target, masterOf("a"));
    await migratorOf().recordMaster(target, masterOf("b"));
    await sql(target, "UPDATE masters SET heartbeat_at = now() - interval '1 day'");
    const { lines, report: log } = listen();
    const end = keepBeating(poolOf(target), idOf("a"), { log, everyMs: 20 });
    const fresh = "SELECT name FROM masters WHERE heartbeat_at > now() - interval '1 minute'";
    await expect.poll(() => sql(target, fresh), { timeout: 10_000 }).toEqual([{ name: "a" }]);
    await sql(target, "ALTER TABLE masters RENAME TO gone");
    await expect.poll(() => lines, { timeout: 10_000 }).toHaveLength(1);
    await sql(target, "ALTER TABLE gone RENAME TO masters");
    await sql(target, "UPDATE masters SET heartbeat_at = now() - interval '1 day'");
    await expect.poll(() => sql(target, fresh), { timeout: 10_000 }).toEqual([{ name: "a" }]);
    end();
    expect(lines).toEqual([expect.stringContaining("the heartbeat of this master failed")]);
  });

  test("down gives the flags back by name, and refuses while several masters are recorded", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    const before = await catalogueOf(target);
    await migratorOf().recordMaster(target, masterOf("a", { flags: ["BILLING_IDEMPOTENCY"] }));
    await migratorOf().recordMaster(target, masterOf("b"));
    await expect(migratorOf().down(target, [VERSION], listen())).rejects.toMatchObject({
      exit: "drift",
      what: expect.stringMatching(/022_masters\.down\.sql refuses: several masters are recorded: a \(/),
    });
    await migratorOf().forgetMaster(target, { id: idOf("b"), name: "b" });

    await migratorOf().down(target, [VERSION], listen());

    expect(await sql(target, "SELECT master, flag FROM fula_node.flags_in_use")).toEqual([
      { master: "a", flag: "BILLING_IDEMPOTENCY" },
    ]);
    // Without the table, 018 still finds them where 0.1.0 kept them.
    await expect(migratorOf().down(target, [18], listen())).rejects.toMatchObject({
      what: expect.stringContaining("BILLING_IDEMPOTENCY is in use on: a (seen "),
    });
    await migratorOf().forgetMaster(target, { id: null, name: "a" });
    await migratorOf().down(target, [18], listen());
    await migratorOf().up(target, listen());
    expect(await catalogueOf(target)).toEqual(before);
  });

  test("is adopted where the ledger lost it; a part that is missing is named", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    await sql(target, "DROP SCHEMA fula_node CASCADE");
    const { done } = await migratorOf().up(target, listen());
    expect(done.find(({ version }) => version === VERSION)).toMatchObject({ action: "adopt" });
    await sql(target, "DROP SCHEMA fula_node CASCADE; ALTER TABLE masters DROP COLUMN machine");
    await expect(migratorOf().status(target)).rejects.toMatchObject({
      exit: "drift",
      problems: [{ subject: "022_masters.sql", what: "missing: column masters.machine text" }],
    });
  });
});

/** Tables of ours whose keys do not begin with the pool, and why. */
const WITHOUT_POOL: Readonly<Record<string, string>> = {
  bucket_roots: "upstream's table and number (020): its gateways know owner and bucket only",
  account_usage: "it follows pins, upstream's table, which has no pool",
  account_pins: "the same",
  revoked_wallet_sessions: "a wallet is one account in the whole database, as in upstream's gateway",
  wallet_challenges: "it leads to user_wallets, upstream's table, which has no pool",
  account_holds: "it goes with user_credits, upstream's table, which has no pool",
  credit_adjustments: "it changes user_credits, upstream's table, which has no pool",
  pin_work: "it follows pins, upstream's table, which has no pool",
  exact_credits: "it goes with user_credits, upstream's table, which has no pool",
  credit_takeovers: "the same",
  account_suspensions: "the same",
  failed_charges: "the same",
  deposits: "a transfer of a chain is one in the whole database, as in token_transactions",
  failed_deposits: "the same",
  chain_scans: "it goes with chain_sync_state, upstream's table, which has no pool",
  bucket_writes: "it goes with bucket_roots, upstream's table",
  billing_hours: "an hour is billed for all accounts of the database at once",
  cron_lease: "as upstream's advisory lock, it is one for the whole database",
  pin_mark: "one row: pins, upstream's table, has no pool",
  pin_doubts: "the same: a content is pinned or not, whoever asked for it",
};

describe("every new table of ours", () => {
  const files = SHIPPED_FILES.filter((name) => Number(name.slice(0, 3)) > 1);

  test.each(files)("leads its keys with the pool, or stands in a list with a reason: %s", (name) => {
    const text = readFileSync(join(SHIPPED, name), "utf8");
    const wrong = splitStatements(text).flatMap((statement) => keysWithoutPool(statement.text));
    expect(wrong).toEqual([]);
  });

  test("the list names tables that exist", () => {
    const all = files.map((name) => readFileSync(join(SHIPPED, name), "utf8")).join("\n");
    for (const table of Object.keys(WITHOUT_POOL)) expect(all).toContain(`CREATE TABLE ${table} (`);
  });

  test.each([
    ["CREATE TABLE a (id integer PRIMARY KEY)", ["a (id)"]],
    ["CREATE TABLE IF NOT EXISTS public.a (id text, pool text, PRIMARY KEY (id, pool))", ["a (id, pool)"]],
    ["CREATE TABLE a (pool text, id text, PRIMARY KEY (pool, id), UNIQUE (id))", ["a (id)"]],
    ["CREATE TABLE a (pool text, x text)", ["a has no key"]],
    ["CREATE TABLE a (pool text, id text, PRIMARY KEY (pool, id))", []],
    ["CREATE UNIQUE INDEX i ON a (id)", []],
  ])("is found: %s", (statement, wrong) => {
    expect(keysWithoutPool(statement)).toEqual(wrong);
  });
});

function keysWithoutPool(statement: string): readonly string[] {
  const sqlText = statement.replaceAll(/--.*$/gm, "");
  const [, table, body = ""] =
    /^CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:public\.)?(\w+)\s*\(([^]*)\)/i.exec(sqlText) ?? [];
  if (table === undefined || table in WITHOUT_POOL) return [];
  const lists = [...body.matchAll(/\b(?:PRIMARY\s+KEY|UNIQUE)\s*\(([^)]*)\)/gi)].map(
    ([, columns = ""]) => columns,
  );
  const alone = [...body.matchAll(/^\s*(\w+)[^,(]*\b(?:PRIMARY\s+KEY|UNIQUE)\b(?!\s*\()/gim)].map(
    ([, column = ""]) => column,
  );
  const keys = [...lists, ...alone];
  if (keys.length === 0) return [`${table} has no key`];
  return keys.filter((columns) => !/^\s*pool\b/.test(columns)).map((columns) => `${table} (${columns})`);
}
