import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { execa } from "execa";
import manifest from "../../package.json" with { type: "json" };
import { guardsOf } from "../../src/database/migration-file.ts";
import { release010 } from "../support/artifact.ts";
import { migrationsDirectory, SHIPPED, SHIPPED_FILES } from "../support/migrations.ts";
import { type Surveyed, surveyMigrations } from "../support/migration-survey.ts";
import { describeOnPostgres } from "../support/postgres.ts";

/** Files up to here are upstream's, also in what their keys are. */
const LAST_OF_UPSTREAM = 20;

const ACCOUNTS = "accounts, their pins and their credits are upstream's tables, which have no pool";

/** Tables of ours whose keys do not lead with the pool, and why. */
const WITHOUT_POOL: Readonly<Record<string, string>> = {
  "public.pin_work":
    "the key is that of upstream's pins, which have no pool: all masters of a database share one queue",
  "public.pin_doubts": "a content of the one queue that all masters of a database share",
  "public.account_usage": `parts of the sum of an account, which are only numbered: ${ACCOUNTS}`,
  "public.account_pins": `parts of the numbers of an account, which are only numbered: ${ACCOUNTS}`,
  "public.account_holds": ACCOUNTS,
  "public.account_suspensions": ACCOUNTS,
  "public.revoked_wallet_sessions": "what a wallet signs names no pool, so the session ends in every one",
  "public.wallet_challenges": "a hash of a message that is given out once, for a wallet of an account",
  "public.credit_adjustments": `the operator's key makes a correction once, whichever master it is given to: ${ACCOUNTS}`,
  "public.exact_credits": ACCOUNTS,
  "public.credit_takeovers": ACCOUNTS,
  "public.cron_lease":
    "one master bills all accounts of the database; the advisory lock behind it is the database's, too",
  "public.billing_hours": "an hour is billed once for all accounts of the database",
  "public.failed_charges": ACCOUNTS,
  "public.pin_mark": "one row: the mark of this database",
  "public.bucket_writes": "the key is that of upstream's bucket_roots, beside which it stands",
  "public.deposits": "a transfer on a chain has no pool, and is credited once in the database",
  "public.failed_deposits": "a transfer on a chain has no pool",
  "public.chain_scans": "the key is that of upstream's chain_sync_state, beside which it stands",
};

/** Files that nothing takes back, and why. */
const WITHOUT_DOWN: Readonly<Record<number, string>> = {
  1: "the whole of upstream's schema: taking it back would remove every account and pin",
};

/** Down files that raise an exception outside of the guards at their head, and why nobody can ask it before a run. */
const RAISES_LATER: Readonly<Record<string, string>> = {
  "024_pin_work.down.sql": "034 is reverted before it, in the same run",
  "029_billing.down.sql": "a rollback stops the storage API of this master before",
};

/** The up files of versions that are released, by their sha256. They never change: the ledger of each node has this number. */
const RELEASED: Readonly<Record<string, string>> = {
  "001_schema.sql": "4754438c4557296e73cad4591905240a66eac81a1f98bebec47cad73e4da04ae",
  "018_deduction_idempotency.sql": "eee9e1316a312c6a8a1ddddd8d11f0a4e3cd847ad315942be4cc8389a3f1e8bd",
  "019_user_wallets_nullable_address.sql": "1cfac6ca2277762f49654892f051ca90d64f8c1c37f79f05c88cb7f4b16a7724",
  "020_bucket_roots.sql": "ed07a37b8ee008df29774ce3a4e44becbc1c5fe56273b5550069e5e86af3304d",
  "021_node_names.sql": "81722cedabd035465a3478087ed47b594cf35d6cc08c403ad3dc1894461c9645",
  "022_masters.sql": "3e97c7810f647fdb80560694aab86a3e2ae8944932bafc37316bea005e1b8e59",
  "023_invites.sql": "16f9622876dc01f3db102cf52c800813e844139c83557246a0c9527c11977227",
  "024_pin_work.sql": "28b7dcddc99290cd8831e762ecbf849660bef80b8895c5fa10e73eb038104a8b",
  "025_accounts.sql": "2e17840d43864ed110fd8321d6b0916d8f1760517cb7db4089113db714631c77",
  "026_pins_listing.sql": "cf804a5b7af0915844161229cf2bfba207fb68977684eef38eb5068b765bf4db",
  "027_pin_functions.sql": "1f0c06189cde356495dd3065f24a4e5ac49dba650851dac2d62e76cfeac9d8ae",
  "028_account_pins.sql": "7d2bbfbda613bcb8c99d72520ce6c026810ccb3ab666aa807371bc02983f7b4b",
  "029_billing.sql": "8a168ab4a3f764f31d00aa5eb54eb873521153253eb20eae6a7d9527bee5a904",
  "030_pin_mark.sql": "16b650d6134efc6ccbf8966bb527a23f0744e3d3675683d43f2a10988a4b5c76",
  "031_blocked_contents.sql": "0ba6735e65e011903f466088ac809e63a053056be8576ec30d365352d53af4d4",
  "032_bucket_writes.sql": "d1c00d21a157baab9347057fcbdcc39438b6bbb5c83ed4faabe7271a7657f743",
  "033_deposits.sql": "536f38b17dc32d004281eba30058e6d10f6e6822b10e8b0cd3121a559c98c8b2",
  "034_pin_places.sql": "6b09f77b081918397fbcf1528b6703f316fbe38540890df4a074b58a5f081fc9",
};

