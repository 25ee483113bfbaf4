import { expect, test } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import {
  catalogueOf,
  ledgerOf,
  listen,
  migratorOf,
  OUR_VERSIONS,
  SHIPPED_VERSIONS,
  upstreamNumbers,
} from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { makeUpstreamDatabase } from "../support/upstream-database.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

describeOnPostgres("a database that the bash installer made", (postgres) => {
  test("at 018: 001 and 018 are adopted, 019 and 020 applied, and nothing is run twice", async () => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 18);
    const before = { rows: await rowsOf(target), files: await storageOf(target) };
    const { lines, report } = listen();

    const status = await migratorOf().status(target);
    await migratorOf().up(target, { report });

    expect(status.items.map(({ version, action }) => `${version} ${action}`)).toEqual([
      "1 adopt",
      "18 adopt",
      "19 apply",
      "20 apply",
      ...OUR_VERSIONS.map((version) => `${version} apply`),
    ]);
    expect(await ledgerOf(target)).toEqual([
      "1 adopted applied",
      "18 adopted applied",
      "19 applied applied",
      "20 applied applied",
      ...OUR_VERSIONS.map((version) => `${version} applied applied`),
    ]);
    expect(lines[0]).toMatch(/^001_schema\.sql: already existed, adopted in \d+ ms$/);
    expect(await rowsOf(target)).toEqual(before.rows);
    expect(await storageOf(target)).toEqual(expect.arrayContaining([...before.files]));
    expect(await migratorOf().up(target, listen())).toEqual({ done: [] });
  });

  test("at 017: 018 is applied, over rows without user or reference that repeat", async () => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 17);

    await migratorOf().up(target, listen());

    expect((await ledgerOf(target)).slice(0, 2)).toEqual(["1 adopted applied", "18 applied applied"]);
  });

  test("at 020: everything of upstream's is adopted", async () => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 20);
    const before = await catalogueOf(target);

    await migratorOf({ directory: await upstreamNumbers() }).up(target, listen());

    expect(await ledgerOf(target)).toEqual([1, 18, 19, 20].map((version) => `${version} adopted applied`));
    expect(await catalogueOf(target)).toEqual(before);
  });

  test("at 012: refused with every missing part named, and nothing changed", async () => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 12);
    const before = await catalogueOf(target);

    const refusal = await migratorOf()
      .up(target, listen())
      .catch((thrown: unknown) => thrown);

    expect(refusal).toBeInstanceOf(OperatorError);
    const { exit, problems, changed } = refusal as OperatorError;
    expect({ exit, changed }).toEqual({ exit: "drift", changed: undefined });
    expect(problems.map(({ what }) => what).sort()).toEqual([
      "missing: api_keys.key_id freed of NOT NULL (upstream 013)",
      "missing: column api_keys.key_hash varchar (upstream 013)",
      "missing: column user_credits.total_bonus_received_fula float4 (upstream 017)",
      "missing: table blocked_cids (upstream 015)",
      "missing: table referral_bonuses (upstream 017)",
      "missing: tx_type referral_bonus in credit_history (upstream 017)",
      "missing: unique index on api_keys(key_hash) (upstream 013)",
      "missing: unique index on referrals(referred_id) (upstream 017)",
      "missing: unique index on user_credits(user_id) (upstream 014)",
    ]);
    expect(await catalogueOf(target)).toEqual(before);
    expect(await ledgerOf(target)).toEqual([]);
    await expect(migratorOf().status(target)).rejects.toMatchObject({ exit: "drift" });
  });

  test.each([
    ["a table", "DROP TABLE x402_gateway_stats", "table x402_gateway_stats (upstream 001)"],
    ["a column", "ALTER TABLE pins DROP COLUMN token_hash", "column pins.token_hash varchar (upstream 009)"],
    [
      "a column's type",
      "ALTER TABLE users ALTER COLUMN user_id TYPE text",
      "column users.user_id varchar (upstream 010)",
    ],
    [
      "the guard against double deposits",
      "ALTER TABLE token_transactions DROP CONSTRAINT token_transactions_tx_hash_chain_id_key",
      "unique index on token_transactions(tx_hash,chain_id) (upstream 001)",
    ],
    [
      "a foreign key",
      "ALTER TABLE api_keys DROP CONSTRAINT fk_api_keys_user_id",
      "foreign key fk_api_keys_user_id on api_keys (upstream 011)",
    ],
    ["a trigger", "DROP TRIGGER pins_updated_at ON pins", "trigger pins_updated_at on pins (upstream 003)"],
    [
      "a freed column",
      "ALTER TABLE sessions ALTER COLUMN username SET NOT NULL",
      "sessions.username freed of NOT NULL (upstream 012)",
    ],
    [
      "a dropped constraint",
      "ALTER TABLE webui_users ADD UNIQUE (email)",
      "webui_users(email) freed of its unique constraint (upstream 012)",
    ],
    [
      "a partial index for a whole one",
      "DROP INDEX idx_user_credits_user_id_unique; CREATE UNIQUE INDEX idx_user_credits_user_id_unique ON user_credits (user_id) WHERE is_suspended = 0",
      "unique index on user_credits(user_id) (upstream 014)",
    ],
  ])("one part missing is seen: %s", async (_, breaks, named) => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 18);
    await sql(target, breaks);

    await expect(migratorOf().status(target)).rejects.toMatchObject({
      exit: "drift",
      problems: [{ subject: "001_schema.sql", what: `missing: ${named}` }],
    });
  });

  test("other applications' tables do not count", async () => {
    const target = await postgres.createDatabase();
    await sql(target, "CREATE TABLE share_manifests (share_id text PRIMARY KEY)");

    expect(await migratorOf().status(target)).toMatchObject({
      pending: SHIPPED_VERSIONS.length,
      items: SHIPPED_VERSIONS.map(() => ({ action: "apply" })),
    });
  });

  test("a build of 018 that upstream left INVALID is cleared and built anew", async () => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 18);
    await sql(
      target,
      "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_credit_history_hourly_dedup'::regclass",
    );
    const old = await storageOf(target);

    const { done } = await migratorOf().up(target, listen());

    expect(done.slice(0, 2).map(({ version, action }) => `${version} ${action}`)).toEqual([
      "1 adopt",
      "18 clear-and-retry",
    ]);
    const fresh = await storageOf(target);
    const isDedup = (line: string): boolean => line.startsWith("idx_credit_history_hourly_dedup ");
    expect(fresh.filter(isDedup)).toHaveLength(1);
    expect(fresh.find(isDedup)).not.toBe(old.find(isDedup));
    expect(await catalogueOf(target)).not.toContainEqual(expect.stringContaining("INVALID"));
  });
});

/** Every table's row count and content hash. */
async function rowsOf(target: PostgresTarget): Promise<readonly string[]> {
  const tables = [
    "users",
    "pins",
    "api_keys",
    "user_credits",
    "credit_history",
    "user_wallets",
    "share_manifests",
  ];
  const rows: string[] = [];
  for (const table of tables) {
    const [row] = await sql<{ line: string }>(
      target,
      `SELECT '${table} ' || count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') AS line FROM ${table} t`,
    );
    rows.push(row?.line ?? "");
  }
  return rows;
}

/** Every table and index with the file that holds it: rewriting or rebuilding one gives it another. */
async function storageOf(target: PostgresTarget): Promise<readonly string[]> {
  const rows = await sql<{ line: string }>(
    target,
    `SELECT relname || ' ' || relfilenode AS line FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') ORDER BY 1`,
  );
  return rows.map(({ line }) => line);
}
