import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { masterLayout } from "../settings/layout.ts";
import { isDatabaseElsewhere, postgresTarget } from "../settings/postgres-target.ts";
import type { Values } from "../settings/context.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import type { Part, Purge } from "./policy.ts";
import type { LeavingNode, Survey } from "./survey.ts";

const DEFAULT_WRITER_DIR = MASTER_SETTINGS.find(({ key }) => key === "WRITER_DIR")?.byDefault;

/** Parts that a purge keeps (mostly `--purge all`), and why, as a sentence. */
export interface Hold {
  readonly parts: readonly Part[];
  readonly why: string;
}

/** The node's database, if it is on another machine. */
export function remoteDatabasesOf({ kind, values }: LeavingNode): readonly string[] {
  if (kind !== "master" || !isDatabaseElsewhere(values)) return [];
  return [`the database at ${values("POSTGRES_HOST") ?? ""}:${values("POSTGRES_PORT") ?? ""}`];
}

/** The databases that no purge removes: only the secrets in `.env` open them. */
export function databasesThatStay(survey: Survey, node: LeavingNode): readonly string[] {
  return [...survey.databases, ...remoteDatabasesOf(node)];
}

/** What a purge keeps because something else that stays is useless without it. */
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
      why: `${layout.envFile} is kept: without its secrets, nobody can open what is not removed (${databases.join(", ")}). To remove it anyway, give --purge settings explicitly.`,
    });
  }
  if (isOnlyByAll("keys") && (await isKeyInDoubt(host, node))) {
    holds.push({
      parts: ["keys", "logs"],
      why: `The signing key and the logs in ${layout.baseDir} are kept: the journal does not show that fula-node created that key, and snapshots on other machines may need it. To remove it anyway, give --purge keys explicitly.`,
    });
  }
  const isCustomDir = writerDir !== null && writerDir !== DEFAULT_WRITER_DIR;
  const hasWriterData = survey.things.some(
    ({ name, part }) => part === "data" && name.startsWith(`${writerDir}/`),
  );
  if (isCustomDir && hasWriterData && parts.has("settings") && !parts.has("data")) {
    holds.push({
      parts: ["settings"],
      why: `${layout.envFile} is kept: only this file says that the writer's data is in ${writerDir}. To remove both, give --purge settings,data.`,
    });
  }
  return holds;
}

/**
 * Warns about this master's flags in a database on another machine that does not answer: at most one sentence.
 * Throws `unavailable` if the settings are to be removed, since only they say where that database is.
 */
