import { plain } from "./markup.ts";
import { readFacts } from "../../pinset/sweep/findings.ts";
import type { PartState } from "../../status/part.ts";
import { grouped } from "../../units.ts";
import { runOf, valueOf } from "./page-parts.ts";
import type { Answers } from "./questions.ts";

/** One node, as the page shows it. */
export interface NodeRow {
  readonly name: string;
  readonly state: PartState;
  readonly words: string;
  readonly freeBytes: number | null;
  /** `4,790 of 4,812`, at the last sweep. */
  readonly pins: string;
  readonly isUp: boolean;
  /** The last sign of life, as ISO text; null: none. */
  readonly seen: string | null;
}

/**
 * The nodes of the pool: those that the last sweep expected and those that have a registered name, as the cluster sees them
 * now. Those that need attention come first. Without an answer of the cluster, a node is `unknown`.
 */
export function nodesOf(answers: Answers): readonly NodeRow[] {
  const swept = readFacts(runOf(answers, "sweep")?.heartbeat ?? null)?.nodes ?? [];
  const sweptById = new Map(swept.map((node) => [node.id, node]));
  const owners = new Map((valueOf(answers.owners) ?? []).map((owner) => [owner.id, owner]));
  const members = valueOf(answers.peers);
  const memberById = new Map(
    (members ?? []).filter(({ error }) => error === "").map((peer) => [peer.id, peer]),
  );
  const pings = valueOf(answers.pings);
  const pinging = new Set((pings ?? []).filter(({ valid }) => valid).map(({ peer }) => peer));
  const free = new Map(
    (valueOf(answers.freeSpace) ?? [])
      .filter(({ valid }) => valid)
      .map(({ peer, value }) => [peer, Number(value)]),
  );
  const stateOf = (id: string): readonly [PartState, string] => {
    if (members === null || pings === null) return ["unknown", "unknown"];
    const member = memberById.get(id);
    if (member === undefined) return ["attention", "away"];
    if (member.ipfsError !== "") return ["attention", "its kubo is down"];
    if (sweptById.get(id)?.state === "silent") return ["attention", "silent"];
    return pinging.has(id) ? ["ok", "up"] : ["attention", "no sign of life"];
  };
  const own = valueOf(answers.identity)?.id;
  const ids = new Set([...sweptById.keys(), ...owners.keys()]);
  const rows = [...ids].map((id) => {
    const node = sweptById.get(id);
    const owner = owners.get(id);
    const [state, words] = stateOf(id);
    const name = node?.name || owner?.name || memberById.get(id)?.peername || id;
    const signs = [node?.lastSeen, owner?.announcedAt].filter((sign) => typeof sign === "string");
    return {
      name: `${plain(name)}${id === own ? " (here)" : ""}`,
      state,
      words,
      freeBytes: free.get(id) ?? node?.freeBytes ?? null,
      pins: node === undefined ? "no sweep yet" : `${grouped(node.pinsDone)} of ${grouped(node.pinsDue)}`,
      isUp: state === "ok",
      seen: signs.toSorted((a, b) => Date.parse(b) - Date.parse(a))[0] ?? null,
    } satisfies NodeRow;
  });
  const rank = ({ state }: NodeRow) => ["attention", "unknown", "ok"].indexOf(state);
  return rows.toSorted((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
}
