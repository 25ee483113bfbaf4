import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { moveRoot, readRoot, SWAP_ROOT } from "../../src/buckets/bucket-roots.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { faultsOf, OWNER, overwriteAll, swapAll } from "../support/bucket-swaps.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { findPostgresPrograms } from "../support/postgres-programs.ts";
import { sql, startPostgres } from "../support/postgres-server.ts";
import { timePairs } from "./pairs.ts";
import type { Bench, Measurement } from "./report.ts";

const ROUNDS = 5;
const SWAPS = 16_000;
const LOAD = { clients: 64, swaps: 1_000, buckets: 16 };

/**
 * Swaps of bucket roots, each client in its own bucket, against pgbench with the same statement, prepared, on the same
 * server, which waits for the disk. Both have their connections before the clock runs. Then the whole load of the issue, checked
 * for lost updates.
 */
export const benches: readonly Bench[] = [
  {
    name: "bucket-roots",
    run: async () => {
      const programs = await findPostgresPrograms();
      if (typeof programs === "string") throw new Error(programs);
      await execa("pgbench", ["--version"]);
      const postgres = await startPostgres(programs, {
        durable: true,
        settings: ["max_connections=200"],
        template: migrate,
      });
      try {
        const target = await postgres.createDatabase();
        return [
          await measure(target, 8),
          await measure(target, 64),
          await checkLoad(await postgres.createDatabase()),
        ];
      } finally {
        await postgres.stop();
      }
    },
  },
];

async function measure(target: PostgresTarget, clients: number): Promise<Measurement> {
  const pool = openPool(target, clients);
  const directory = await mkdtemp(join(tmpdir(), "fula-node-pgbench-"));
  const script = join(directory, "swap.sql");
  await writeFile(script, `${SCRIPT}\n`);
  const buckets = Array.from({ length: clients }, (_, n) => `own-${n + 1}`);
  const reset = async (): Promise<void> => {
    await sql(target, "TRUNCATE bucket_roots, bucket_writes");
    for (const bucket of buckets) await moveRoot(pool, { owner: OWNER, bucket, base: null, root: "root-1" });
    await sql(target, "VACUUM ANALYZE bucket_roots, bucket_writes");
  };
  const connect = async (): Promise<void> => {
    await reset();
    await Promise.all(buckets.map((bucket) => readRoot(pool, { owner: OWNER, bucket })));
    const { open } = pool.connections();
    if (open !== clients) throw new Error(`${open} connections for ${clients} clients`);
  };
  const each = SWAPS / clients;
  const ours = async (): Promise<void> => {
    await Promise.all(
      buckets.map(async (bucket) => {
        let base = await readRoot(pool, { owner: OWNER, bucket });
        for (let n = 0; n < each; n += 1) {
          const moved = await moveRoot(pool, { owner: OWNER, bucket, base, root: `root-${n + 2}` });
          if (moved.outcome !== "Won") throw new Error(`${bucket}: ${moved.outcome}`);
          base = moved.pointer;
        }
      }),
    );
  };
  const theirs = async (): Promise<number> => {
    const { host, port, user, password, database } = target;
    const rate = ["--client", String(clients), "--jobs", "1", "--transactions", String(each)];
    const login = ["--host", host, "--port", String(port), "--username", user];
    const prepared = ["--no-vacuum", "--define", "version=1", "--protocol", "prepared", "--file", script];
    const { stdout } = await execa("pgbench", [...login, ...rate, ...prepared, database], {
      env: { PGPASSWORD: password },
    });
    const [row] = await sql<{ moves: string }>(
      target,
      "SELECT sum(version - 1)::text AS moves FROM bucket_roots",
    );
    if (row?.moves !== String(SWAPS)) throw new Error(`pgbench moved roots ${row?.moves} times`);
    const [, perSecond] = /^tps = ([0-9.]+) \(without initial connection time\)$/m.exec(stdout) ?? [];
    if (perSecond === undefined) throw new Error(`pgbench says no rate: ${stdout}`);
    return (SWAPS * 1_000) / Number(perSecond);
  };
  try {
    const pairs = await timePairs(ROUNDS, { prepare: connect, run: ours }, { prepare: reset, run: theirs });
    const rate = (ms: number): number => (SWAPS * 1_000) / ms;
    return {
      name: `swaps of ${clients} clients`,
      what: `${SWAPS} compare-and-swaps by ${clients} connections of one process, each in a bucket of its own`,
      against: "pgbench, same statement",
      unit: "swaps/s",
      target: { of: "ratio", bound: "at least", value: 0.9 },
      ours: pairs.ours.map(rate),
      anchor: pairs.anchor.map(rate),
    };
  } finally {
    await pool.close();
    await rm(directory, { recursive: true });
  }
}

/** The statement with pgbench's variables; a client counts the version of its bucket itself. */
const SCRIPT = `\\set bucket :client_id + 1
${SWAP_ROOT.replace("$4::uuid", "gen_random_uuid()")
  .replaceAll("$1", `'${OWNER}'`)
  .replaceAll("$2", "'own-' || :bucket")
  .replaceAll("$3", "'root-' || (:version + 1)")
  .replaceAll("$5", "'root-' || :version")
  .replaceAll("$6::bigint", ":version")
  .trim()};
\\set version :version + 1`;

/** 64 clients that each win 1,000 swaps in 16 buckets, and the same without the comparison. Throws if an update is lost. */
async function checkLoad(target: PostgresTarget): Promise<Measurement> {
  const pool = openPool(target, LOAD.clients);
  try {
    const startedAt = performance.now();
    const seen = await swapAll(pool, LOAD);
    const ms = performance.now() - startedAt;
    const rows = await sql<{ bucket: string; root: string; version: string }>(
      target,
      "SELECT bucket, root_cid AS root, version::text AS version FROM bucket_roots",
    );
    const faults = faultsOf(seen, new Map(rows.map(({ bucket, ...pointer }) => [bucket, pointer])));
    if (faults.length > 0) throw new Error(faults.slice(0, 5).join("; "));
    await sql(target, "TRUNCATE bucket_roots, bucket_writes");
    const lost = await overwriteAll(pool, LOAD);
    if (lost === 0) throw new Error("without the comparison nothing was lost: this is no race");
    return {
      name: "64,000 swaps, none lost",
      what: `${LOAD.clients} clients x ${LOAD.swaps} swaps in ${LOAD.buckets} buckets, checked; without the comparison ${lost} were lost`,
      against: null,
      unit: "ms",
      target: null,
      ours: [ms],
      anchor: [],
    };
  } finally {
    await pool.close();
  }
}
