import { Client } from "pg";
import type { PostgresTarget } from "../../../src/settings/postgres-target.ts";
import { sql } from "../../support/postgres-server.ts";
import type { Bench, Measurement } from "../report.ts";
import { type LoadResult, openIdle, percentile, runLoad } from "./load.ts";
import { createAccount, makeBlocks, type Sides, startSides, untilPinned, untilSettled } from "./sides.ts";

/**
 * `serve pinning-api` against ipfs-cluster's own pinning service (pinsvcapi) on the same cluster; its lists with 1,000,000
 * pins against the bare query; and with 1,000 idle connections against none.
 *
 * When ours answers a POST, the request is committed in PostgreSQL (with fsync). When theirs answers, the pin was given to
 * the consensus: a write to pebble without fsync. Both know every client by a bearer token; theirs does not check it.
 */
export const benches: readonly Bench[] = [{ name: "pins", run: measurePins }];

/** The pins that the account has on both sides when it lists them. */
const LISTED = 1_000;
const MANY = 1_000_000;
const IDLE = 1_000;
/** A ratio is required for 1 and 32 clients; with 256, it is shown. */
const LISTERS = [
  { clients: 1, rounds: 5, isRequired: true },
  { clients: 32, rounds: 5, isRequired: true },
  { clients: 256, rounds: 2, isRequired: false },
] as const;
/** Requests of one turn. Theirs reads all pins for each list, so a few must be enough there. */
const LISTS = { ours: { 1: 200, 32: 640, 256: 1_024 }, theirs: { 1: 20, 32: 64, 256: 256 } } as const;
/**
 * The first row is of a service that has just begun: V8 compiles a hot path only after some thousand requests. The last one
 * is the same of the service that an operator has, after all other rows. The row of 5,000 shows what the queue costs while
 * it works: it lets short bursts go first.
 */
const POSTS = [
  { when: " just begun", clients: 1, rounds: 5, posts: 150, isRequired: false },
  { when: "", clients: 32, rounds: 5, posts: 320, isRequired: true },
  { when: "", clients: 256, rounds: 2, posts: 512, isRequired: false },
  { when: "", clients: 32, rounds: 2, posts: 5_000, isRequired: false },
  { when: "", clients: 1, rounds: 7, posts: 300, isRequired: true },
] as const;

async function measurePins(): Promise<readonly Measurement[]> {
  const sides = await startSides();
  try {
    const account = await createAccount(sides.database, "somebody");
    const who = { sides, ...account };
    await pinOnBothSides(who);
    const lists = await measureLists(who);
    const idle = await measureIdle(who);
    const posts = await measurePosts(who);
    return [...posts, ...lists, ...(await measureMany(sides)), ...idle];
  } finally {
    await sides.stop();
  }
}

interface Who {
  readonly sides: Sides;
  readonly account: string;
  readonly headers: Readonly<Record<string, string>>;
}

type Side = "ours" | "theirs";

/** Pins through theirs, and rows in ours as if it had pinned the same. */
async function pinOnBothSides(who: Who): Promise<void> {
  const { sides, account } = who;
  const cids = await makeBlocks(sides.peer, LISTED);
  await post(who, "theirs", 8, cids);
  await untilSettled(sides);
  await sql(
    sides.database,
    `INSERT INTO pins (requestid, user_id, cid, name, name_lowercase, status, size, created_at)
     SELECT gen_random_uuid(), $1::text, cid, 'file-' || n, 'file-' || n, 'pinned', 256, now() - n * interval '1 second'
     FROM unnest($2::text[]) WITH ORDINALITY AS listed (cid, n)`,
    [account, cids],
  );
  await sql(sides.database, "VACUUM ANALYZE pins");
}

function post({ sides, headers }: Who, side: Side, clients: number, cids: readonly string[]) {
  const json = { ...headers, "content-type": "application/json" };
  return runLoad({
    url: sides[side].url,
    clients,
    requests: cids.length,
    // ipfs-cluster answers with 200 where the specification wants 202.
    status: side === "ours" ? 202 : 200,
    request: (n) => ({
      method: "POST",
      path: "/pins",
      headers: json,
      body: JSON.stringify({ cid: cids[n], name: `file-${n}` }),
    }),
  });
}

