import { mkdtempSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DrillOutcome } from "../../src/drills/drill.ts";
import { DUMP_MARK } from "../../src/drills/dump-drill.ts";
import { createThrowaway } from "../../src/dumps/throwaway.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { migratorOf } from "../support/migrations.ts";
import { sql } from "../support/postgres-server.ts";
import { docker } from "../support/tiny-image.ts";
import type { Bench, Measurement } from "./report.ts";
import { type Measured, measure } from "./snapshot-measure.ts";

const FEW = 1_000;
const MANY = 1_000_000;
const ROUNDS = 2;
const CHILD = fileURLToPath(new URL("../support/dump-drill-child.ts", import.meta.url));

/**
 * The drill of the dump on a schema with 1,000,000 pins, against pg_dump piped into pg_restore on the same server. The drill also
 * starts a Postgres, computes checksums of every table on both sides, compares, and writes the record.
 */
export const benches: readonly Bench[] = [{ name: "dump-restore", onlyByName: true, run: measureDrill }];

async function measureDrill(): Promise<readonly Measurement[]> {
  const base = mkdtempSync(join(tmpdir(), "fula-node-dump-"));
  const source = await startDumpSource("dump-bench", [
    "-c",
    "max_wal_size=4GB",
    "-c",
    "maintenance_work_mem=128MB",
  ]);
  Object.assign(process.env, { DRILL: JSON.stringify(source.values), BASE: base });
  try {
    await migratorOf().up(source.target, { report: () => {} });
    await addPins(source, FEW);
    const small = await drill();
    await addPins(source, MANY - FEW);
    const pairs: { ours: Measured[]; anchor: number[] } = { ours: [], anchor: [] };
    for (let round = 0; round < ROUNDS; round += 1) {
      pairs.ours.push(await drill());
      pairs.anchor.push(plain(source));
    }
    const summary = outcomeOf(pairs.ours[0]).summary;
    return [
      {
        name: `drill D9, ${MANY} pins`,
        what: `starts a Postgres, dumps, restores, compares: ${summary}`,
        against: "pg_dump | pg_restore on the same server",
        unit: "s",
        target: { of: "ratio", bound: "at most", value: 3 },
        ours: pairs.ours.map(({ seconds }) => seconds),
        anchor: pairs.anchor,
      },
      {
        name: `its memory, ${MANY} pins`,
        what: "VmHWM of the process, with the loader of TypeScript",
        against: `the same with ${FEW} pins`,
        unit: "MiB",
        target: { of: "ratio", bound: "at most", value: 1.2 },
        ours: pairs.ours.map(({ peakMiB }) => peakMiB),
        anchor: pairs.ours.map(() => small.peakMiB),
      },
    ];
  } finally {
    source.stop();
    rmSync(base, { recursive: true, force: true });
  }
}

async function drill(): Promise<Measured> {
  try {
    const measured = await measure(process.execPath, ["--import", "tsx", CHILD]);
    const { state, summary } = outcomeOf(measured);
    if (state !== "passed") throw new Error(summary);
    return measured;
  } finally {
    await createThrowaway(process.env).removeMarked(DUMP_MARK);
  }
}

function outcomeOf(measured: Measured | undefined): DrillOutcome {
  return JSON.parse(measured?.stdout.trim().split("\n").at(-1) ?? "{}") as DrillOutcome;
}

/** Seconds of pg_dump and pg_restore in the container of the source. */
function plain({ container }: DumpSource): number {
  const login = "-U pinning_user";
  docker("exec", container, "createdb", "-U", "pinning_user", "-T", "template0", "plain");
  const began = performance.now();
  const dump = `pg_dump ${login} -Fc -Z0 pinning_service`;
  docker(
    "exec",
    container,
    "sh",
    "-c",
    `${dump} | pg_restore ${login} -d plain --exit-on-error --single-transaction`,
  );
  const seconds = (performance.now() - began) / 1000;
  docker("exec", container, "dropdb", "-U", "pinning_user", "plain");
  return seconds;
}

async function addPins({ target }: DumpSource, count: number): Promise<void> {
  await sql(
    target,
    `INSERT INTO pins (requestid, user_id, cid, name, name_lowercase, status, size, created_at)
     SELECT gen_random_uuid(), 'somebody', 'bafkrei' || md5(n::text || $1::text) || '4wgxsbhh5iohv4e2ei', 'file-' || n, 'file-' || n,
       'pinned', 256, timestamptz '2026-01-01 00:00Z' + n * interval '1 second'
     FROM generate_series(1, $1::integer) AS n`,
    [count],
  );
}