/** The version that is being worked on, and the first of its own files. */
const UNRELEASED = { version: "0.5.0", from: 35 };

/** What is wrong with the keys of our tables. */
function checkKeys(
  surveyed: readonly Surveyed[],
  listed: Readonly<Record<string, string>>,
): readonly string[] {
  const ours = surveyed.filter(({ version }) => version > LAST_OF_UPSTREAM);
  const tables = ours.flatMap((one) => one.tables);
  const keys = ours.flatMap((one) => one.keys);
  const leads = ({ columns, isFilled }: (typeof keys)[number]) => columns[0] === "pool" && isFilled;
  return [
    ...keys
      .filter((key) => listed[key.table] === undefined && !leads(key))
      .map(
        ({ table, name, columns }) => `${table}: ${name} (${columns.join(", ")}) does not lead with the pool`,
      ),
    ...tables
      .filter(({ table, hasPrimaryKey }) => listed[table] === undefined && !hasPrimaryKey)
      .map(({ table }) => `${table} has no primary key`),
    ...Object.entries(listed).flatMap(([table, reason]) => [
      ...(reason.length < 10 ? [`${table} is listed without a reason`] : []),
      ...(tables.some((one) => one.table === table) ? [] : [`${table} is listed, and no file creates it`]),
      ...(keys.some((key) => key.table === table && !leads(key)) || !tables.some((one) => one.table === table)
        ? []
        : [`${table} is listed, and all of its keys lead with the pool`]),
    ]),
  ];
}

/** What is wrong with the down files. */
function checkDowns(
  surveyed: readonly Surveyed[],
  listed: Readonly<Record<number, string>>,
): readonly string[] {
  return surveyed.flatMap(({ file, version, hasDown, tables, left }) => {
    const isListed = listed[version] !== undefined;
    return [
      ...(!hasDown && !isListed
        ? [`${file} has no down file: ${tables.map(({ table }) => table).join(", ")}`]
        : []),
      ...(hasDown && isListed ? [`${file} is listed, and has a down file`] : []),
      ...left.map((line) => `${file}, after its down file: ${line}`),
    ];
  });
}

/** What is wrong with the released files among these texts by name. */
function checkReleased(
  texts: ReadonlyMap<string, string>,
  released: Readonly<Record<string, string>>,
  { version, from }: typeof UNRELEASED,
  current: string,
): readonly string[] {
  return [
    ...Object.entries(released).flatMap(([file, sum]) => {
      const text = texts.get(file);
      if (text === undefined) return [`${file} was released, and is missing`];
      return sumOf(text) === sum
        ? []
        : [`${file} was released, and was edited: give a new file the correction`];
    }),
    ...[...texts.keys()].flatMap((file) => {
      const isNew = current === version && Number(file.slice(0, 3)) >= from;
      return released[file] !== undefined || isNew
        ? []
        : [`${file} is released, and not pinned by its sha256`];
    }),
    ...Object.keys(released).flatMap((file) =>
      Number(file.slice(0, 3)) >= from ? [`${file} is pinned, and not released yet`] : [],
    ),
  ];
}

/** What is wrong with the guards of the down files among these texts by name. */
function checkGuards(
  texts: ReadonlyMap<string, string>,
  listed: Readonly<Record<string, string>>,
): readonly string[] {
  const count = (sql: string) => sql.match(/\bRAISE\s+EXCEPTION\b/gi)?.length ?? 0;
  return [...texts].flatMap(([file, text]) => {
    const later = count(text) - guardsOf(text).reduce((sum, guard) => sum + count(guard.text), 0);
    if (later > 0 && listed[file] === undefined)
      return [`${file} raises an exception after its first change: a rollback can't ask it before`];
    return later === 0 && listed[file] !== undefined ? [`${file} is listed, and raises all at its head`] : [];
  });
}

function sumOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

const TEXTS = new Map(SHIPPED_FILES.map((file) => [file, readFileSync(join(SHIPPED, file), "utf8")]));

const DOWNS = new Map(
  readdirSync(SHIPPED)
    .filter((file) => file.endsWith(".down.sql"))
    .map((file) => [file, readFileSync(join(SHIPPED, file), "utf8")]),
);

test("a down file refuses at its head, where a rollback asks it before it stops anything", () => {
  expect(DOWNS.size).toBeGreaterThan(20);
  expect(checkGuards(DOWNS, RAISES_LATER)).toEqual([]);
  const guard = "DO $$ BEGIN RAISE EXCEPTION 'no'; END; $$;";
  const late = new Map([["099_bad.down.sql", `LOCK TABLE a; ${guard} DROP TABLE a; ${guard}`]]);
  expect(checkGuards(late, {})).toEqual([
    "099_bad.down.sql raises an exception after its first change: a rollback can't ask it before",
  ]);
  expect(checkGuards(late, { "099_bad.down.sql": "why" })).toEqual([]);
  const early = new Map([["099_good.down.sql", `LOCK TABLE a; ${guard} ${guard} DROP TABLE a;`]]);
  expect(checkGuards(early, {})).toEqual([]);
  expect(checkGuards(early, { "099_good.down.sql": "why" })).toEqual([
    "099_good.down.sql is listed, and raises all at its head",
  ]);
});

