import type { PlanItem } from "../engine/events.ts";
import { openJournal } from "../engine/journal.ts";
import { run, type RunOutcome } from "../engine/run.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { RULES } from "../settings/rules.ts";
import type { Cluster, ClusterTarget } from "../cluster/client.ts";
import type { NodesClient } from "../federation/announce-name.ts";
import type { Host } from "../host.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import type { Questions } from "../ui/ask.ts";
import type { Reporter } from "../ui/reporter.ts";

/** What a join takes from the composition root; each part of it names the few that it needs. */
export interface JoinDeps {
  readonly host: Host;
  readonly reporter: Reporter;
  /** Null: there is nobody to ask. */
  readonly questions: Questions | null;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** The root of the running package: bin/, dist/, compose/, migrations/. */
  readonly packageDir: string;
  readonly nodePath: string;
  readonly hostname: string;
  readonly pid: number;
  /** Lower-case hex sha256. */
  readonly hash: (text: string) => string;
  openCluster(target: ClusterTarget): Cluster;
  openNodesClient(storageApiUrl: string): NodesClient;
  readonly parseVerifyingKey: (pem: string, path: string) => VerifyingKey;
  /** Standard input to its end; at most 1 MiB. */
  readStdin(): Promise<string>;
}

/** Runs the steps of a join with a journal, and asks a person where there is one. */
export async function runJoin(
  {
    host,
    reporter,
    questions,
    pid,
    version,
  }: Pick<JoinDeps, "host" | "reporter" | "questions" | "pid" | "version">,
  options: {
    readonly steps: readonly AnyStep[];
    readonly flags: RunFlags;
    readonly journal: string;
    /** When the verb began, as ISO text. */
    readonly since: string;
    /** Flags that give a consent. */
    readonly consents: ReadonlySet<string>;
  },
): Promise<RunOutcome> {
  const { steps, flags, journal, since, consents } = options;
  return await run({
    steps,
    host,
    journal: openJournal({
      files: host.files,
      path: journal,
      attempt: `${since}-${pid}`,
      version,
      now: () => host.clock.now(),
    }),
    listen: reporter.listen,
    ask:
      questions === null || flags.dryRun
        ? null
        : (question, byDefault) => questions.confirm(question, byDefault),
    dryRun: flags.dryRun,
    yes: flags.yes,
    adopted: checkAdopt(
      flags.adopt,
      steps.map(({ id }) => id),
    ),
    consents,
  });
}

/** Tells what a join did, and with which exit it ends. */
export async function closeJoin(
  { reporter, version }: Pick<JoinDeps, "reporter" | "version">,
  outcome: RunOutcome,
  tell: { readonly verb: string; readonly baseDir: string; readonly done: readonly string[] },
): Promise<VerbExit> {
  const { verb, baseDir, done } = tell;
  const { dryRun, changes, plan } = outcome;
  await reporter.close();
  const count = changes.length === 1 ? "one change" : `${changes.length} changes`;
  const lines = dryRun
    ? ["Dry run: nothing was changed."]
    : changes.length === 0
      ? ["Everything works; nothing had to be changed."]
      : [`Done: ${count}, and everything works.`, ...done];
  reporter.result({ data: { verb, version, baseDir, ...outcome }, lines });
  return dryRun && plan.some((item) => item.changes.length > 0) ? "pending" : "ok";
}

/** The base directory as given. Throws (`usage`) for one that can't be used. */
export function checkBaseDir(baseDir: string, byDefault: string): string {
  if (RULES.path.holds(baseDir) && !baseDir.endsWith("/") && !baseDir.includes("..")) return baseDir;
  throw new OperatorError({
    exit: "usage",
    what: `--base-dir is ${JSON.stringify(baseDir)}; it must be ${RULES.path.say}.`,
    remedy: `Leave it out for ${byDefault}.`,
  });
}

function checkAdopt(adopt: readonly string[], known: readonly string[]): ReadonlySet<string> {
  const unknown = adopt.filter((id) => !known.includes(id));
  if (unknown.length === 0) return new Set(adopt);
  throw new OperatorError({
    exit: "usage",
    what: `There is no step ${unknown.join(", ")}.`,
    remedy: `Steps are: ${known.join(", ")}.`,
  });
}

/** The flags that every kind of join has. */
interface RunFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly set: readonly string[];
  readonly adopt: readonly string[];
  readonly ignore: readonly string[];
  readonly images?: string;
}

/** The flags of join-as-master as commander gives them. */
export interface JoinFlags extends RunFlags {
  readonly provisionWriter: boolean;
}

/** The flags of join-as-storage-node as commander gives them. */
export interface StorageFlags extends RunFlags {
  /** The token, `@FILE`, or `-` for standard input. */
  readonly invite?: string;
  readonly fingerprint?: string;
  readonly acceptPoolChange: boolean;
  readonly allowHttpPool: boolean;
  /** False for `--no-register`. */
  readonly register: boolean;
}

/** What `status` says of one thing: what is wrong or to be done, else what was seen. */
export function sentenceOf({ state, why, drift, changes, evidence }: PlanItem): string {
  if (state === "foreign") return why ?? "";
  if (state === "drifted") return drift.join("; ");
  if (state === "absent") return changes.map(({ summary }) => summary).join("; ");
  return Object.entries(evidence)
    .map(([name, seen]) => `${name}: ${seen}`)
    .slice(0, 4)
    .join("; ")
    .replaceAll(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1");
}
