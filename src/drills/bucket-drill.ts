import { moveRoot as moveByCas, type MoveOutcome, readRoot, type RootMove } from "../buckets/bucket-roots.ts";
import type { PostgresPool } from "../database/postgres.ts";
import type { Drill, DrillOutcome } from "./drill.ts";
import { DrillFinding, findingOf } from "./drill-finding.ts";
import { dropScratches, type Scratch, type ScratchDeps, withScratch } from "./scratch/scratch-database.ts";

type Database = Pick<PostgresPool, "query">;
type Move = (database: Database, move: RootMove) => Promise<MoveOutcome>;

const OWNER = "d8".repeat(16);
/** Pairs of writers that race. */
const ROUNDS = 20;

/** D8: of two writers that have read the same root, one moves it, and the other is told what it is now. */
export const bucketDrill = bucketDrillOf(moveByCas);

/** The same drill of another way to move a root. */
export function bucketDrillOf(move: Move): Drill<ScratchDeps> {
  return {
    id: "D8",
    title: "stale writers",
    proves:
      "Of two writers that have read the same root of a bucket, one moves it and the other is refused with the root of now; without the comparison, one of the two writes is lost.",
    isScheduled: true,
    deadlineMs: 60_000,
    run: (deps, context) =>
      findingOf(context.stop, () =>
        withScratch(deps, context, async (scratch) => {
          for (let round = 1; round <= ROUNDS; round += 1) {
            context.stop.throwIfAborted();
            await raceOnce(scratch, `compared-${round}`, move);
          }
          context.report(`${ROUNDS} pairs of writers with the comparison`);
          const lost = await raceWithout(scratch);
          return described(lost);
        }),
      ),
    cleanUp: dropScratches,
  };
}

function described(lost: number): DrillOutcome {
  // Without a loss, the rounds before may have been won by luck.
  const isProven = lost === ROUNDS;
  return {
    state: isProven ? "passed" : "failed",
    summary: isProven
      ? `${ROUNDS} of ${ROUNDS} pairs: one writer won, the other got the root of now and then kept both writes; without the comparison ${lost} of ${ROUNDS} lost a write`
      : `without the comparison only ${lost} of ${ROUNDS} pairs lost a write, so the comparison is not shown to protect`,
    todo: isProven ? null : "report this as a bug of the drill",
    evidence: {
      "with the comparison": `0 of ${ROUNDS} pairs lost a write`,
      "without the comparison": `${lost} of ${ROUNDS} pairs lost a write`,
    },
  };
}

/** Two writers move one root at once, each built on the same one. Throws a DrillFinding if that goes wrong. */
async function raceOnce({ pool }: Scratch, bucket: string, move: Move): Promise<void> {
  const key = { owner: OWNER, bucket };
  const first = await move(pool, { ...key, base: null, root: "root-0" });
  if (first.outcome !== "Won") throw stale(`the first root of ${bucket} was refused`);
  const writers = ["a", "b"];
  const outcomes = await Promise.all(
    writers.map(async (writer) => ({
      writer,
      outcome: await move(pool, { ...key, base: first.pointer, root: `root-0+${writer}` }),
    })),
  );
  const won = outcomes.filter(({ outcome }) => outcome.outcome === "Won");
  const [winner] = won;
  if (winner === undefined || won.length !== 1)
    throw stale(
      `${won.length} of 2 writers of ${bucket} won with the same base, so ${won.length === 2 ? "the write of one is lost" : "nobody could write"}`,
    );
  const loser = outcomes.find((one) => one !== winner);
  const now = await readRoot(pool, key);
  const conflict = loser?.outcome;
  if (
    conflict?.outcome !== "Conflict" ||
    conflict.current?.root !== now?.root ||
    now?.root !== `root-0+${winner.writer}`
  )
    throw stale(`the refused writer of ${bucket} did not get the root of now, ${now?.root ?? "none"}`);
  const again = await move(pool, { ...key, base: now, root: `${now.root}+${loser?.writer}` });
  if (again.outcome !== "Won")
    throw stale(`the refused writer of ${bucket} could not write after it had read the root again`);
  const end = await readRoot(pool, key);
  if (end?.version !== "3" || !writers.every((writer) => end.root.includes(`+${writer}`)))
    throw stale(`${bucket} ends at ${end?.root ?? "no root"}, and both writes belong to it`);
}

function stale(summary: string): DrillFinding {
  return new DrillFinding(`with the comparison, ${summary}`, {
    todo: "stop all gateways but one until this is repaired, and report it as a bug",
  });
}

/** The same race with a plain UPDATE: how many pairs lose a write. */
async function raceWithout({ pool }: Scratch): Promise<number> {
  let lost = 0;
  for (let round = 1; round <= ROUNDS; round += 1) {
    const key = [OWNER, `plain-${round}`];
    await pool.query("INSERT INTO bucket_roots (owner_id, bucket, root_cid) VALUES ($1, $2, 'root-0')", key);
    await Promise.all(
      ["a", "b"].map((writer) =>
        pool.query(
          "UPDATE bucket_roots SET root_cid = $3, version = version + 1 WHERE owner_id = $1 AND bucket = $2",
          [...key, `root-0+${writer}`],
        ),
      ),
    );
    const end = await readRoot(pool, { owner: OWNER, bucket: `plain-${round}` });
    if (!(end?.root.includes("+a") === true && end.root.includes("+b"))) lost += 1;
  }
  return lost;
}
