import type { PeerIdentity } from "../cluster/client.ts";
import type { PostgresAnswer } from "../database/postgres.ts";
import type { MigrationStatus } from "../database/migration-plan.ts";
import { findTrustFaults, type PoolMaster, type PoolTrust } from "../federation/pool-trust.ts";
import type { WriterTrust } from "../federation/writer-trust.ts";
import { NAMES } from "../settings/layout.ts";
import { countOf, decimalBytes, duration } from "../units.ts";
import { allOk, type HttpAnswer, type Judged, LATE, type Late, type Remark, withRemarks } from "./part.ts";

/** What the two APIs of a writer answered. */
export interface WriterFacts {
  readonly kuboAddress: string;
  readonly kubo: HttpAnswer | Late;
  readonly clusterAddress: string;
  /** A text says why it does not answer. */
  readonly cluster: PeerIdentity | string | Late;
  /** The members of the cluster, including itself. A text says why there is no list. */
  readonly peers: readonly PeerIdentity[] | string | Late;
}

/** kubo and ipfs-cluster: the master pins through them. */
export function judgeWriter(facts: WriterFacts, repair: string): Judged {
  const { kubo, cluster, peers, kuboAddress, clusterAddress } = facts;
  const evidence = {
    kubo: `${kuboAddress}: ${kubo === LATE ? "no answer in time" : kubo === null ? "no answer" : (textIn(kubo.body, "AgentVersion") ?? `status ${kubo.status}`)}`,
    "ipfs-cluster": `${clusterAddress}: ${cluster === LATE ? "no answer in time" : typeof cluster === "string" ? cluster : cluster.id}`,
    peers:
      peers === LATE
        ? "no answer in time"
        : typeof peers === "string"
          ? peers
          : peers.map(describePeer).join(", "),
  };
  const judged = (state: Judged["state"], summary: string): Judged => ({
    state,
    summary,
    todo: state === "ok" ? null : repair,
    evidence,
  });
  const version = kuboVersion(kubo);
  if (kubo === null) return judged("down", `kubo does not answer at ${kuboAddress}`);
  if (typeof cluster === "string") return judged("down", `ipfs-cluster does not work: ${cluster}`);
  if (kubo !== LATE && version === null)
    return judged("down", `what answers at ${kuboAddress} is not kubo (status ${kubo.status})`);
  if (cluster !== LATE && cluster.ipfsError !== "")
    return judged("down", `ipfs-cluster does not reach its kubo: ${cluster.ipfsError}`);
  const late = [...(kubo === LATE ? ["kubo"] : []), ...(cluster === LATE ? ["ipfs-cluster"] : [])];
  if (late.length > 0) return judged("unknown", `${late.join(" and ")} did not answer in time`);
  const clusterVersion = cluster === LATE ? "" : cluster.version;
  const versions = `kubo ${version ?? ""}, ipfs-cluster ${clusterVersion}`;
  // For this list the writer asks every member, and waits for those that were cut off. It says nothing of the writer.
  if (peers === LATE) return judged("ok", `${versions}; not every peer answered it in time`);
  if (typeof peers === "string")
    return {
      ...judged("unknown", `${versions}; no list of peers: ${peers}`),
      todo: `docker logs ${NAMES.cluster}`,
    };
  return judged("ok", `${versions}, ${countOf(peers.length, "peer")}`);
}

/** The version in kubo's AgentVersion: `kubo/0.42.0/`. */
function kuboVersion(kubo: HttpAnswer | Late): string | null {
  const agent = kubo === LATE || kubo === null ? null : textIn(kubo.body, "AgentVersion");
  return agent === null ? null : (/^kubo\/([^/]+)/.exec(agent)?.[1] ?? agent);
}

function describePeer({ id, peername, error }: PeerIdentity): string {
  return `${peername} ${id}${error === "" ? "" : ` (${error})`}`;
}

