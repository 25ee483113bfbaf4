import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { masterLayout } from "../settings/master-layout.ts";
import { isDatabaseElsewhere, MASTER_SETTINGS, postgresTarget } from "../settings/master.ts";
import type { FoundNode } from "./node.ts";
import type { Part, Purge } from "./policy.ts";
import type { Survey, Thing } from "./survey.ts";

const DEFAULT_WRITER_DIR = MASTER_SETTINGS.find(({ key }) => key === "WRITER_DIR")?.byDefault;

/** Parts that a purge, mostly `--purge all`, does not take, and why, as a sentence. */
export interface Hold {
  readonly parts: readonly Part[];
  readonly why: string;
}

/** What this node works with on other machines. */
export function elsewhereOf({ node, values }: FoundNode): readonly string[] {
  if (node.kind !== "master" || !isDatabaseElsewhere(values)) return [];
  return [`the database at ${values("POSTGRES_HOST") ?? ""}:${values("POSTGRES_PORT") ?? ""}`];
}

/** The databases that stay whatever is purged: only the secrets in `.env` open them. */
export function databasesThatStay(survey: Survey, found: FoundNode): readonly string[] {
  return [...survey.databases, ...elsewhereOf(found)];
}

/** What a purge leaves all the same, since something that stays is worth nothing without it. */
export async function findHolds(
  host: HostReader,
  found: FoundNode,
  { survey, purge }: { readonly survey: Survey; readonly purge: Purge },
): Promise<readonly Hold[]> {
  const { layout } = found.node;
  const holds: Hold[] = [];
  const databases = databasesThatStay(survey, found);
  if (isOnlyByAll(purge, "settings") && databases.length > 0) {
    holds.push({
      parts: ["settings"],
      why: `${layout.envFile} is kept: it alone opens what is not ours to remove (${databases.join(", ")}). --purge settings, said by itself, removes it.`,
    });
  }
  if (isOnlyByAll(purge, "keys") && (await isKeyInDoubt(host, found))) {
    holds.push({
      parts: ["keys", "logs"],
      why: `The signing key and the logs in ${layout.baseDir} are kept: nothing tells that fula-node made that key, and snapshots elsewhere may count on it. --purge keys, said by itself, removes it.`,
    });
  }
  const { writerDir } = found.node;
  const isApart = writerDir !== null && writerDir !== DEFAULT_WRITER_DIR;
  const isWriterData = ({ name, part }: Thing) => part === "data" && name.startsWith(`${writerDir}/`);
  if (
    isApart &&
    !purge.parts.has("data") &&
    purge.parts.has("settings") &&
    survey.things.some(isWriterData)
  ) {
    holds.push({
      parts: ["settings"],
      why: `${layout.envFile} is kept: it alone tells that the writer's data is in ${writerDir}. --purge settings,data removes both.`,
    });
  }
  return holds;
}

/**
 * What to do about flags in a database elsewhere that can't be asked now, as a sentence; null where there
 * are none to be asked for. Throws `unavailable` where the settings, which alone tell of them, are to go.
 */
export async function warnOfFlags(
  host: HostReader,
  found: FoundNode,
  purged: ReadonlySet<Part>,
): Promise<string | null> {
  const [place] = elsewhereOf(found);
  if (place === undefined) return null;
  const target = postgresTarget(found.values);
  const answer = target === null ? null : await host.postgres.ask(target);
  if (answer?.kind === "open") return null;
  const master = (found.values("CLUSTER_PEERNAME") ?? "this master's name").replaceAll("'", "''");
  const statement = `DELETE FROM fula_node.flags_in_use WHERE master = '${master}'`;
  const silence = answer?.kind ?? "no password to ask with";
  if (!purged.has("settings")) {
    return `This master's flags stay in ${place}, which can't be asked now (${silence}): no master can take back what serves them. Run leave again when it can be, or have this run there: ${statement}`;
  }
  throw new OperatorError({
    exit: "unavailable",
    what: `This master's flags can't be taken out of ${place}: ${silence}.`,
    why: "Without .env nobody could do it later.",
    remedy: `Run again when it answers, or without --purge settings. If it never will, remove ${found.node.layout.envFile} by hand; while the flags stand, this takes them out: ${statement}`,
  });
}

/** The parts that go in the end. */
export function partsToPurge({ parts }: Purge, holds: readonly Hold[]): ReadonlySet<Part> {
  const held = new Set(holds.flatMap((hold) => hold.parts));
  return new Set([...parts].filter((part) => !held.has(part)));
}

function isOnlyByAll({ parts, named }: Purge, part: Part): boolean {
  return parts.has(part) && !named.has(part);
}

/** Upstream's key has the same name and looks the same: only the journal tells who made it. */
async function isKeyInDoubt({ files }: HostReader, { node }: FoundNode): Promise<boolean> {
  if (node.kind !== "master") return false;
  const { signingKey, journal } = masterLayout(node.layout.baseDir);
  if ((await files.stat(signingKey)) === null) return false;
  const record = (await files.readText(journal)) ?? "";
  return !record.includes('"kind":"make-signing-key"');
}
