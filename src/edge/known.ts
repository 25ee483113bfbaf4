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
  /** When the address or the CA changed last, as ISO text; null if it never did. */
  readonly changed_at: string | null;
}

/** What invites contain now. `ca` is undefined while the edge's own CA has no root on its volume. */
export interface EdgeNow {
  readonly host: string;
  readonly url: string;
  readonly ca: string | null | undefined;
}

/** The record of what other machines were told; null if there is none, or it can't be read: it is made anew. */
export function parseKnown(text: string | null): KnownEdge | null {
  const found = parseJson(text ?? "") as Partial<Record<keyof KnownEdge, unknown>> | null;
  const { host, url, ca, changed_at } = found ?? {};
  if (typeof host !== "string" || typeof url !== "string") return null;
  const isTime = typeof changed_at === "string" && Number.isFinite(Date.parse(changed_at));
  return { host, url, ca: typeof ca === "string" ? ca : null, changed_at: isTime ? changed_at : null };
}

/** Reads what invites contain now; null without an edge. */
export async function readEdgeNow(
  host: Pick<HostReader, "files" | "docker">,
  values: Values,
  hash: (text: string) => string,
): Promise<EdgeNow | null> {
  const edge = edgeOf(values);
  if (edge === null) return null;
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

/** What changed since then, a sentence each. A public CA in the place of a private one changes nothing for who trusts both. */
export function findChanges(known: KnownEdge, now: EdgeNow): readonly string[] {
  const isOtherCa = now.ca !== undefined && now.ca !== null && now.ca !== known.ca;
  return [
    ...(now.host === known.host ? [] : [`PUBLIC_HOST was ${known.host}: clients must use ${now.host} now`]),
    ...(now.url === known.url ? [] : [`invites contained ${known.url}, and contain ${now.url} now`]),
    ...(isOtherCa
      ? [
          known.ca === null
            ? "its certificate is of a private CA now, which older invites do not contain"
            : "its CA is a new one: nobody who has the old root can verify it",
        ]
      : []),
  ];
}

/** True if storage nodes can't use what they were told before. */
export function concernsNodes(known: KnownEdge, now: EdgeNow): boolean {
  return findChanges({ ...known, host: now.host }, now).length > 0;
}

/** Who has the old address or CA: open invites, and nodes that have not joined again since. */
interface Holders {
  readonly invites: number;
  readonly nodes: readonly string[];
}

/** What to do about the holders. */
export const RENEW =
  "revoke those invites (fula-node invite list); for each node, create a new one: fula-node join-as-storage-node --invite NEW --accept-pool-change";

/** Finds those that were made before a time. A text says why it is not known. */
export async function findHolders(
  { postgres }: Pick<HostReader, "postgres">,
  values: Values,
  before: Date,
): Promise<Holders | string> {
  const target = postgresTarget(values);
  const pool = values("CLUSTERNAME");
  if (target === null || pool === undefined) return "there is no database yet";
  try {
    const [row] = await postgres.query<{ invites: string; nodes: string[] }>(target, HOLDERS, [pool, before]);
    return { invites: Number(row?.invites ?? 0), nodes: row?.nodes ?? [] };
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown.what;
    if (databaseErrorOf(thrown)?.code === "42P01") return "the schema has no invites yet";
    throw thrown;
  }
}

/** A node announces its name at each join, through the address and with the CA that it has. */
const HOLDERS = `
  SELECT (SELECT count(*) FROM invites WHERE pool = $1 AND revoked_at IS NULL AND bound_peer IS NULL
            AND expires_at > now() AND issued_at < $2)::text AS invites,
    ARRAY(SELECT n.name FROM node_names n JOIN node_descriptors d ON d.pool = n.pool AND d.name = n.name
          WHERE n.pool = $1 AND d.said < $2 ORDER BY n.name COLLATE "C") AS nodes`;

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

/** Who still has what invites contained before the last change, and what to do; null if nobody has, or it is not known. */
export async function findStale(
  host: Pick<HostReader, "postgres">,
  known: KnownEdge | null,
  values: Values,
): Promise<{ readonly sentence: string; readonly todo: string } | null> {
  const changedAt = known?.changed_at ?? null;
  if (changedAt === null) return null;
  const holders = await findHolders(host, values, new Date(changedAt));
  const who = typeof holders === "string" ? null : describeHolders(holders);
  const day = changedAt.slice(0, 10);
  return who === null ? null : { sentence: `its address or CA changed on ${day}: ${who}`, todo: RENEW };
}

/** True if Caddy makes a new CA when it starts: the volume with the old one is gone. */
export async function isVolumeLost({ docker }: Pick<HostReader, "docker">): Promise<boolean> {
  return (await docker.volume(NAMES.edgeVolume)) === null;
}
