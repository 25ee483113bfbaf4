import { databaseErrorOf } from "../database/session.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { parseJson } from "../machine/http-client.ts";
import type { Values } from "../settings/context.ts";
import { addressForNodes, edgeOf } from "../settings/edge.ts";
import { NAMES } from "../settings/layout.ts";
import { postgresTarget } from "../settings/postgres-target.ts";
import { countOf } from "../units.ts";
import { findPrivateCa } from "./files.ts";

/** What other machines were told of the edge. */
export interface KnownEdge {
  /** PUBLIC_HOST. */
  readonly host: string;
  /** What invites contain as the address of the storage API. */
  readonly url: string;
  /** A hash of the CA's certificates that invites contain; null for a public CA. */
  readonly ca: string | null;
  /** When PUBLIC_HOST went, as ISO text: nobody reaches the address any more. Null while it serves. */
  readonly off_at: string | null;
  /** What was told before, the oldest first. */
  readonly past: readonly PastEdge[];
}

/** What other machines were told until a time, as ISO text. */
interface PastEdge extends Pick<KnownEdge, "host" | "url" | "ca"> {
  readonly until: string;
}

/** A time in which invites contained what is of no use now. */
export interface StaleSpan {
  /** Null: from the beginning. */
  readonly from: Date | null;
  readonly until: Date;
}

/** What invites contain now. `ca` is undefined while the edge's own CA has no root on its volume. */
export interface EdgeNow {
  /** Null without an edge. */
  readonly host: string | null;
  /** Null if invites have no address. */
  readonly url: string | null;
  readonly ca: string | null | undefined;
}

/** The record of what other machines were told; null if there is none, or it can't be read: it is made anew. */
export function parseKnown(text: string | null): KnownEdge | null {
  const found = parseJson(text ?? "") as Partial<Record<keyof KnownEdge | "changed_at", unknown>> | null;
  const { host, url, ca, off_at, past, changed_at } = found ?? {};
  if (typeof host !== "string" || typeof url !== "string") return null;
  const changedAt = timeIn(changed_at);
  // A record of 0.4.0 or earlier has only the time of the last change.
  const earlier = changedAt === null ? [] : [{ ...UNKNOWN_EDGE, until: changedAt }];
  return {
    host,
    url,
    ca: typeof ca === "string" ? ca : null,
    off_at: timeIn(off_at),
    past: Array.isArray(past) ? past.flatMap(parsePast) : earlier,
  };
}

/** It differs from every edge. */
const UNKNOWN_EDGE = { host: "", url: "", ca: null } as const;

function parsePast(value: unknown): readonly PastEdge[] {
  const { host, url, ca, until } = (value ?? {}) as Partial<Record<keyof PastEdge, unknown>>;
  const time = timeIn(until);
  if (typeof host !== "string" || typeof url !== "string" || time === null) return [];
  return [{ host, url, ca: typeof ca === "string" ? ca : null, until: time }];
}

function timeIn(value: unknown): string | null {
  return typeof value === "string" && Number.isFinite(Date.parse(value)) ? value : null;
}

/** More changes than anybody makes. What was before them counts as unknown. */
const MOST_PAST = 50;

/** The record after a change to what invites contain now, at a time as ISO text. */
export function recordChange(
  known: KnownEdge | null,
  now: EdgeNow & { readonly ca: string | null },
  at: string,
): KnownEdge {
  if (now.url === null && known !== null) return { ...known, off_at: known.off_at ?? at };
  const next = { host: now.host ?? known?.host ?? "", url: now.url ?? "", ca: now.ca, off_at: null };
  if (known === null) return { ...next, past: [] };
  const { host, url, ca, past } = known;
  const isSame = host === next.host && url === next.url && ca === next.ca;
  const all = isSame ? past : [...past, { host, url, ca, until: at }];
  const kept = all
    .slice(-MOST_PAST)
    .map((one, index) =>
      index === 0 && all.length > MOST_PAST ? { ...UNKNOWN_EDGE, until: one.until } : one,
    );
  return { ...next, past: kept };
}

