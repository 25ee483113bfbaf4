import { decideUpdater } from "../docker/compose-project.ts";
import { findCertificateProblems, findOldCaddy } from "../edge/certificate.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { MasterInvite } from "../federation/master-invite.ts";
import { lookUpPool } from "../federation/pool-lookup.ts";
import type { HostReader } from "../host.ts";
import { refusalOf } from "../pinset/alert-command.ts";
import { describeIdle } from "../settings/edge.ts";
import { isOurs, type MasterLayout, NAMES } from "../settings/layout.ts";
import { databaseSslOf, isDatabaseElsewhere, sslModeOf } from "../settings/postgres-target.ts";
import { savedValue, type Settings } from "../settings/settings.ts";
import type { Questions } from "../ui/ask.ts";
import { ADOPTIONS, takeOverSettings, withReplacedImages } from "./adopted-services.ts";
import { readAssignments } from "./assignments.ts";
import { canonicalBaseDir, SYSTEM } from "./base-dir.ts";
import { refuseOtherKind } from "./installed-node.ts";
import { findReachProblems } from "./database-reach.ts";
import type { JoinDeps, JoinFlags } from "./join-run.ts";
import { checkMaster } from "./preflight.ts";
import { findAuthConflicts, prepareMaster } from "./prepare-master.ts";
import { checkSharedDatabase, findInviteProblems, readInvited } from "./second-master.ts";
import {
  findUnclearKeys,
  markOffered,
  readMasterSettings,
  readSavedSettings,
  warnOfIgnored,
} from "./settings-source.ts";
import { whySilent } from "./silent-docker.ts";

/** The answers of the operator. */
interface Answers {
  readonly provisionWriter: boolean;
  readonly settings: ReadonlyMap<string, string>;
}

/** The desired state of a master: the input of a run, complete. */
export interface DesiredMaster {
  readonly settings: Settings;
  readonly provisionWriter: boolean;
  /** The invite with which this machine becomes another master of a pool. */
  readonly invite: MasterInvite | null;
}

/**
 * Resolves the settings of a join: reads them, asks the operator for missing ones, and gets the rest from the
 * pool. Throws one error with all problems, preflight included. Changes nothing.
 */
export async function resolveMaster(
  flags: JoinFlags,
  layout: MasterLayout,
  deps: JoinDeps,
): Promise<DesiredMaster> {
  const given = withReplacedImages(flags.replace, await readAssignments(flags, deps));
  const invited = await readInvited(flags, layout, deps);
  const assignments = new Map([...(invited?.values ?? []), ...given]);
  // Asking the Docker CLI takes longest: it runs meanwhile, and preflight takes the answer.
  if (deps.host.system.uid() === 0) deps.host.docker.composeVersion().catch(() => {});
  if (deps.host.system.uid() === 0) await refuseOtherKind(deps.host, "master");
  const first = await readMasterSettings(deps, layout.envFile, assignments);
  const saved = await readSavedSettings(deps, layout.envFile);
  const unclear = await findUnclearKeys(deps, saved, "master");
  const isClear = first.problems.length + unclear.length === 0;
  const asked = isClear ? await askMissing(deps, flags, layout, first.settings) : null;
  const provisionWriter = asked?.provisionWriter ?? flags.provisionWriter;
  for (const [key, value] of asked?.settings ?? []) assignments.set(key, value);
  for (const [key, value] of await readPoolMasters(deps, first.settings, provisionWriter))
    assignments.set(key, value);
  const resolved = await readMasterSettings(deps, layout.envFile, assignments);
  const { problems } = resolved;
  const idle = describeIdle(resolved.settings);
  warnOfIgnored(deps, { warnings: [...resolved.warnings, ...(idle === null ? [] : [idle])] });
  const offered = { values: invited?.values ?? new Map<string, string>(), by: "--invite" };
  const marked = markOffered(resolved.settings, offered, given);
  const settings = await adoptSettings(deps, flags, layout, marked);
  const missing = await requiredProblems(deps, { settings, layout, provisionWriter, adopt: flags.adopt });
  const invalid = new Set(problems.map(({ subject }) => subject));
  const ofInvite = invited === null ? [] : findInviteProblems(invited, given, settings);
  for (const { subject } of ofInvite) invalid.add(subject);
  const all = [
    ...problems,
    ...unclear,
    ...ofInvite,
    ...missing.filter(({ subject }) => !invalid.has(subject)),
  ];
  await checkMaster({ deps, layout, settings, ignored: flags.ignore, problems: all });
  await checkSharedDatabase(deps.host, {
    settings,
    invite: invited?.invite ?? null,
    saved: (key) => savedValue(saved, key),
  });
  if (flags.dryRun && !provisionWriter) await warnOfPoolName(deps, settings);
  return { settings, provisionWriter, invite: invited?.invite ?? null };
}