/** What the database answered. */
export interface DatabaseFacts {
  /** `HOST:PORT`. */
  readonly place: string;
  /** Null if no password is known. */
  readonly answer: PostgresAnswer | null | Late;
  /** Null if it did not arrive. A Judged says why it can't be read. */
  readonly schema: MigrationStatus | Judged | null;
  readonly sizeBytes: number | null;
  /** How many accounts the operator has suspended by name; null if it is not known. */
  readonly held: number | null;
  /** When a restore of its dump was last proven, in words; null if that is not known. */
  readonly proven: string | null;
  /** Why the server does not let us in, and what to do; null if it does, or did not answer. */
  readonly refusal: { readonly what: string; readonly remedy?: string } | null;
  /** What others found out about its tables. */
  readonly remarks: readonly Remark[];
}

/** The database: its server, its schema according to the ledger, and its size. */
export function judgeDatabase(facts: DatabaseFacts, repair: string): Judged {
  const { place, answer, schema, sizeBytes, held, proven, refusal, remarks } = facts;
  const evidence: Record<string, string> = { address: place };
  if (answer === null)
    return { state: "unknown", summary: "there is no password for it in .env", todo: repair, evidence };
  if (answer === LATE || answer.kind !== "open") return judgeClosed(place, answer, refusal);
  if (proven !== null) evidence["restore"] = proven;
  evidence["system identifier"] = answer.systemIdentifier || "not readable for this role";
  const size = sizeBytes === null ? "" : `, ${decimalBytes(sizeBytes)}`;
  const server = answer.serverVersion.split(" ", 1)[0] ?? "";
  if (schema === null)
    return {
      state: "unknown",
      summary: `${server}; the migration ledger did not arrive`,
      todo: "look again; if it stays so, look at the server's log",
      evidence,
    };
  if ("summary" in schema)
    return {
      ...schema,
      // A table that was lost is work that nobody can do. What else the ledger misses, a join can say more about.
      state: schema.state === "unknown" ? "unknown" : LOST_TABLE.test(schema.summary) ? "down" : "attention",
      evidence: { ...evidence, ...schema.evidence },
    };
  for (const { file, state, reason } of schema.items) evidence[file] = `${state}: ${reason}`;
  const newest = schema.items.findLast(({ state }) => state === "applied")?.version;
  const version = newest === undefined ? "no schema yet" : `schema ${String(newest).padStart(3, "0")}`;
  const holds = held === null || held === 0 ? "" : `, ${countOf(held, "account")} suspended by the operator`;
  const restore = proven === null ? "" : `, ${proven}`;
  const summary = `${server}, ${version}${size}${holds}${restore}`;
  const pending = schema.pending;
  const judged: Judged =
    pending === 0
      ? { ...allOk(summary), evidence }
      : {
          state: "attention",
          summary: `${summary}; ${countOf(pending, "migration")} not applied`,
          todo: repair,
          evidence,
        };
  return withRemarks(judged, remarks);
}

/** What checkEffects of the migration plan says of a table. */
const LOST_TABLE = /lacks what its ledger says was created:.*\btable /;

/** A server that does not answer in time may still work; one that refuses does not. */
function judgeClosed(
  place: string,
  answer: Exclude<PostgresAnswer, { kind: "open" }> | Late,
  refusal: DatabaseFacts["refusal"],
): Judged {
  const evidence = { address: place, answer: answer === LATE ? "none in time" : answer.kind };
  const todo = refusal?.remedy ?? "check POSTGRES_HOST, POSTGRES_PORT and the server's log";
  if (answer === LATE || (answer.kind === "unreachable" && /tim(?:e|ed) ?out/i.test(answer.why))) {
    return { state: "unknown", summary: `${place} did not answer in time`, todo, evidence };
  }
  const summary = refusal?.what ?? `${place} can't be used`;
  return { state: "down", summary, todo, evidence };
}

/** What to do while only the cluster is missing, whose own line stands beside that of the service. */
export const SEE_WRITER = `see the line "writer": it says what to do`;

/** What a service of this node answered. */
export interface ApiFacts {
  /** `127.0.0.1:6000`. */
  readonly address: string;
  /** The image of upstream that serves, or of somebody else; null for the service that fula-node builds. */
  readonly otherImage: string | null;
  /** The answer of `GET /health`. Upstream's services have no such route. */
  readonly health: HttpAnswer | Late;
  /** A route that does its work. Without a key it must answer 401. */
  readonly route: { readonly path: string; readonly answer: HttpAnswer | Late };
  /** Why the cluster does not answer, for a service whose health does not say it; null if it answers, or was not asked. */
  readonly clusterFault: string | null;
}