export async function warnOfFlags(
  host: HostReader,
  node: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<readonly string[]> {
  const [database] = remoteDatabasesOf(node);
  if (database === undefined) return [];
  const target = postgresTarget(node.values);
  const answer = target === null ? null : await host.postgres.ask(target);
  if (answer?.kind === "open") return [];
  const id = node.values("MASTER_ID");
  const name = (node.values("CLUSTER_PEERNAME") ?? "this master's name").replaceAll("'", "''");
  const statement =
    id === undefined
      ? `DELETE FROM fula_node.flags_in_use WHERE master = '${name}'`
      : `DELETE FROM masters WHERE id = '${id}'`;
  const reason = answer?.kind ?? "the password is not known";
  if (!purged.has("settings"))
    return [
      `This master's flags stay in ${database}, which can't be reached now (${reason}). While they are there, no master can revert the migrations that they need. Run leave again when the database can be reached, or run this there: ${statement}`,
    ];
  throw new OperatorError({
    exit: "unavailable",
    what: `This master's flags can't be removed from ${database}: ${reason}.`,
    why: "Without .env, nobody can do it later.",
    remedy: `Run again when the database answers, or without --purge settings. If it will never answer again, remove ${node.layout.envFile} by hand. This statement removes the flags: ${statement}`,
  });
}

/** What a leave means for other nodes and for later joins, a sentence each. */
export async function findConsequences(
  host: HostReader,
  { kind, layout, values }: LeavingNode,
  {
    purged,
    databases,
    otherMasters,
    name: fate,
  }: {
    readonly purged: ReadonlySet<Part>;
    readonly databases: readonly string[];
    /** The names of the other masters in its database. */
    readonly otherMasters: readonly string[];
    /** What becomes of the node's name at the master. */
    readonly name: "free" | "reserved" | "unknown";
  },
): Promise<readonly string[]> {
  const found: string[] = [];
  if (purged.has("settings") && (!purged.has("data") || databases.length > 0)) {
    const remaining = databases.length === 0 ? "" : ` (${databases.join(", ")})`;
    found.push(
      `Without .env, a later join can't open the data that stays${remaining}. Keep a copy of it on another machine.`,
    );
  }
  if (kind === "storage-node") {
    const forget = `fula-node node forget ${values("CLUSTER_PEERNAME") ?? "NAME"}`;
    const sentence = {
      free: "",
      reserved: ` Its name stays reserved: if the node does not come back, the master's operator must run \`${forget}\`.`,
      unknown: ` Whether its name is still reserved is not known here: if \`fula-node node list\` at the master shows it and the node does not come back, the master's operator must run \`${forget}\`.`,
    }[fate];
    found.push(`The pool forgets this peer within a minute.${sentence}`);
    return found;
  }
  const { snapshotsDir } = masterLayout(layout.baseDir);
  const names = (await host.files.list(snapshotsDir)) ?? [];
  const signed = names.filter((name) => name.endsWith(".manifest.sig")).length;
  const outcome = purged.has("snapshots") ? "to be removed" : "kept";
  found.push(
    ...othersOnDatabase(values, otherMasters),
    whoTrusts(values, otherMasters),
    signed === 0
      ? "There is no snapshot of the pinset on this machine (`fula-node snapshot take` makes one)."
      : `Signed snapshots of the pinset in ${snapshotsDir}: ${signed} (${outcome}). Keep copies on another machine.`,
  );
  return found;
}

/** The names of the other masters in the database of a master that leaves; none if it can't be read. */
export async function findOtherMasters(
  host: HostReader,
  { kind, values }: LeavingNode,
): Promise<readonly string[]> {
  const target = kind === "master" ? postgresTarget(values) : null;
  if (target === null || (await host.postgres.ask(target)).kind !== "open") return [];
  const masters = (await host.migrations.readMasters(target)) ?? [];
  return masters
    .filter(({ id, machine }) => machine !== null && id !== values("MASTER_ID"))
    .map(({ name }) => name);
}

/** What it means for other masters if the database of this machine stops: at most one sentence. */
function othersOnDatabase(values: Values, others: readonly string[]): readonly string[] {
  return others.length === 0 || isDatabaseElsewhere(values)
    ? []
    : [
        `Other masters use the database of this machine (${others.join(", ")}): without it, none of them works. Move it first: see docs/lost-master.md#the-one-with-the-database.`,
      ];
}

/** Who goes on to trust a master that left, and what ends it. */
function whoTrusts(values: Values, others: readonly string[]): string {
  const rest = "The nodes keep the pins that it made. Nobody serves its API in the meantime.";
  return others.length === 0
    ? `The nodes of the pool go on to trust this master's peer id. ${rest}`
    : `The other masters (${others.join(", ")}) and the nodes go on to trust this master's peer id. If it does not come back, run on each of these masters: fula-node trust remove ${values("CLUSTER_PEERNAME") ?? "NAME"}. Then \`fula-node status\` there lists the nodes that still trust it. ${rest}`;
}

/**
 * True for a key that fula-node may not have created, nor put there from a backup. Upstream's looks the same: only the journal shows
 * where it is from.
 */
async function isKeyInDoubt({ files }: HostReader, { kind, layout }: LeavingNode): Promise<boolean> {
  const { signingKey, journal } = masterLayout(layout.baseDir);
  if (kind !== "master" || (await files.stat(signingKey)) === null) return false;
  const told = (await files.readText(journal)) ?? "";
  return !told.includes('"kind":"make-signing-key"') && !told.includes('"step":"from-backup"');
}
