import type { BackupManifest } from "../../backup/backup-manifest.ts";
import { SILENT_MASTER_MS } from "../../database/masters.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { parseEnvFile } from "../../settings/env-file.ts";
import { isDatabaseElsewhere, postgresTarget } from "../../settings/postgres-target.ts";
import { savedValue } from "../../settings/settings.ts";
import type { Questions } from "../../ui/ask.ts";
import { age } from "../../units.ts";

/** The name for `--ignore`. */
export const OLD_MASTER_CHECK = "old-master";
const HEALTH_TIMEOUT_MS = 5_000;
const CLUSTER_PORT = 9096;

/** What is known of the machine that a backup is of. */
interface OldMachine {
  /** A sentence that says how it was seen; null if it was not. */
  readonly lives: string | null;
  /** True if something that would know it was asked, and said that it is gone. */
  readonly isKnownToBeGone: boolean;
}

/** Looks for signs of life of the master that a backup is of: its heartbeat in a database elsewhere, its storage API, its ipfs-cluster. */
export async function findOldMachine(
  host: HostReader,
  { manifest, env }: { readonly manifest: BackupManifest; readonly env: string },
): Promise<OldMachine> {
  const file = parseEnvFile(env);
  const values = (key: string) => (file.ok ? savedValue(file, key) : undefined);
  const silentMs = await readSilence(host, values);
  if (silentMs !== null && silentMs < SILENT_MASTER_MS)
    return {
      lives: `It wrote to the database at ${values("POSTGRES_HOST") ?? ""} ${age(Math.max(0, silentMs))} ago. Also after it was turned off, this is refused until that is ${age(SILENT_MASTER_MS)} ago.`,
      isKnownToBeGone: false,
    };
  const url = values("STORAGE_API_URL");
  if (url !== undefined && (await answersAsMaster(host, url)))
    return { lives: `${url} answers as the storage API of a master.`, isKnownToBeGone: false };
  const peer = await findPeer(host, manifest, values);
  if (peer !== null)
    return { lives: `Something answers at ${peer}, where its ipfs-cluster was.`, isKnownToBeGone: false };
  return { lives: null, isKnownToBeGone: silentMs !== null && manifest.master.id !== null };
}

/** How long ago the master wrote to a database on another machine, in ms; null if it did not, or that can't be asked. */
async function readSilence(
  host: HostReader,
  values: (key: string) => string | undefined,
): Promise<number | null> {
  const target = postgresTarget(values);
  if (!isDatabaseElsewhere(values) || target === null) return null;
  if ((await host.postgres.ask(target)).kind !== "open") return null;
  const masters = (await host.migrations.readMasters(target)) ?? [];
  return masters.find(({ id }) => id === values("MASTER_ID"))?.heartbeatAgeMs ?? null;
}

/** Where the old ipfs-cluster could answer still. On this machine, which is empty, nothing does. */
async function findPeer(
  { system }: Pick<HostReader, "system">,
  { master }: BackupManifest,
  values: (key: string) => string | undefined,
): Promise<string | null> {
  const url = values("STORAGE_API_URL") ?? "";
  const hosts = [
    master.hostname,
    values("PUBLIC_HOST"),
    values("POSTGRES_BIND"),
    URL.canParse(url) ? new URL(url).hostname : undefined,
  ].filter((one) => one !== undefined && one !== "");
  const asked = [...new Set(hosts)];
  const answers = await Promise.all(
    asked.map((one) => system.answersTcp(one ?? "", CLUSTER_PORT, HEALTH_TIMEOUT_MS)),
  );
  const found = asked.find((_, index) => answers[index]);
  return found === undefined ? null : `${found}:${CLUSTER_PORT}`;
}

/** Only a fula-node says its version beside its checks. */
async function answersAsMaster({ http }: Pick<HostReader, "http">, url: string): Promise<boolean> {
  const answer = await http.json(`${url.replace(/\/+$/, "")}/health`, {
    timeoutMs: HEALTH_TIMEOUT_MS,
    isRemote: true,
    maxBytes: 64 * 1024,
  });
  const body = answer?.body as { version?: unknown; checks?: unknown } | null | undefined;
  return typeof body?.version === "string" && typeof body.checks === "object";
}

/** Throws (`foreign`) if the old machine lives. */
export function refuseLiving(
  { master: { hostname } }: BackupManifest,
  { lives }: OldMachine,
  isIgnored: boolean,
): void {
  if (lives === null || isIgnored) return;
  throw new OperatorError({
    exit: "foreign",
    what: `The master of this backup, ${hostname}, still lives.`,
    why: `${lives} Two machines with one identity break the pinset of both.`,
    remedy: `Turn ${hostname} off for good, then run again. If something else answers there: --ignore ${OLD_MASTER_CHECK}`,
  });
}

/**
 * Throws (`foreign`) while the old machine lives, and (`preflight`) if nobody can say that it does not and the operator has not typed
 * its name. Two machines with one identity break the pinset of both.
 */
export async function requireOldMachineGone(
  { host, questions }: { readonly host: HostReader; readonly questions: Questions | null },
  preview: { readonly manifest: BackupManifest; readonly env: string },
  given: { readonly name: string | undefined; readonly isIgnored: boolean; readonly dryRun: boolean },
): Promise<void> {
  const { hostname } = preview.manifest.master;
  const found = await findOldMachine(host, preview);
  refuseLiving(preview.manifest, found, given.isIgnored);
  if (found.isKnownToBeGone || given.dryRun) return;
  const question = `${hostname} must be off and stay off. If it is, type its name`;
  const typed = given.name ?? (await questions?.text(question, ""));
  if (typed === hostname) return;
  throw new OperatorError({
    exit: "preflight",
    what: `Confirmation required: ${hostname}, whose backup this is, must be off and stay off.`,
    why: `${typed === undefined ? "There is no terminal to ask on." : "The given name is another one."} Two machines with one identity break the pinset of both.`,
    remedy: `Turn it off, then run again with --old-machine-is-off ${hostname}`,
  });
}