/** A service by its health and by a route that needs a key: one that serves only /health does not do its work. */
export function judgeApi(
  { address, otherImage, health, route, clusterFault }: ApiFacts,
  log: string,
): Judged {
  const evidence = {
    "/health": describeAnswer(health),
    [route.path]: describeAnswer(route.answer),
  };
  const judged = (state: Judged["state"], summary: string, todo: string | null): Judged => ({
    state,
    summary,
    todo,
    evidence,
  });
  const { path, answer } = route;
  const first = otherImage === null ? health : answer;
  if (first === null) return judged("down", `${address} does not answer`, log);
  if (first === LATE) return judged("unknown", `${address} did not answer in time`, log);
  if (otherImage !== null && first.status >= 500)
    return judged("down", `${address}${path} answers ${first.status}`, log);
  if (otherImage === null && first.status !== 200) return judgeHealth(address, first, judged, log);
  if (answer === LATE) return judged("unknown", `${address}${path} did not answer in time`, log);
  if (answer?.status !== 401) {
    const says = answer === null ? "does not answer" : `answers ${answer.status}, not 401`;
    return judged("attention", `${address} answers, but ${path} ${says}`, log);
  }
  if (clusterFault !== null)
    return judged(
      "attention",
      `${address} works, but the cluster does not answer, so it can't count the pins: ${clusterFault}`,
      SEE_WRITER,
    );
  return judged("ok", otherImage === null ? address : `${address}, image ${otherImage}`, null);
}

function describeAnswer(answer: HttpAnswer | Late): string {
  if (answer === LATE) return "no answer in time";
  return answer === null ? "no answer" : `${answer.status}`;
}

/** One of our services whose health is not good. Without the cluster it accepts pins; all else that fails, it can't do without. */
function judgeHealth(
  address: string,
  { status, body }: Exclude<HttpAnswer, null>,
  judged: (state: Judged["state"], summary: string, todo: string | null) => Judged,
  log: string,
): Judged {
  const failed = failedChecks(body);
  const said = failed.map(({ name, error }) => `${name}: ${error}`).join("; ");
  if (said === "") return judged("down", `${address} answers ${status}`, log);
  const todo = failed.find(({ remedy }) => remedy !== null)?.remedy ?? log;
  if (failed.every(({ name }) => name === "cluster"))
    return judged("attention", `${address} accepts pins, but they wait in its queue: ${said}`, SEE_WRITER);
  return judged("down", `${address} does not work: ${said}`, todo);
}

/** The checks in the body of our services' health that fail. */
export function failedChecks(
  body: unknown,
): readonly { readonly name: string; readonly error: string; readonly remedy: string | null }[] {
  const { checks } = (body ?? {}) as { readonly checks?: unknown };
  if (typeof checks !== "object" || checks === null) return [];
  return Object.entries(checks as Readonly<Record<string, unknown>>).flatMap(([name, check]) =>
    (check as { readonly ok?: unknown } | null)?.ok === false
      ? [{ name, error: textIn(check, "error") ?? "failed", remedy: textIn(check, "remedy") }]
      : [],
  );
}

function textIn(value: unknown, key: string): string | null {
  const found =
    typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  return typeof found === "string" ? found : null;
}

/** What is known of the masters of a pool. */
export interface MastersSeen {
  readonly trust: PoolTrust;
  readonly writer: WriterTrust;
  readonly ownId: string;
  /** The name of the master that runs the billing; null if none does. */
  readonly leader: string | null;
}

