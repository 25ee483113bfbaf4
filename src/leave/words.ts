import type { PlanItem } from "../engine/events.ts";
import type { HostReader } from "../host.ts";
import { MASTER_BASE_DIR, masterLayout, STORAGE_BASE_DIR } from "../settings/master-layout.ts";
import type { Reporter } from "../ui/reporter.ts";
import { type FoundNode, nameOf } from "./node.ts";
import type { Part } from "./policy.ts";
import type { LeavingNode, Survey } from "./survey.ts";

/** What stays on purpose, by its part. */
export interface Kept {
  readonly part: Part;
  readonly kind: string;
  readonly name: string;
}

/** What of a survey stays with what is purged. */
export function keptOf({ things }: Survey, purged: ReadonlySet<Part>): readonly Kept[] {
  return things.flatMap(({ kind, name, part }) =>
    part === null || purged.has(part) ? [] : [{ part, kind, name }],
  );
}

/** The plan of a leave for people: what goes, what stays and how to be rid of it, what is not ours. */
export function planWords(
  reporter: Reporter,
  { kind, layout }: LeavingNode,
  plan: {
    readonly items: readonly PlanItem[];
    readonly kept: readonly Kept[];
    readonly others: readonly string[];
  },
): readonly string[] {
  const going = plan.items.flatMap(({ step, changes }) => changes.map(({ summary }) => [step, summary]));
  return [
    `The ${nameOf(kind)} in ${layout.baseDir} leaves`,
    ...(going.length === 0 ? ["Nothing is left to remove."] : reporter.table(going)),
    ...keptWords(reporter, plan.kept),
    ...othersWords(reporter, plan.others),
  ];
}

/** What stays, and which word of `--purge` would remove it. */
export function keptWords(reporter: Reporter, kept: readonly Kept[]): readonly string[] {
  if (kept.length === 0) return [];
  const rows = kept.map(({ part, kind, name }) => [part, kind === "volume" ? `volume ${name}` : name]);
  return ["Kept (--purge WHAT removes it too)", ...reporter.table(rows)];
}

function othersWords(reporter: Reporter, others: readonly string[]): readonly string[] {
  const rows = [...others, "Docker and other packages, pulled images"].map((other) => ["", other]);
  return ["Not ours to remove, so it stays as it is", ...reporter.table(rows)];
}

/** What an operator should know before a node leaves that others count on, a sentence each. */
export async function lastWords(
  host: HostReader,
  { node, values }: FoundNode,
  { purged, databases }: { readonly purged: ReadonlySet<Part>; readonly databases: readonly string[] },
): Promise<readonly string[]> {
  const { baseDir } = node.layout;
  const isLocked = purged.has("settings") && (!purged.has("data") || databases.length > 0);
  const staying = databases.length === 0 ? "" : ` (${databases.join(", ")})`;
  const locked = isLocked
    ? [
        `Without .env, the data that stays can't be opened by a later join${staying}: have a copy of it elsewhere.`,
      ]
    : [];
  if (node.kind === "storage-node") {
    const name = values("CLUSTER_PEERNAME") ?? "NAME";
    return [
      ...locked,
      `The pool forgets this peer by itself within a minute. If it is gone for good, the master's operator runs \`fula-node sweep --forget ${name}\`.`,
    ];
  }
  const { snapshotsDir } = masterLayout(baseDir);
  const names = (await host.files.list(snapshotsDir)) ?? [];
  const signed = names.filter((name) => name.endsWith(".manifest.sig")).length;
  const fate = purged.has("snapshots") ? "goes" : "is kept";
  const snapshots =
    signed === 0
      ? "There is no snapshot of the pinset on this box (`fula-node snapshot take` makes one)."
      : `What ${snapshotsDir} holds ${fate}: signed snapshots of the pinset, ${signed} in number. Copies belong on another box.`;
  return [
    ...locked,
    "Other nodes go on obeying this master's peer id until it is taken out of their MASTER_CLUSTER_PEERIDS, and keep the pins that it made; nobody serves its API in the meantime.",
    snapshots,
  ];
}

/** How to come back, where there is something to come back to. */
export function returnWords(
  { kind, layout, writerDir }: LeavingNode,
  kept: readonly Kept[],
): readonly string[] {
  if (!kept.some(({ part }) => part === "data" || part === "settings")) return [];
  const [verb, home] =
    kind === "master" ? ["join-as-master", MASTER_BASE_DIR] : ["join-as-storage-node", STORAGE_BASE_DIR];
  const hadWriter = writerDir !== null && kept.some(({ name }) => name.startsWith(`${writerDir}/`));
  const flags = [
    ...(hadWriter ? ["--provision-writer"] : []),
    ...(layout.baseDir === home ? [] : [`--base-dir ${layout.baseDir}`]),
  ];
  return [`To come back with what is kept: ${["fula-node", verb, ...flags].join(" ")}`];
}