describe("released up files", () => {
  test("have the checksums of their release", () => {
    expect(checkReleased(TEXTS, RELEASED, UNRELEASED, manifest.version)).toEqual([]);
  });

  test("are those of the packed release 0.1.0, file by file", async () => {
    const { stdout } = await execa("tar", ["-tzf", await release010()]);
    const packed = stdout.split("\n").filter((path) => /\/migrations\/\d{3}_\w+\.sql$/.test(path));
    expect(packed).toHaveLength(5);
    for (const path of packed) {
      const file = await execa("tar", ["-xzOf", await release010(), path], { stripFinalNewline: false });
      const name = path.replace(/.*\//, "");
      expect([name, sumOf(file.stdout)]).toEqual([name, RELEASED[name]]);
    }
  });

  test("an edited one, a missing one, and one that is not pinned are noticed", () => {
    const check = (change: Readonly<Record<string, string | null>>, current = manifest.version) => {
      const texts = new Map(TEXTS);
      for (const [file, text] of Object.entries(change))
        if (text === null) texts.delete(file);
        else texts.set(file, text);
      return checkReleased(texts, RELEASED, UNRELEASED, current);
    };
    const masters = TEXTS.get("022_masters.sql") ?? "";
    expect(check({ "022_masters.sql": `${masters} ` })).toEqual([
      "022_masters.sql was released, and was edited: give a new file the correction",
    ]);
    expect(check({ "022_masters.sql": null })).toEqual(["022_masters.sql was released, and is missing"]);
    expect(check({ "002_late.sql": "" })).toEqual(["002_late.sql is released, and not pinned by its sha256"]);
    // Once the next version is begun, the files of this one are released.
    const file = "999_new.sql";
    expect(check({ [file]: "" })).toEqual([]);
    expect(check({ [file]: "" }, "999.0.0")).toContain(`${file} is released, and not pinned by its sha256`);
    expect(checkReleased(TEXTS, { ...RELEASED, [file]: sumOf("") }, UNRELEASED, manifest.version)).toContain(
      `${file} is pinned, and not released yet`,
    );
  });
});

describeOnPostgres("the migration files, each applied alone and in order", (postgres) => {
  const survey = async (files: Readonly<Record<string, string>>) =>
    surveyMigrations(await postgres.createDatabase(), await migrationsDirectory(files));

  test("keys of our tables lead with the pool, and each down file takes back all that its file made", async () => {
    const surveyed = await surveyMigrations(await postgres.createDatabase(), SHIPPED);
    expect(surveyed.map(({ file }) => file)).toEqual(SHIPPED_FILES);
    expect(checkKeys(surveyed, WITHOUT_POOL)).toEqual([]);
    expect(checkDowns(surveyed, WITHOUT_DOWN)).toEqual([]);
    // The survey sees what is there, and stays no empty list.
    const names = surveyed.find(({ version }) => version === 21);
    expect(names?.keys).toContainEqual({
      table: "public.node_names",
      name: "node_names_pkey",
      columns: ["pool", "name"],
      isFilled: true,
    });
  });

  test.each([
    [
      "a primary key of something else",
      "CREATE TABLE t (id integer PRIMARY KEY)",
      ["public.t: t_pkey (id) does not lead with the pool"],
    ],
    ["no primary key", "CREATE TABLE t (pool text NOT NULL)", ["public.t has no primary key"]],
    [
      "the pool in the second place",
      "CREATE TABLE t (pool text, name text, PRIMARY KEY (name, pool))",
      ["public.t: t_pkey (name, pool) does not lead with the pool"],
    ],
    [
      "a unique constraint, and a unique index of an expression",
      `CREATE TABLE t (pool text, name text UNIQUE, PRIMARY KEY (pool, name));
       CREATE UNIQUE INDEX t_lower ON t (lower(name), pool)`,
      [
        "public.t: t_lower (, pool) does not lead with the pool",
        "public.t: t_name_key (name) does not lead with the pool",
      ],
    ],
    [
      "a key that a later statement adds, in a schema of its own",
      `CREATE SCHEMA s; CREATE TABLE s.t (pool text, name text, PRIMARY KEY (pool, name));
       ALTER TABLE s.t ADD CONSTRAINT once EXCLUDE (name WITH =)`,
      ["s.t: s.once (name) does not lead with the pool"],
    ],
    [
      "a pool that can be null",
      "CREATE TABLE t (pool text, id integer PRIMARY KEY); CREATE UNIQUE INDEX t_pool ON t (pool, id)",
      [
        "public.t: t_pkey (id) does not lead with the pool",
        "public.t: t_pool (pool, id) does not lead with the pool",
      ],
    ],
    [
      "a foreign key that reaches into another pool",
      `CREATE TABLE a (pool text, id integer, PRIMARY KEY (pool, id), UNIQUE (pool));
       CREATE TABLE b (pool text, other text REFERENCES a (pool), PRIMARY KEY (pool))`,
      ["public.b: b_other_fkey (other) does not lead with the pool"],
    ],
  ])("is red: %s", async (_, statements, problems) => {
    expect(checkKeys(await survey({ "021_bad.sql": fileOf(statements) }), {})).toEqual(problems);
  });

  test("is red: a key of ours on a table of upstream's", async () => {
    const files = {
      "020_theirs.sql": fileOf("CREATE TABLE theirs (id integer PRIMARY KEY, email text)", "theirs"),
      "021_bad.sql": fileOf("CREATE UNIQUE INDEX once ON theirs (email)", "once"),
    };
    expect(checkKeys(await survey(files), {})).toEqual([
      "public.theirs: once (email) does not lead with the pool",
    ]);
  });

  test("is red: a list with a table that is gone, that needs no reason, or that has none", async () => {
    const surveyed = await survey({ "021_t.sql": fileOf("CREATE TABLE t (pool text PRIMARY KEY)") });
    expect(checkKeys(surveyed, { "public.t": "it once needed one", "public.u": "" })).toEqual([
      "public.t is listed, and all of its keys lead with the pool",
      "public.u is listed without a reason",
      "public.u is listed, and no file creates it",
    ]);
  });

  test("is red: no down file, one that leaves a table, and one that takes too much", async () => {
    const table = (name: string) => fileOf(`CREATE TABLE ${name} (pool text PRIMARY KEY)`, name);
    const files = { "021_a.sql": table("a"), "022_b.sql": table("b") };
    expect(checkDowns(await survey(files), {})).toEqual([
      "021_a.sql has no down file: public.a",
      "022_b.sql has no down file: public.b",
    ]);
    expect(checkDowns(await survey(files), { 21: "why", 22: "why" })).toEqual([]);
    const leaves = await survey({ ...files, "022_b.down.sql": "SELECT 1;" });
    expect(checkDowns(leaves, { 21: "why" })).toContain(
      "022_b.sql, after its down file: stays: b.pool #1 text NOT NULL",
    );
    const takes = await survey({ ...files, "022_b.down.sql": "DROP TABLE a, b;" });
    expect(checkDowns(takes, { 21: "why" })).toContain(
      "022_b.sql, after its down file: lost: a.pool #1 text NOT NULL",
    );
    expect(
      checkDowns(await survey({ ...files, "022_b.down.sql": "DROP TABLE b;" }), { 21: "why", 22: "why" }),
    ).toEqual(["022_b.sql is listed, and has a down file"]);
  });
});

/** An up file of these statements; `made` is a table or index that they make. */
function fileOf(statements: string, made = "t"): string {
  return `-- fula-node:transaction one
-- fula-node:parts SELECT 'its effect' AS part, to_regclass('${made}') IS NOT NULL AS there
${statements};
`;
}
