import { createHash } from "node:crypto";
import { openText } from "../../src/accounts/api-key.ts";
import { secretRotate, type SecretFlags } from "../../src/commands/secret.ts";
import type { VerbExit } from "../../src/errors.ts";
import { parseMemory, serialiseMemory } from "../../src/pinset/snapshot/memory.ts";
import type { World } from "../../src/world.ts";
import { type FakeMaster, NODE_PATH, PACKAGE_DIR, sha256, VERSION } from "./fake-master.ts";
import { LAYOUT, savedValues } from "./master-boxes.ts";

/** A row of a fake table. `sealed` is its encrypted column. */
export interface FakeRow {
  readonly id: number;
  sealed: string;
  deleted: boolean;
}

/** Rows by table. */
export type FakeTables = Map<string, FakeRow[]>;

const ROLE = "/var/lib/docker/volumes/fula-master_pgdata/_data/role.json";

/** The password that the role of the fake database has. */
export function rolePassword(host: FakeMaster): string {
  return (JSON.parse(host.files.textOf(ROLE)) as { readonly password: string }).password;
}

/** A copy of a joined box, with rows in its database. Its role, rows and chain of snapshots can change. */
export function rotatingBox(
  joined: FakeMaster,
  rows: FakeTables,
): { readonly host: FakeMaster; readonly tables: FakeTables } {
  const host = joined.copy();
  const tables: FakeTables = new Map(
    [...rows].map(([table, some]) => [table, some.map((row) => ({ ...row }))]),
  );
  host.postgres.onSetPassword = (target, password) => {
    if (host.postgres.onAsk(target).kind !== "open") throw new Error("the role can't log in");
    const elsewhere = host.databasesElsewhere.get(target.host);
    if (elsewhere !== undefined) {
      host.databasesElsewhere.set(target.host, { ...elsewhere, password });
      return;
    }
    const role = JSON.parse(host.files.textOf(ROLE)) as object;
    host.files.put(ROLE, JSON.stringify({ ...role, password }), 0o600);
  };
  const { onQuery } = host.postgres;
  host.postgres.onQuery = (target, sql, values) => {
    if (host.postgres.onAsk(target).kind !== "open") throw new Error("the role can't log in");
    return answer(tables, sql, values) ?? onQuery(target, sql, values);
  };
  const { onCommand } = host.system;
  host.system.onCommand = (argv) => {
    onCommand(argv);
    const memory = parseMemory(host.files.tree.get(LAYOUT.snapshotMemory)?.text ?? null);
    const retiredKeys = memory === null || memory === "damaged" ? [] : memory.retiredKeys;
    const before = memory === null || memory === "damaged" ? null : memory.last;
    const last = {
      name: "pinset-1",
      sequence: (before?.sequence ?? 1) + 1,
      manifestSha256: "0".repeat(64),
      keyId: keyIdOf(host.files.textOf(LAYOUT.signingKey)),
    };
    host.files.put(LAYOUT.snapshotMemory, serialiseMemory({ last, retiredKeys, removed: null }));
  };
  host.revive();
  return { host, tables };
}

/** The id that FakeRandom gives to a key. */
export function keyIdOf(pem: string): string {
  const body = pem.split("\n")[1] ?? "";
  return createHash("sha256").update(body).digest("hex").slice(0, 16);
}

/** The id of the public key on the box: its text is the hash that the id begins. */
function publicKeyId(host: FakeMaster): string {
  return (host.files.textOf(LAYOUT.verifyingKey).split("\n")[1] ?? "").slice(0, 16);
}

