import { readStanding } from "../billing/runs.ts";
import { HOURS_BACK } from "../billing/deduction.ts";
import { databaseErrorOf } from "../database/session.ts";
import { OperatorError } from "../errors.ts";
import { findTrustFaults, type PoolMaster, type PoolTrust, readPoolTrust } from "../federation/pool-trust.ts";
import { readWriterTrust, type WriterTrust } from "../federation/writer-trust.ts";
import type { HostReader } from "../host.ts";
import type { Values } from "../settings/context.ts";
import { isDatabaseElsewhere, postgresTarget } from "../settings/postgres-target.ts";
import { countOf, duration } from "../units.ts";
import type { Ask } from "./look-at-node.ts";
import { type Judged, LATE, type Remark, withRemarks } from "./part.ts";

/** What is known of the masters of a pool. */
export interface MastersSeen {
  readonly trust: PoolTrust;
  readonly writer: WriterTrust;
  readonly ownId: string;
  /** The name of the master that runs the billing; null if none does. */
  readonly leader: string | null;
  readonly nowMs: number;
}

/**
 * The masters of the pool: when each was last heard of, who leads the billing, and who does not trust whom yet. Null if this
 * is the only master that the pool ever had.
 */
export async function lookAtMasters(
  host: HostReader,
  { values, ask }: { readonly values: Values; readonly ask: Ask },
): Promise<Judged | null> {
  const target = postgresTarget(values);
  const ownId = values("MASTER_ID");
  if (target === null || ownId === undefined) return null;
  const database = {
    query: <Row extends Record<string, unknown>>(sql: string, parameters: readonly unknown[] = []) =>
      host.postgres.query<Row>(target, sql, parameters),
  };
  const pool = values("CLUSTERNAME") ?? "";
  const [trust, standing, writer] = await Promise.all([
    ask(() => readPoolTrust(database, pool)).catch(unlessBug),
    ask(() => readStanding(database, HOURS_BACK)).catch(unlessBug),
    ask(() => readWriterTrust(host)).catch(unlessBug),
  ]);
  if (trust === OLDER) return null;
  const mayHaveOthers = isDatabaseElsewhere(values) || values("MASTER_CLUSTER_PEERIDS") !== undefined;
  if (trust === LATE || trust === UNREAD || writer === LATE || writer === UNREAD || writer === OLDER) {
    const summary =
      trust === LATE || writer === LATE
        ? "the database or Docker did not answer in time"
        : "the database can't be read: see its line";
    return mayHaveOthers ? { state: "unknown", summary, todo: null, evidence: {} } : null;
  }
  const leader = standing !== null && typeof standing === "object" ? standing.leader : null;
  return judgeMasters({ trust, writer, ownId, leader, nowMs: host.clock.now().getTime() });
}

const UNREAD = Symbol("unread");
const OLDER = Symbol("older");

/** The database can't be read, or its schema is older. A bug is thrown on. */
function unlessBug(thrown: unknown): typeof UNREAD | typeof OLDER {
  if (databaseErrorOf(thrown)?.code === "42P01") return OLDER;
  if (thrown instanceof OperatorError) return UNREAD;
  throw thrown;
}

/** Judges what is known. Null: there is nothing to say, since the pool has this master alone. */
export function judgeMasters(seen: MastersSeen): Judged | null {
  const { trust, writer, ownId, leader, nowMs } = seen;
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
    .map((one) => describe(one, { ownId, leader, nowMs }))
    .join(", ");
  return withRemarks({ state: "ok", summary, todo: null, evidence }, remarksOn(seen, others));
}

function describe(
  { id, name, heartbeatAt, isHeard }: PoolMaster,
  { ownId, leader, nowMs }: Pick<MastersSeen, "ownId" | "leader" | "nowMs">,
): string {
  const facts = [
    ...(id === ownId ? ["here"] : []),
    ...(name === leader ? ["leader"] : []),
    ...(isHeard ? [] : [`silent for ${duration(Math.max(0, nowMs - Date.parse(heartbeatAt)))}`]),
  ];
  return facts.length === 0 ? name : `${name} (${facts.join(", ")})`;
}

function remarksOn({ trust, writer, ownId }: MastersSeen, others: readonly PoolMaster[]): readonly Remark[] {
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