/** A dry run shows the plan of a writer that is not confirmed yet; confirmed, it needs the name of its pool. */
async function warnOfPoolName(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  settings: Settings,
): Promise<void> {
  const isElsewhere = settings.get("IPFS_CLUSTER_API_ADDR")?.origin !== "default";
  if (settings.has("CLUSTERNAME") || isElsewhere || host.system.uid() !== 0) return;
  if (await hasClusterContainer(host)) return;
  const text =
    "CLUSTERNAME is not set. A new writer needs the name of its pool: pass --provision-writer --set CLUSTERNAME=NAME.";
  reporter.listen({ type: "warning", text });
}

/** The settings, with those of the services that this run adopts. Without root, Docker can't be read. */
async function adoptSettings(
  deps: JoinDeps,
  { adopt }: JoinFlags,
  layout: MasterLayout,
  settings: Settings,
): Promise<Settings> {
  if (adopt.length === 0 || deps.host.system.uid() !== 0) return settings;
  const saved = await readSavedSettings(deps, layout.envFile);
  return takeOverSettings(deps.host, {
    adoption: ADOPTIONS.master,
    layout,
    adopt: new Set(adopt),
    settings,
    saved,
  });
}

/** Asks the operator the first questions, and returns the answers as settings; null if there is nobody to ask. */
async function askMissing(
  deps: JoinDeps,
  flags: JoinFlags,
  layout: MasterLayout,
  settings: Settings,
): Promise<Answers | null> {
  const { host, questions } = deps;
  if (questions === null || flags.dryRun || host.system.uid() !== 0) return null;
  // The settings are resolved again when Docker runs. Until then, there may be a writer.
  if ((await whySilent(host)) !== null) return null;
  const provisionWriter = flags.provisionWriter || (await askForWriter(deps, questions, layout, settings));
  if (!provisionWriter || settings.has("CLUSTERNAME") || (await hasClusterContainer(host))) {
    return { provisionWriter, settings: new Map() };
  }
  const name = await questions.text("Name of the pool (the same on every node of the pool)", "fula");
  return { provisionWriter, settings: new Map([["CLUSTERNAME", name]]) };
}

/** Asks whether to create a writer. This comes before the plan, since a new writer needs its own settings. */
async function askForWriter(
  deps: JoinDeps,
  questions: Questions,
  layout: MasterLayout,
  settings: Settings,
): Promise<boolean> {
  const { steps } = await prepareMaster(deps, {
    layout,
    settings,
    provisionWriter: false,
    imagesArchive: null,
  });
  const finding = await steps.find(({ id }) => id === "writer")?.probe(deps.host);
  if (finding?.state !== "absent" || finding.consent === undefined) return false;
  const { question, byDefault, remedy } = finding.consent;
  if (await questions.confirm(question, byDefault)) return true;
  throw new OperatorError({
    exit: "preflight",
    what: "A master needs a writer.",
    why: "You answered no.",
    remedy,
  });
}

/** Gets the other masters of the pool from the pool API, for a new writer, if POOL_API is set and no bootstrap address is. */
async function readPoolMasters(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  settings: Settings,
  provisionWriter: boolean,
): Promise<ReadonlyMap<string, string>> {
  const url = settings.get("POOL_API")?.value;
  if (url === undefined || !provisionWriter || settings.has("MASTER_CLUSTER_BOOTSTRAP")) return new Map();
  const { trustedPeers, bootstrap } = await lookUpPool(host.http, url);
  reporter.note(
    `The pool API lists ${trustedPeers.length} masters to trust: ${trustedPeers.join(", ")}; bootstrap: ${bootstrap}`,
  );
  return new Map([
    ["MASTER_CLUSTER_BOOTSTRAP", bootstrap],
    ["MASTER_CLUSTER_PEERIDS", settings.get("MASTER_CLUSTER_PEERIDS")?.value ?? trustedPeers.join(",")],
  ]);
}

