import { describeRefusal } from "../database/connection-fault.ts";
import { readClientMajor } from "../dumps/client-version.ts";
import { findDumpImage } from "../dumps/dump-image.ts";
import { proveRestore, type Proof } from "../dumps/prove-restore.ts";
import { renderRestoreRecord } from "../dumps/restore-record.ts";
import { createThrowaway } from "../dumps/throwaway.ts";
import { OperatorError } from "../errors.ts";
import { databaseOf } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { countOf, decimalBytes, duration } from "../units.ts";
import type { Drill, DrillOutcome } from "./drill.ts";
import { orStop } from "./or-stop.ts";

/** On the containers of this drill, and on nothing else. */
export const DUMP_MARK = "land.fx.fula-node.drill=D9";

const DEADLINE_MS = 15 * 60_000;
/** What the copy may need on the disk: the tables and indexes, their sort files, and the log of the server. */
const SPACE_FACTOR = 2;
const SPACE_MORE_BYTES = 1000 ** 3;
const SHOWN_DIFFERENCES = 3;
const LISTED_DIFFERENCES = 20;

const SIZE_SQL = "SELECT pg_database_size(current_database())::text AS bytes";

type Deps = Pick<JoinDeps, "host" | "environment">;

/** Dumps the master's database, restores the dump where it reaches nothing, and compares the two. */
export const dumpDrill: Drill<Deps> = {
  id: "D9",
  title: "dump",
  proves:
    "A dump of the database restores in a Postgres without network, and the copy has the same tables, rows, constraints, indexes and sequences.",
  isScheduled: true,
  deadlineMs: DEADLINE_MS,

  async run({ host, environment }, { master, stop, report }) {
    const target = databaseOf(master);
    const answer = await host.postgres.ask(target);
    if (answer.kind !== "open") {
      const { what, remedy } = describeRefusal(target, answer);
      return failed(what, remedy);
    }
    const evidence: Record<string, string> = { server: answer.serverVersion };
    try {
      const engine = createThrowaway(environment);
      const readClient = (image: string) => {
        stop.throwIfAborted();
        const name = `fula-drill-client-${host.random.hex(4)}`;
        return orStop(stop, readClientMajor(engine, { name, mark: DUMP_MARK, image }));
      };
      const { serverVersion } = answer;
      const configured = master.values("POSTGRES_IMAGE");
      const found = await findDumpImage(host.docker, serverVersion, configured, readClient);
      evidence["image"] = found.name;
      const lacking = await whyNoSpace(host, target);
      if (lacking !== null) return { ...lacking, evidence };
      const proof = await proveRestore(engine, target, {
        mark: DUMP_MARK,
        suffix: host.random.hex(4),
        image: found.id,
        dataPath: found.dataPath,
        stop,
        timeoutMs: DEADLINE_MS,
        clock: host.clock,
        report,
      });
      const outcome = judge(proof, evidence);
      if (outcome.state === "passed") {
        const { restoreMs: durationMs, dumpBytes } = proof;
        const text = renderRestoreRecord({ at: host.clock.now().toISOString(), durationMs, dumpBytes });
        await host.files.writeAtomic(master.layout.restoreRecord, text, { mode: 0o600 });
      }
      return outcome;
    } catch (thrown) {
      if (stop.aborted || !(thrown instanceof OperatorError)) throw thrown;
      const { what, why, remedy } = thrown;
      return { ...failed([what, why].filter(Boolean).join(" "), remedy), evidence };
    }
  },

  async cleanUp({ environment }) {
    const removed = await createThrowaway(environment).removeMarked(DUMP_MARK);
    return removed.map((what) => `removed ${what}`);
  },
};

function failed(summary: string, todo: string | undefined): DrillOutcome {
  return { state: "failed", summary, todo: todo ?? null, evidence: {} };
}

/** The copy is kept on Docker's disk, where the database usually is itself. */
async function whyNoSpace(
  { docker, files, postgres }: Deps["host"],
  target: PostgresTarget,
): Promise<DrillOutcome | null> {
  const engine = await docker.version();
  if (engine === null)
    return failed(`Docker does not answer: ${(await docker.unreachable()) ?? ""}`, "systemctl start docker");
  const [size] = await postgres.query<{ bytes: string }>(target, SIZE_SQL);
  const neededBytes = Number(size?.bytes ?? 0) * SPACE_FACTOR + SPACE_MORE_BYTES;
  const { freeBytes } = await files.space(engine.rootDirectory);
  if (freeBytes >= neededBytes) return null;
  return failed(
    `not run: ${decimalBytes(freeBytes)} free on the disk of ${engine.rootDirectory}, and a restored copy of the database (${decimalBytes(Number(size?.bytes ?? 0))}) needs ${decimalBytes(neededBytes)}`,
    "free some space there, then run it again",
  );
}

function judge(proof: Proof, about: Readonly<Record<string, string>>): DrillOutcome {
  const { differences, tables, rows, objects, dumpBytes, snapshotMs, restoreMs } = proof;
  const evidence: Record<string, string> = {
    ...about,
    tables: String(tables),
    rows: String(rows),
    objects: String(objects),
    "bytes of the dump": String(dumpBytes),
    "snapshot held": duration(snapshotMs),
    "dumped and restored in": duration(restoreMs),
  };
  const size = `${countOf(tables, "table")}, ${rows} rows, a dump of ${decimalBytes(dumpBytes)}`;
  if (differences.length === 0)
    return {
      state: "passed",
      summary: `${size}, restored in ${duration(restoreMs)}; the copy is the same`,
      todo: null,
      evidence,
    };
  const invalid = differences.flatMap(({ live }) => live ?? []);
  const said = differences.map(({ what, how }) => `${what} ${how}`);
  said.slice(0, LISTED_DIFFERENCES).forEach((text, index) => (evidence[`difference ${index + 1}`] = text));
  const more = said.length > SHOWN_DIFFERENCES ? `, and ${said.length - SHOWN_DIFFERENCES} more` : "";
  if (invalid.length === differences.length)
    return {
      state: "failed",
      summary: `a fault of the database itself, which its dump leaves out: ${said.slice(0, SHOWN_DIFFERENCES).join("; ")}${more}; all else is the same in the restored copy`,
      todo: `see fula-node drill D2; with psql: ${invalid
        .slice(0, SHOWN_DIFFERENCES)
        .map((index) => `REINDEX INDEX CONCURRENTLY ${index};`)
        .join(" ")}`,
      evidence,
    };
  return {
    state: "failed",
    summary: `the restored copy is not the same: ${said.slice(0, SHOWN_DIFFERENCES).join("; ")}${more}`,
    todo: "fula-node drill D9 --verbose; until it passes, rely on no dump of this database",
    evidence,
  };
}