/** Reads what invites contain now. */
export async function readEdgeNow(
  host: Pick<HostReader, "files" | "docker">,
  values: Values,
  hash: (text: string) => string,
): Promise<EdgeNow> {
  const edge = edgeOf(values);
  if (edge === null) return { host: null, url: addressForNodes(values) ?? null, ca: null };
  const url = addressForNodes(values) ?? `https://${edge.host}`;
  const isOfEdge = URL.canParse(url) && new URL(url).hostname === edge.host;
  const ca = isOfEdge ? await findPrivateCa(host, edge) : null;
  const isOwnLost = ca?.certificates === null && edge.tls.kind === "internal";
  return {
    host: edge.host,
    url,
    ca: isOwnLost ? undefined : ca === null ? null : hash(ca.certificates ?? ""),
  };
}

/** What changed since then, a sentence each. */
export function findChanges(known: Omit<KnownEdge, "past">, now: EdgeNow): readonly string[] {
  if (now.url === null)
    return known.off_at === null ? [`PUBLIC_HOST is not set any more: nobody reaches ${known.url}`] : [];
  const isOtherCa = now.ca !== undefined && now.ca !== known.ca;
  return [
    ...(known.off_at === null ? [] : ["PUBLIC_HOST was not set, and invites have an address again"]),
    ...(now.host === null || now.host === known.host
      ? []
      : [`PUBLIC_HOST was ${known.host}: clients must use ${now.host} now`]),
    ...(now.url === known.url ? [] : [`invites contained ${known.url}, and contain ${now.url} now`]),
    ...(isOtherCa
      ? [
          now.ca === null
            ? "its certificate is no longer of the private CA that older invites contain: who trusts that CA alone can't verify it"
            : known.ca === null
              ? "its certificate is of a private CA now, which older invites do not contain"
              : "its CA is a new one: nobody who has the old root can verify it",
        ]
      : []),
  ];
}

/** True if storage nodes can't use what they were told before. They trust public CAs too, whatever their invite contains. */
export function concernsNodes(known: Pick<KnownEdge, "host" | "url" | "ca">, now: EdgeNow): boolean {
  const { url } = known;
  const ca = now.ca === null ? null : known.ca;
  return findChanges({ host: now.host ?? known.host, url, ca, off_at: null }, now).length > 0;
}

/** Who has the old address or CA: open invites, and nodes that have not joined again since. */
interface Holders {
  readonly invites: number;
  readonly nodes: readonly string[];
}

/** What to do about the holders, as commands. */
export function renewalFor({ invites, nodes }: Holders): string {
  const [first = "NODE"] = nodes;
  const name = nodes.length === 1 ? first : "NODE";
  const forNodes = `fula-node invite create --name ${name}, and on ${nodes.length === 1 ? "that node" : "each node"}: fula-node join-as-storage-node --invite @FILE --fingerprint FINGERPRINT --accept-pool-change`;
  return [
    ...(invites === 0
      ? []
      : [
          "fula-node invite revoke ID for each that fula-node invite list marks as old, then create new ones",
        ]),
    ...(nodes.length === 0 ? [] : [forNodes]),
  ].join("; ");
}

/** Finds those that were made in these times. A text says why it is not known. */
export async function findHolders(
  { postgres }: Pick<HostReader, "postgres">,
  values: Values,
  spans: readonly StaleSpan[],
): Promise<Holders | string> {
  const target = postgresTarget(values);
  const pool = values("CLUSTERNAME");
  if (target === null || pool === undefined) return "there is no database yet";
  try {
    const [row] = await postgres.query<{ invites: string; nodes: string[] }>(target, HOLDERS, [
      pool,
      spans.map(({ from }) => from),
      spans.map(({ until }) => until),
    ]);
    return { invites: Number(row?.invites ?? 0), nodes: row?.nodes ?? [] };
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown.what;
    if (databaseErrorOf(thrown)?.code === "42P01") return "the schema has no invites yet";
    throw thrown;
  }
}

const IN_SPANS = (time: string) =>
  `EXISTS (SELECT FROM unnest($2::timestamptz[], $3::timestamptz[]) AS span(since, until)
            WHERE ${time} < until AND (since IS NULL OR ${time} >= since))`;

/** A node announces its name at each join that changes its address or its CA, through these. */
const HOLDERS = `
  SELECT (SELECT count(*) FROM invites WHERE pool = $1 AND revoked_at IS NULL AND bound_peer IS NULL
            AND expires_at > now() AND ${IN_SPANS("issued_at")})::text AS invites,
    ARRAY(SELECT n.name FROM node_names n JOIN node_descriptors d ON d.pool = n.pool AND d.name = n.name
          WHERE n.pool = $1 AND ${IN_SPANS("d.said")} ORDER BY n.name COLLATE "C") AS nodes`;