async function requiredProblems(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  options: {
    readonly settings: Settings;
    readonly layout: MasterLayout;
    readonly provisionWriter: boolean;
    readonly adopt: readonly string[];
  },
): Promise<readonly Problem[]> {
  const { settings, layout, provisionWriter, adopt } = options;
  const problems: Problem[] = [];
  if (provisionWriter && !settings.has("CLUSTERNAME") && !(await hasClusterContainer(host))) {
    problems.push({
      subject: "CLUSTERNAME",
      what: "CLUSTERNAME is missing: a new writer needs the name of its pool.",
      remedy: "Pass --set CLUSTERNAME=NAME.",
    });
  }
  const { refusal } = host.system.uid() === 0 ? await decideUpdater(host, settings) : { refusal: null };
  if (refusal !== null && settings.get("AUTO_UPDATE")?.origin !== "saved") {
    problems.push({
      subject: "AUTO_UPDATE",
      what: `AUTO_UPDATE is true. ${refusal}`,
      remedy: "Leave it out. A new version of fula-node brings its new services.",
    });
  } else if (refusal !== null)
    reporter.listen({ type: "warning", text: `AUTO_UPDATE=true in .env has no effect. ${refusal}` });
  if (isDatabaseElsewhere((key) => settings.get(key)?.value) && !settings.has("POSTGRES_PASSWORD")) {
    problems.push({
      subject: "POSTGRES_PASSWORD",
      what: "POSTGRES_PASSWORD is missing: POSTGRES_HOST is a database on another machine.",
      remedy: "Pass --set-file POSTGRES_PASSWORD=PATH, or write it into .env.",
    });
  }
  const [directory, recipient] = ["BACKUP_DIR", "BACKUP_RECIPIENT"].map((key) => settings.has(key));
  if (directory !== recipient)
    problems.push({
      subject: directory === true ? "BACKUP_RECIPIENT" : "BACKUP_DIR",
      what: `${directory === true ? "BACKUP_DIR is set, and BACKUP_RECIPIENT" : "BACKUP_RECIPIENT is set, and BACKUP_DIR"} is missing: no backup would be made.`,
      remedy: "Set both, or none. docs/backup.md says how to make a key.",
    });
  problems.push(...(await findMistypedRecipient(settings.get("BACKUP_RECIPIENT")?.value)));
  const [backupDir, writerDir] = ["BACKUP_DIR", "WRITER_DIR"].map((key) => settings.get(key)?.value);
  const unfit = await unfitForBackups(host, layout, backupDir, writerDir);
  if (unfit !== null)
    problems.push({
      subject: "BACKUP_DIR",
      what: unfit,
      remedy: "Give the directory of another disk or of a share: --set BACKUP_DIR=DIR",
    });
  const command = settings.get("ALERT_COMMAND")?.value;
  const whyNot = command === undefined ? null : await refusalOf(host.files, command);
  if (whyNot !== null) {
    problems.push({
      subject: "ALERT_COMMAND",
      what: `ALERT_COMMAND can't be run: ${whyNot}.`,
      remedy:
        "Give an executable file that belongs to root. Only root may be able to write to it and to its directories.",
    });
  }
  return [
    ...problems,
    ...(await findReachProblems(host, { settings, layout, adopt })),
    ...(await findCaProblem(host, settings)),
    ...(await findPlainGateway({ host, reporter }, settings)),
    ...(host.system.uid() === 0 ? await findCertificateProblems(host, settings) : []),
    // While Docker is silent, the settings are resolved again once it runs.
    ...(host.system.uid() === 0 && (await whySilent(host)) === null
      ? await findOldCaddy(host, settings)
      : []),
    ...(await authProblems(host, settings, provisionWriter)),
  ];
}

/** The setting's rule knows the form of a recipient only. One that does not decode would fail each backup, at night. */
async function findMistypedRecipient(recipient: string | undefined): Promise<readonly Problem[]> {
  if (recipient === undefined) return [];
  // Loaded here: few runs need it.
  const { requireRecipients } = await import("../backup/encryption.ts");
  const subject = "BACKUP_RECIPIENT";
  try {
    requireRecipients(recipient, subject);
    return [];
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const { what, why = "", remedy = "" } = thrown;
    return [
      { subject, what: `${what} ${why}`, remedy: `${remedy} Then give it: --set ${subject}=age1RECIPIENT` },
    ];
  }
}

