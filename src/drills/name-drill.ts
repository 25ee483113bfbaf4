import type { Signed, Announcement } from "../federation/announcement.ts";
import {
  type Admission,
  announceName as announceToPool,
  type AnnounceOutcome,
  readName,
  releaseName,
} from "../federation/registry.ts";
import type { PostgresPool } from "../database/postgres.ts";
import type { Host } from "../host.ts";
import type { Drill } from "./drill.ts";
import { DrillFinding, findingOf, untilFound } from "./drill-finding.ts";
import { dropScratches, type ScratchDeps, withScratch } from "./scratch/scratch-database.ts";

type Announce = (
  database: Pick<PostgresPool, "query">,
  announcement: Signed<Announcement>,
  namesPerOwner: number,
  admission: Admission,
) => Promise<AnnounceOutcome>;

/** What the race of names needs. */
interface NameDrillDeps extends ScratchDeps {
  readonly host: ScratchDeps["host"] & { readonly clock: Host["clock"] };
}

const POOL = "fula-drill";
const RACERS = 24;
const ROUNDS = 10;
const OPEN: Admission = { isOpen: true, inviteId: null };
/** Whoever calls the registry has checked the signature; the drill needs none. */
const SIGNATURE = "d0".repeat(64);

/** D10: of many nodes that claim one name at once, one gets it. */
export const nameDrill = nameDrillOf(announceToPool);

/** The same drill of another registry. */
export function nameDrillOf(announce: Announce): Drill<NameDrillDeps> {
  return {
    id: "D10",
    title: "node names",
    proves:
      "Of many nodes that claim one name at once exactly one gets it, its repeated claim changes nothing, and a released name can be taken.",
    isScheduled: true,
    deadlineMs: 60_000,
    run: (deps, context) =>
      findingOf(context.stop, () =>
        withScratch(deps, context, async ({ pool }) => {
          for (let round = 1; round <= ROUNDS; round += 1) {
            context.stop.throwIfAborted();
            await raceOnce(deps, context.stop, { pool, announce, name: `drill-${round}` });
          }
          return {
            state: "passed",
            summary: `${ROUNDS} names, ${RACERS} nodes at once for each: one got it, its repeat kept it, and after the release another one took it`,
            todo: null,
            evidence: { claims: String(ROUNDS * (RACERS + 2)), names: String(ROUNDS) },
          };
        }),
      ),
    cleanUp: dropScratches,
  };
}

interface Round {
  readonly pool: PostgresPool;
  readonly announce: Announce;
  readonly name: string;
}

/** Lets all claim one name, then repeats, releases and takes it. Throws a DrillFinding if that goes wrong. */
async function raceOnce(
  { host }: NameDrillDeps,
  stop: AbortSignal,
  { pool, announce, name }: Round,
): Promise<void> {
  const [now] = await pool.query<{ ms: number }>(
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS ms",
  );
  // Of the database, which refuses messages of another time. Each message of a node must be newer than the one before.
  const at = (second: number): string => new Date((now?.ms ?? 0) + second * 1_000).toISOString();
  const claim = (peerId: string, time: string) =>
    announce(
      pool,
      {
        message: { pool: POOL, name, peerId, time, addresses: [`/ip4/192.0.2.7/tcp/9096/p2p/${peerId}`] },
        signature: SIGNATURE,
      },
      1_000,
      OPEN,
    );
  const racers = Array.from({ length: RACERS }, (_, n) => peerName(n));
  const outcomes = await whileHeld({ host }, stop, { pool, name }, () =>
    racers.map(async (peerId) => ({ peerId, ...(await claim(peerId, at(0))) })),
  );
  const winners = outcomes.filter(({ outcome }) => outcome === "Reserved");
  const [winner] = winners;
  if (winner === undefined || winners.length !== 1)
    throw wrong(`${winners.length} of ${RACERS} nodes that claimed the name ${name} at once got it`);
  const others = outcomes.filter((one) => one !== winner);
  const odd = others.find(({ outcome }) => outcome !== "TakenByOther");
  if (odd !== undefined)
    throw wrong(`a node that did not get the name ${name} was answered ${odd.outcome}, not TakenByOther`);
  await refuseOtherOwner(pool, name, winner.peerId);

  const repeated = await claim(winner.peerId, at(1));
  if (
    repeated.outcome !== "AlreadyOwned" ||
    !("reservation" in winner) ||
    repeated.reservation !== winner.reservation
  )
    throw wrong(`the owner of ${name} claimed it again and was answered ${repeated.outcome}`);
  await refuseOtherOwner(pool, name, winner.peerId);

  const [next] = others;
  if (next === undefined) throw new TypeError("there are several racers");
  const release = { pool: POOL, name, peerId: winner.peerId, time: at(2), reservation: null };
  const foreign = await releaseName(pool, { ...release, peerId: next.peerId });
  if (foreign !== "NotReleased") throw wrong(`a node released the name ${name} of another one`);
  const released = await releaseName(pool, release);
  if (released !== "Released") throw wrong(`the owner of ${name} could not release it: ${released}`);
  const taken = await claim(next.peerId, at(3));
  if (taken.outcome !== "Reserved")
    throw wrong(`the released name ${name} could not be taken: ${taken.outcome}`);
  await refuseOtherOwner(pool, name, next.peerId);
}

