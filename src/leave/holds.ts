import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { masterLayout } from "../settings/layout.ts";
import { isDatabaseElsewhere, MASTER_SETTINGS, postgresTarget } from "../settings/master.ts";
import type { Part, Purge } from "./policy.ts";
import type { LeavingNode, Survey } from "./survey.ts";

const DEFAULT_WRITER_DIR = MASTER_SETTINGS.find(({ key }) => key === "WRITER_DIR")?.byDefault;

/** Parts that a purge, mostly `--purge all`, does not take, and why, as a sentence. */
export interface Hold {
  readonly parts: readonly Part[];
  readonly why: string;
}

/** What this node works with on other machines. */
export function elsewhereOf({ kind, values }: LeavingNode): readonly string[] {
  if (kind !== "master" || !isDatabaseElsewhere(values)) return [];
  return [`the database at ${values("POSTGRES_HOST") ?? ""}:${values("POSTGRES_PORT") ?? ""}`];
}

/** The databases that stay whatever is purged: only the secrets in `.env` open them. */
export function databasesThatStay(survey: Survey, node: LeavingNode): readonly string[] {
  return [...survey.databases, ...elsewhereOf(node)];
}

/** What a purge leaves all the same, since something that stays is worth nothing without it. */
export async function findHolds(
  host: HostReader,
  node: LeavingNode,
  { survey, purge: { parts, named } }: { readonly survey: Survey; readonly purge: Purge },
): Promise<readonly Hold[]> {
  const { layout, writerDir } = node;
  const isOnlyByAll = (part: Part) => parts.has(part) && !named.has(part);
  const holds: Hold[] = [];
  const databases = databasesThatStay(survey, node);
  if (isOnlyByAll("settings") && databases.length > 0) {
    holds.push({
      parts: ["settings"],
      why: `${layout.envFile} is kept: it alone opens what is not ours to remove (${databases.join(", ")}). --purge settings, said by itself, removes it.`,
    });
  }
  if (isOnlyByAll("keys") && (await isKeyInDoubt(host, node))) {
    holds.push({
      parts: ["keys", "logs"],
      why: `The signing key and the logs in ${layout.baseDir} are kept: nothing tells that fula-node made that key, and snapshots elsewhere may count on it. --purge keys, said by itself, removes it.`,
    });
  }
  const isApart = writerDir !== null && writerDir !== DEFAULT_WRITER_DIR;
  const hasWriterData = survey.things.some(
    ({ name, part }) => part === "data" && name.startsWith(`${writerDir}/`),
  );
  if (isApart && hasWriterData && parts.has("settings") && !parts.has("data")) {
    holds.push({
      parts: ["settings"],
      why: `${layout.envFile} is kept: it alone tells that the writer's data is in ${writerDir}. --purge settings,data removes both.`,
    });
  }
  return holds;
}

/**
 * What to do about flags in a database elsewhere that can't be asked now, a sentence if there are any. Throws
 * `unavailable` if the settings, without which nobody knows of them, are to go.
 */
export async function warnOfFlags(
  host: HostReader,
  node: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<readonly string[]> {
  const [place] = elsewhereOf(node);
  if (place === undefined) return [];
  const target = postgresTarget(node.values);
  const answer = target === null ? null : await host.postgres.ask(target);
  if (answer?.kind === "open") return [];
  const master = (node.values("CLUSTER_PEERNAME") ?? "this master's name").replaceAll("'", "''");
  const statement = `DELETE FROM fula_node.flags_in_use WHERE master = '${master}'`;
  const reason = answer?.kind ?? "no password to ask with";
  if (!purged.has("settings"))
    return [
      `This master's flags stay in ${place}, which can't be asked now (${reason}): no master can take back what serves them. Run leave again when it can be, or have this run there: ${statement}`,
    ];
  throw new OperatorError({
    exit: "unavailable",
    what: `This master's flags can't be taken out of ${place}: ${reason}.`,
    why: "Without .env nobody could do it later.",
    remedy: `Run again when it answers, or without --purge settings. If it never will, remove ${node.layout.envFile} by hand; while the flags stand, this takes them out: ${statement}`,
  });
}

/** What an operator should know before a node leaves that others count on, a sentence each. */
export async function lastWords(
  host: HostReader,
  { kind, layout, values }: LeavingNode,
  { purged, databases }: { readonly purged: ReadonlySet<Part>; readonly databases: readonly string[] },
): Promise<readonly string[]> {
  const words: string[] = [];
  if (purged.has("settings") && (!purged.has("data") || databases.length > 0)) {
    const staying = databases.length === 0 ? "" : ` (${databases.join(", ")})`;
    words.push(
      `Without .env, the data that stays can't be opened by a later join${staying}: have a copy of it elsewhere.`,
    );
  }
  if (kind === "storage-node") {
    const forget = `fula-node sweep --forget ${values("CLUSTER_PEERNAME") ?? "NAME"}`;
    words.push(
      `The pool forgets this peer by itself within a minute. If it is gone for good, the master's operator runs \`${forget}\`.`,
    );
    return words;
  }
  const { snapshotsDir } = masterLayout(layout.baseDir);
  const names = (await host.files.list(snapshotsDir)) ?? [];
  const signed = names.filter((name) => name.endsWith(".manifest.sig")).length;
  const fate = purged.has("snapshots") ? "goes" : "is kept";
  words.push(
    "Other nodes go on obeying this master's peer id until it is taken out of their MASTER_CLUSTER_PEERIDS, and keep the pins that it made; nobody serves its API in the meantime.",
    signed === 0
      ? "There is no snapshot of the pinset on this box (`fula-node snapshot take` makes one)."
      : `What ${snapshotsDir} holds ${fate}: signed snapshots of the pinset, ${signed} in number. Copies belong on another box.`,
  );
  return words;
}

/** Upstream's key has the same name and looks the same: only the journal tells who made it. */
async function isKeyInDoubt({ files }: HostReader, { kind, layout }: LeavingNode): Promise<boolean> {
  const { signingKey, journal } = masterLayout(layout.baseDir);
  if (kind !== "master" || (await files.stat(signingKey)) === null) return false;
  return !((await files.readText(journal)) ?? "").includes('"kind":"make-signing-key"');
}