/** Why a directory gets no backups; null if it may. One that is not there yet is made by the first backup. */
async function unfitForBackups(
  { files }: Pick<JoinDeps["host"], "files">,
  { baseDir }: MasterLayout,
  directory: string | undefined,
  writerDir: string | undefined,
): Promise<string | null> {
  if (directory === undefined) return null;
  // A link to a share that is not mounted now leads nowhere: then the backup says so.
  const real = (await canonicalBaseDir({ files }, directory)) ?? directory;
  const leads = real === directory ? "" : `, which leads to ${real},`;
  for (const [whole, of] of [
    [baseDir, "master"],
    [writerDir, "writer"],
  ] as const)
    if (whole !== undefined && (real === whole || real.startsWith(`${whole}/`)))
      return `BACKUP_DIR (${directory})${leads} is in ${whole}: who removes the ${of} would remove its backups.`;
  if (SYSTEM.test(real))
    return `BACKUP_DIR (${directory})${leads} belongs to the system, or is emptied at a restart.`;
  const isFile = (await files.stat(directory))?.kind === "file";
  return isFile ? `BACKUP_DIR (${directory}) is a file, not a directory.` : null;
}

/**
 * Upstream's gateway is built without TLS: it connects to Postgres in plain text, whatever the settings are. With
 * `true`, 0.1.0 ran it anyway, so that node goes on with a warning.
 */
async function findPlainGateway(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  settings: Settings,
): Promise<readonly Problem[]> {
  const subject = "POSTGRES_SSL";
  const setting = settings.get(subject);
  const image = settings.get("GATEWAY_IMAGE")?.value ?? "";
  const mode = databaseSslOf((key) => settings.get(key)?.value);
  if (mode === false || host.system.uid() !== 0) return [];
  if ((await host.docker.image(image)) === null) return [];
  const without = `Remove that image (docker image rm ${image}) to run without the gateway.`;
  if (sslModeOf(setting?.value) === false) {
    const what = `POSTGRES_BIND is set, so Postgres lets nobody in without TLS, but the gateway (${image}) can't encrypt its connection to Postgres.`;
    return [{ subject: "POSTGRES_BIND", what, remedy: `${without} Or remove POSTGRES_BIND.` }];
  }
  const what = `${subject} is ${setting?.value}, but the gateway (${image}) can't encrypt its connection to Postgres.`;
  const remedy = `${without} Or, if you trust the network to the database: --set ${subject}=disable.`;
  if (setting?.origin !== "saved" || setting.value !== "true") return [{ subject, what, remedy }];
  reporter.listen({ type: "warning", text: `${what} ${remedy}` });
  return [];
}

/** The services' containers run as another user than root, and read the CA through a mount of this file. */
async function findCaProblem(host: HostReader, settings: Settings): Promise<readonly Problem[]> {
  const subject = "POSTGRES_SSL_CA";
  const path = settings.get(subject)?.value;
  if (path === undefined || host.system.uid() !== 0) return [];
  const stat = await host.files.stat(path);
  if (stat === null || stat.kind === "directory" || stat.kind === "other") {
    const what = `${subject} is ${path}, ${stat === null ? "which does not exist" : "which is not a file"}.`;
    return [{ subject, what, remedy: "Put the certificate of the database's CA there, in PEM form." }];
  }
  if ((stat.mode & 0o004) !== 0) return [];
  const what = `${subject} is ${path}, which the services' containers can't read: its mode is ${stat.mode.toString(8)}.`;
  return [{ subject, what, remedy: `A certificate is not secret: run \`chmod 644 ${path}\`.` }];
}

/** Without root, Docker can't be read, and preflight refuses the run. */
async function authProblems(
  host: HostReader,
  settings: Settings,
  provisionWriter: boolean,
): Promise<readonly Problem[]> {
  if (host.system.uid() !== 0) return [];
  const cluster = await host.docker.container(NAMES.cluster);
  const isOurWriter = cluster === null ? provisionWriter : isOurs(cluster);
  return await findAuthConflicts(host, { settings, isOurWriter });
}

/** False without root, since Docker then can't be read. Preflight refuses the run in that case. True if Docker is silent. */
async function hasClusterContainer(host: HostReader): Promise<boolean> {
  if (host.system.uid() !== 0) return false;
  return (await whySilent(host)) !== null || (await host.docker.container(NAMES.cluster)) !== null;
}