function list({ sides, headers }: Who, side: Side, clients: number, requests: number): Promise<LoadResult> {
  const request = { method: "GET", path: "/pins?limit=10", headers } as const;
  return runLoad({ url: sides[side].url, clients, requests, status: 200, request: () => request });
}

/** Each round takes both sides, in changing order; the first round does not count. */
async function takeTurns<Result>(rounds: number, turn: (side: Side) => Promise<Result>) {
  const taken: Record<Side, Result[]> = { ours: [], theirs: [] };
  for (let round = 0; round <= rounds; round += 1) {
    const order = round % 2 === 0 ? (["ours", "theirs"] as const) : (["theirs", "ours"] as const);
    for (const side of order) {
      const result = await turn(side);
      if (round > 0) taken[side].push(result);
    }
  }
  return taken;
}

const AGAINST = "ipfs-cluster's pinsvcapi";
const AT_LEAST_AS_FAST = { of: "ratio", bound: "at least", value: 1 } as const;

async function measureLists(who: Who): Promise<readonly Measurement[]> {
  const measurements: Measurement[] = [];
  for (const { clients, rounds, isRequired } of LISTERS) {
    const { ours, theirs } = await takeTurns(rounds, (side) =>
      list(who, side, clients, LISTS[side][clients]),
    );
    measurements.push({
      name: `GET /pins, ${clients} at once`,
      what: `a list of 10 of ${LISTED} pins`,
      against: AGAINST,
      unit: "1/s",
      ours: ours.map(({ perSecond }) => perSecond),
      anchor: theirs.map(({ perSecond }) => perSecond),
      target: isRequired ? AT_LEAST_AS_FAST : null,
    });
  }
  return measurements;
}

const COMMITS = 150;

/** How many commits a second one client gets that inserts one small row each time: no durable POST can be faster. */
async function commitRows({ host, port, database, user, password }: PostgresTarget): Promise<number> {
  const client = new Client({ host, port, database, user, password });
  await client.connect();
  try {
    await client.query("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, cid text)");
    const startedAt = performance.now();
    for (let n = 0; n < COMMITS; n += 1)
      await client.query({
        name: "bare",
        text: "INSERT INTO bare (cid) VALUES ($1)",
        values: [`content ${n}`],
      });
    return (COMMITS * 1_000) / (performance.now() - startedAt);
  } finally {
    await client.end();
  }
}

/** What a turn leaves to be pinned is pinned before the next turn begins; that time is shown too. */
async function measurePosts(who: Who): Promise<readonly Measurement[]> {
  const { sides } = who;
  const measurements: Measurement[] = [];
  for (const { when, clients, rounds, posts, isRequired } of POSTS) {
    const cids = [...(await makeBlocks(sides.peer, posts * (rounds + 1) * 2))];
    const { ours, theirs } = await takeTurns(rounds, async (side) => {
      const startedAt = performance.now();
      const { perSecond } = await post(who, side, clients, cids.splice(0, posts));
      await untilPinned(sides);
      const pinnedPerSecond = (posts * 1_000) / (performance.now() - startedAt);
      await untilSettled(sides);
      const commitsPerSecond = side === "ours" && clients === 1 ? await commitRows(sides.database) : null;
      return { perSecond, pinnedPerSecond, commitsPerSecond };
    });
    const both = { what: "new content that kubo has", against: AGAINST };
    measurements.push(
      {
        ...both,
        name: `POST /pins, ${posts} by ${clients}${when}`,
        unit: "1/s",
        ours: ours.map(({ perSecond }) => perSecond),
        anchor: theirs.map(({ perSecond }) => perSecond),
        target: isRequired ? AT_LEAST_AS_FAST : null,
      },
      {
        ...both,
        name: `  until pinned, ${posts} by ${clients}${when}`,
        unit: "pins/s",
        ours: ours.map(({ pinnedPerSecond }) => pinnedPerSecond),
        anchor: theirs.map(({ pinnedPerSecond }) => pinnedPerSecond),
        target: null,
      },
    );
    const commits = ours.flatMap(({ commitsPerSecond }) => commitsPerSecond ?? []);
    if (commits.length > 0)
      measurements.push({
        ...both,
        against: "bare INSERT, one commit each",
        name: `  and commits, ${clients} client${when}`,
        unit: "1/s",
        ours: ours.map(({ perSecond }) => perSecond),
        anchor: commits,
        target: null,
      });
  }
  return measurements;
}