/** The few statements of accounts/key-change.ts; null for any other. */
function answer(
  tables: FakeTables,
  sql: string,
  values: readonly unknown[],
): readonly Record<string, unknown>[] | null {
  const table = /(?:FROM|UPDATE) (webui_users|api_keys|user_wallets)\b/.exec(sql)?.[1] ?? "";
  const rows = tables.get(table) ?? [];
  if (sql.includes("information_schema.columns")) return tables.has(String(values[0])) ? [{ n: 1 }] : [];
  if (sql.includes("AS v(id, sealed, again)")) {
    const [ids, olds, news] = values as readonly (readonly string[])[];
    return rows.filter((row) => {
      const at = ids?.indexOf(String(row.id)) ?? -1;
      if (at < 0 || row.sealed !== olds?.[at]) return false;
      row.sealed = news?.[at] ?? "";
      return true;
    }) as never;
  }
  if (sql.includes("SET is_deleted = 1")) {
    const gone = rows.filter(({ id, deleted }) => !deleted && (values[0] as readonly number[]).includes(id));
    for (const row of gone) row.deleted = true;
    return gone as never;
  }
  if (sql.includes("SELECT count(*) AS n FROM") && sql.includes(" AS t WHERE t."))
    return [{ n: String(rows.length) }];
  const isOfKeys = sql.includes("encrypted_key AS sealed FROM api_keys WHERE is_deleted = 0");
  if (!isOfKeys && !sql.includes("::text AS id")) return null;
  const found = rows.filter(({ id, deleted }) => id > Number(values[0]) && !(isOfKeys && deleted));
  return found.map(({ id, sealed }) => ({ id: isOfKeys ? id : String(id), sealed }));
}

/** How a rotation on a fake box ended, and everything that it printed. */
export interface RotationEnd {
  readonly exit: VerbExit;
  readonly data: Readonly<Record<string, unknown>>;
  readonly lines: readonly string[];
  readonly printed: readonly string[];
}

/** Runs `secret rotate NAME` on a fake box. By default it asks nothing. */
export async function rotateOn(
  host: FakeMaster,
  name: string,
  flags: Partial<SecretFlags> = {},
  parts: Partial<World> = {},
): Promise<RotationEnd> {
  const printed: string[] = [];
  const ended: { data: RotationEnd["data"]; lines: readonly string[] } = { data: {}, lines: [] };
  const world = {
    host,
    version: VERSION,
    packageDir: PACKAGE_DIR,
    nodePath: NODE_PATH,
    hostname: "box",
    environment: {},
    pid: 7,
    questions: null,
    hash: sha256,
    readStdin: async () => "",
    takeLock: async () => ({ release: async () => {} }),
    reporter: {
      listen: (event: unknown) => void printed.push(JSON.stringify(event)),
      note: (line: string) => void printed.push(line),
      progress: () => {},
      table: (rows: readonly (readonly string[])[]) => rows.map((row) => row.join("  ")),
      error: () => {},
      close: async () => {},
      result: (result: typeof ended) => {
        Object.assign(ended, result);
        printed.push(JSON.stringify(result));
      },
    },
    ...parts,
  } as unknown as World;
  const exit = await secretRotate(name, { dryRun: false, yes: true, ...flags }, world);
  return { exit, ...ended, printed };
}

/** What is wrong on a box on which no rotation is under way; empty if every part has the same secrets. */
export function findFaults(host: FakeMaster, tables: FakeTables): readonly string[] {
  const saved = savedValues(host);
  const env = (name: string, key: string) => host.docker.boxes.get(name)?.env[key];
  const sealed = [...tables.values()].flat();
  const checks: readonly (readonly [string, boolean])[] = [
    ["the record is gone", !host.files.tree.has(LAYOUT.rotation)],
    ["the role has the saved password", rolePassword(host) === saved["POSTGRES_PASSWORD"]],
    ...["POSTGRES_PASSWORD", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"].map(
      (key) => [`webui has ${key}`, env("fula-pinning-webui", key) === saved[key]] as const,
    ),
    [
      "postgres has the password",
      env("postgres-pinning", "POSTGRES_PASSWORD") === saved["POSTGRES_PASSWORD"],
    ],
    ["the pinning API has SYSTEM_KEY", env("fula-pinning-api", "SYSTEM_KEY") === saved["SYSTEM_KEY"]],
    [
      "the public key is the signing key's",
      publicKeyId(host) === keyIdOf(host.files.textOf(LAYOUT.signingKey)),
    ],
    [
      "every value opens with the saved key",
      sealed.every((row) => openText(row.sealed, saved["ENCRYPTION_KEY"] ?? "") !== null),
    ],
  ];
  return checks.filter(([, holds]) => !holds).map(([name]) => name);
}