async function refuseOtherOwner(pool: PostgresPool, name: string, peerId: string): Promise<void> {
  const rows = await pool.query<{ owner: string }>(
    "SELECT owner FROM node_names WHERE pool = $1 AND name = $2",
    [POOL, name],
  );
  const entry = await readName(pool, POOL, name);
  if (rows.length !== 1) throw wrong(`the name ${name} has ${rows.length} owners`);
  if (rows[0]?.owner !== peerId || entry?.peerId !== peerId)
    throw wrong(`the name ${name} belongs to another node than the one that was answered so`);
}

/** The peer id of a node that does not exist. */
function peerName(n: number): string {
  return `12D3KooWfulaDrill${n}`;
}

const HOLD = `INSERT INTO node_names (pool, name, owner, reservation, reserved_at) VALUES ($1, $2, $3, gen_random_uuid(), now())`;
/** So many claims wait at the same moment: the others come when one of the pool's connections is free. */
const WAITING = 4;
const WAIT_MS = 10_000;

/**
 * Makes claims really meet: a transaction has the name first. When several claims wait for it, it takes its claim back, and
 * they decide it among themselves.
 */
async function whileHeld<Result>(
  { host: { clock } }: Pick<NameDrillDeps, "host">,
  stop: AbortSignal,
  { pool, name }: Pick<Round, "pool" | "name">,
  start: () => readonly Promise<Result>[],
): Promise<readonly Result[]> {
  let running: readonly Promise<Result>[] = [];
  let settled = 0;
  const givenUp = new Error("the first claim was taken back");
  const held = pool.transaction(async (database) => {
    await database.query(HOLD, [POOL, name, peerName(0)]);
    running = start();
    for (const one of running)
      void one.then(
        () => (settled += 1),
        () => (settled += 1),
      );
    await untilFound(
      { clock, stop, limitMs: WAIT_MS },
      async () => (settled === running.length || (await waiting(database)) >= WAITING ? true : null),
      () => `the claims of ${name} did not meet within ${WAIT_MS / 1_000} s`,
    );
    throw givenUp;
  });
  const thrown: unknown = await held.then(
    () => givenUp,
    (reason: unknown) => reason,
  );
  const outcomes = await Promise.allSettled(running);
  if (thrown !== givenUp) throw thrown;
  return outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
}

async function waiting(database: Pick<PostgresPool, "query">): Promise<number> {
  // Within a transaction, PostgreSQL shows the sessions as they were when it was first asked.
  await database.query("SELECT pg_stat_clear_snapshot()");
  const [row] = await database.query<{ waiting: number }>(
    `SELECT count(*)::integer AS waiting FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock'`,
  );
  return row?.waiting ?? 0;
}

function wrong(summary: string): DrillFinding {
  return new DrillFinding(summary, {
    todo: "let nobody register names until this is repaired, and report it as a bug",
  });
}