const PAGE = `SELECT requestid, status, created_at::text AS created, cid, name, origins, meta, delegates, info FROM pins
  WHERE user_id = $1 AND status = 'pinned'`;
const NEWEST = "ORDER BY created_at DESC, id DESC LIMIT 10";

/** One client. The bare query has a prepared statement and a connection of its own. */
async function measureMany(sides: Sides): Promise<readonly Measurement[]> {
  const { database } = sides;
  const { account, headers } = await createAccount(database, "somebody-with-many");
  await sql(
    database,
    `INSERT INTO pins (requestid, user_id, cid, name, name_lowercase, status, size, created_at)
     SELECT gen_random_uuid(), $1::text, 'bafkrei' || md5(n::text) || '4wgxsbhh5iohv4e2ei', 'file-' || n, 'file-' || n,
       'pinned', 256, timestamptz '2026-01-01 00:00Z' + n * interval '1 second'
     FROM generate_series(1, $2::integer) AS n`,
    [account, MANY],
  );
  await sql(database, "VACUUM ANALYZE pins");
  const middle = new Date(Date.UTC(2026, 0, 1) + (MANY / 2) * 1_000).toISOString();
  const { host, port, database: name, user, password } = database;
  const client = new Client({ host, port, database: name, user, password });
  await client.connect();
  const ask = async (query: string, values: readonly string[], requests: number) => {
    const times: number[] = [];
    for (let n = 0; n < requests; n += 1) {
      const startedAt = performance.now();
      await client.query({ name: `page-${values.length}`, text: query, values: [account, ...values] });
      times.push(performance.now() - startedAt);
    }
    return percentile(times, 0.99);
  };
  const pages = [
    { page: "newest page", path: "/pins?limit=10", query: `${PAGE} ${NEWEST}`, values: [], requests: 300 },
    {
      page: "page before half of them",
      path: `/pins?limit=10&before=${middle}`,
      query: `${PAGE} AND created_at < $2 ${NEWEST}`,
      values: [middle],
      // Each counts half a million rows.
      requests: 4,
    },
  ];
  const measurements: Measurement[] = [];
  try {
    for (const { page, path, query, values, requests } of pages) {
      const request = { method: "GET", path, headers } as const;
      const load = { url: sides.ours.url, clients: 1, requests, status: 200, request: () => request };
      const { ours, theirs } = await takeTurns(5, async (side) =>
        side === "ours" ? percentile((await runLoad(load)).latenciesMs, 0.99) : ask(query, values, requests),
      );
      const isNewest = values.length === 0;
      measurements.push(
        {
          name: `GET of ${MANY}, ${page}, p99`,
          what: "GET /pins?limit=10, one client",
          against: "the bare query of the page, p99",
          unit: "ms",
          ours,
          anchor: theirs,
          target: null,
        },
        {
          name: "  p99 above the bare query",
          what: page,
          against: null,
          unit: "ms",
          ours: ours.map((ms, index) => ms - (theirs[index] ?? 0)),
          anchor: [],
          target: isNewest ? { of: "ours", bound: "at most", value: 50 } : null,
        },
      );
    }
  } finally {
    await client.end();
  }
  return measurements;
}

/** The rate of 16 clients with and without idle connections, which are opened just before: the server closes them after 5 s. */
async function measureIdle(who: Who): Promise<readonly Measurement[]> {
  const { ours, theirs } = await takeTurns(9, async (side) => {
    const idle = side === "ours" ? await openIdle(who.sides.ours.url, IDLE) : null;
    const { perSecond } = await list(who, "ours", 16, 1_000);
    const lost = idle?.lost() ?? 0;
    await idle?.close();
    if (lost > 0) throw new Error(`${lost} of ${IDLE} idle connections were closed too early`);
    return perSecond;
  });
  return [
    {
      name: `GET /pins, ${IDLE} idle connections`,
      what: "16 clients",
      against: "without idle connections",
      unit: "1/s",
      ours,
      anchor: theirs,
      target: { of: "ratio", bound: "at least", value: 0.9 },
    },
  ];
}