/** Judges what is known. Null: there is nothing to say, since the pool has this master alone. */
export function judgeMasters(seen: MastersSeen): Judged | null {
  const { trust, writer, ownId, leader } = seen;
  const { masters, removed, nodes } = trust;
  const own = masters.find(({ id }) => id === ownId);
  const gone = removed.find(({ id }) => id === ownId);
  const others = masters.filter(({ id }) => id !== ownId);
  const evidence = {
    ...Object.fromEntries(
      masters.map((one) => [
        one.name,
        [
          `${one.peer?.peerId ?? "peer not recorded"}, last seen ${one.heartbeatAt}`,
          ...(one.name === leader ? ["leads the billing"] : []),
          ...(one.peer?.trusts == null ? [] : [`trusts ${one.peer.trusts.join(" ") || "nobody"}`]),
        ].join(", "),
      ]),
    ),
    ...Object.fromEntries(
      removed.map((one) => [
        `${one.name} (removed)`,
        `${one.peerId ?? "peer not recorded"}, by ${one.removedBy}, ${one.removedAt}`,
      ]),
    ),
    "this writer trusts": writer.trusts === null ? "not known" : writer.trusts.join(" ") || "nobody",
    "nodes that trust every master": String(
      nodes.length - findTrustFaults(trust, { id: ownId, trusts: writer.trusts }).lacking.length,
    ),
  };
  if (gone !== undefined)
    return {
      state: "down",
      summary: `this master was removed from the pool by ${gone.removedBy}, ${gone.removedAt}`,
      todo: `on another master: fula-node trust add ${gone.name} (docs/lost-master.md)`,
      evidence,
    };
  if (others.length === 0 && removed.length === 0) return null;
  const summary = [...(own === undefined ? [] : [own]), ...others]
    .map((one) => describeMaster(one, { ownId, leader }))
    .join(", ");
  return withRemarks({ state: "ok", summary, todo: null, evidence }, remarksOnMasters(seen, others));
}

function describeMaster(
  { id, name, heartbeatAgeMs, isHeard }: PoolMaster,
  { ownId, leader }: Pick<MastersSeen, "ownId" | "leader">,
): string {
  const facts = [
    ...(id === ownId ? ["here"] : []),
    ...(name === leader ? ["leader"] : []),
    ...(isHeard ? [] : [`silent for ${duration(Math.max(0, heartbeatAgeMs))}`]),
  ];
  return facts.length === 0 ? name : `${name} (${facts.join(", ")})`;
}

function remarksOnMasters(
  { trust, writer, ownId }: MastersSeen,
  others: readonly PoolMaster[],
): readonly Remark[] {
  const { untrusted, distrusting, lingering, lacking, silent } = findTrustFaults(trust, {
    id: ownId,
    trusts: writer.trusts,
  });
  const attention = (sentence: string, todo: string): Remark => ({ state: "attention", sentence, todo });
  return [
    ...untrusted.map(({ name }) =>
      attention(`this writer does not trust the master ${name}`, `fula-node trust add ${name}`),
    ),
    ...lingering.flatMap(({ removed, by }) => {
      const who = by.map((name) => name ?? "this writer").join(", ");
      const command = by.includes(null)
        ? `fula-node trust remove ${removed.name}`
        : `there: fula-node trust remove ${removed.name}, or on a node join-as-storage-node --accept-pool-change`;
      return [attention(`still trusted, although removed: ${removed.name} (by ${who})`, command)];
    }),
    ...distrusting.map(({ name, peer }) =>
      attention(
        `the master ${name} does not trust this one`,
        `on ${name}: fula-node trust add ${trust.masters.find(({ id }) => id === ownId)?.name ?? peer?.peerId ?? ""}`,
      ),
    ),
    ...(lacking.length === 0
      ? []
      : [
          attention(
            `${countOf(lacking.length, "node")} ${lacking.length === 1 ? "does" : "do"} not trust every master: ${lacking.map(({ node, masters }) => `${node.name} (not ${masters.join(", ")})`).join(", ")}`,
            "on each: fula-node join-as-storage-node --accept-pool-change, with a new invite or by the pool API",
          ),
        ]),
    ...(silent.length === 0
      ? []
      : [
          attention(
            `${countOf(silent.length, "node")} ${silent.length === 1 ? "has" : "have"} not said which masters it trusts: ${silent.map(({ name }) => name).join(", ")}`,
            "on each: fula-node join-as-storage-node, with this version or a newer one",
          ),
        ]),
    ...others
      .filter(({ peer }) => peer === null)
      .map(({ name }) =>
        attention(`the cluster peer of ${name} is not recorded`, `on ${name}: fula-node join-as-master`),
      ),
    ...others
      .filter(({ isHeard }) => !isHeard)
      .map(({ name, heartbeatAt }) =>
        attention(
          `the master ${name} was last seen at ${heartbeatAt}`,
          `if it is gone for good: fula-node trust remove ${name} (docs/lost-master.md)`,
        ),
      ),
  ];
}