const MOST_NAMES = 8;

/** `2 open invites and the nodes berlin-1, paris-2 have the old one`; null if nobody has. */
export function describeHolders({ invites, nodes }: Holders): string | null {
  if (invites + nodes.length === 0) return null;
  const more = nodes.length > MOST_NAMES ? ` and ${nodes.length - MOST_NAMES} more` : "";
  const names = `the ${nodes.length === 1 ? "node" : "nodes"} ${nodes.slice(0, MOST_NAMES).join(", ")}${more}`;
  const parts = [
    ...(invites === 0 ? [] : [countOf(invites, "open invite")]),
    ...(nodes.length === 0 ? [] : [names]),
  ];
  const isOne = invites + nodes.length === 1;
  return `${parts.join(" and ")} ${isOne ? "has" : "have"} the old one`;
}

/**
 * The times in which invites contained what is of no use now. An address or a CA that is back again is of use: who was told of
 * it before is not asked to do anything.
 */
export function staleSpans(known: KnownEdge | null, now: EdgeNow | null = known): readonly StaleSpan[] {
  if (known === null || now === null) return [];
  if (known.off_at !== null) return [{ from: null, until: new Date(known.off_at) }];
  return known.past.flatMap((one, index) => {
    const before = known.past[index - 1];
    const span = { from: before === undefined ? null : new Date(before.until), until: new Date(one.until) };
    return concernsNodes(one, now) ? [span] : [];
  });
}

/** True if something of that time has what is of no use now. */
export function isInSpans(time: Date, spans: readonly StaleSpan[]): boolean {
  return spans.some(
    ({ from, until }) =>
      time.getTime() < until.getTime() && (from === null || time.getTime() >= from.getTime()),
  );
}

/** Who still has what invites contained before the last change, and what to do; null if nobody has, or it is not known. */
export async function findStale(
  host: Pick<HostReader, "postgres">,
  known: KnownEdge | null,
  values: Values,
): Promise<{ readonly sentence: string; readonly short: string; readonly todo: string } | null> {
  const spans = staleSpans(known);
  const last = spans.at(-1);
  if (known === null || last === undefined) return null;
  const holders = await findHolders(host, values, spans);
  const who = typeof holders === "string" ? null : describeHolders(holders);
  if (who === null || typeof holders === "string") return null;
  const { invites, nodes } = holders;
  const count = [
    ...(invites === 0 ? [] : [countOf(invites, "open invite")]),
    ...(nodes.length === 0 ? [] : [countOf(nodes.length, "node")]),
  ].join(" and ");
  const verb = invites + nodes.length === 1 ? "has" : "have";
  const day = last.until.toISOString().slice(0, 10);
  return known.off_at === null
    ? {
        sentence: `its address or CA changed on ${day}: ${who}`,
        short: `${count} ${verb} the old address or CA`,
        todo: renewalFor(holders),
      }
    : {
        sentence: `PUBLIC_HOST is not set since ${day}, so nobody reaches ${known.url}: ${who}`,
        short: `${count} ${verb} an address that nothing serves`,
        todo: `${SET_AGAIN}; or, with another address: ${renewalFor(holders)}`,
      };
}

/**
 * What other machines do not know of the edge: a change that no join has recorded yet, or else who has the address or the CA from
 * before the last one. Null if there is nothing.
 */
export async function findOutdated(
  host: Pick<HostReader, "files" | "docker" | "postgres">,
  {
    path,
    values,
    hash,
  }: { readonly path: string; readonly values: Values; readonly hash: (text: string) => string },
): Promise<{ readonly sentence: string; readonly todo: string } | null> {
  const [text, now] = await Promise.all([host.files.readText(path), readEdgeNow(host, values, hash)]);
  const known = parseKnown(text);
  if (known === null) return null;
  const [change] = findChanges(known, now);
  if (change !== undefined)
    return { sentence: change, todo: "to see who has the old one: fula-node join-as-master" };
  return findStale(host, known, values);
}

/** What makes an edge that is off serve its address again. */
const SET_AGAIN = "fula-node join-as-master --set PUBLIC_HOST=NAME";

/** True if Caddy makes a new CA when it starts: the volume with the old one is gone. */
export async function isVolumeLost({ docker }: Pick<HostReader, "docker">): Promise<boolean> {
  return (await docker.volume(NAMES.edgeVolume)) === null;
}
