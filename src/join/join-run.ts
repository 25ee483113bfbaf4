import type { Cluster, ClusterTarget } from "../cluster/client.ts";
import type { Listener, PlanItem, RunEvent } from "../engine/events.ts";
import { openJournal } from "../engine/journal.ts";
import { type Ask, run, type RunOutcome } from "../engine/run.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import type { NodesClient } from "../federation/announce-name.ts";
import type { Host } from "../host.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import type { Questions } from "../ui/ask.ts";
import type { Reporter } from "../ui/reporter.ts";
import { countOf, duration } from "../units.ts";
import { startDocker, whySilent } from "./silent-docker.ts";

/** What a join needs from the composition root. Each function lists the few members that it uses. */
export interface JoinDeps {
  readonly host: Host;
  readonly reporter: Reporter;
  /** Null if there is no terminal to ask on. */
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
  openNodesClient(storageApiUrl: string, ca: string | null): NodesClient;
  /** Loads what reads a public key from PEM; see parseVerifyingKey. */
  readonly loadKeyParser: () => Promise<(pem: string, path: string) => VerifyingKey>;
  /** Reads standard input to its end; at most 1 MiB. */
  readStdin(): Promise<string>;
}

/** Measures a verb without the time in which it waits for the operator's answers. */
export function startStopwatch({ host, questions }: Pick<JoinDeps, "host" | "questions">): {
  readonly questions: Questions | null;
  readonly elapsedMs: () => number;
} {
  const { clock } = host;
  const startedAt = clock.monotonicMs();
  let askedMs = 0;
  const apart = async <Answer>(ask: () => Promise<Answer>): Promise<Answer> => {
    const from = clock.monotonicMs();
    try {
      return await ask();
    } finally {
      askedMs += clock.monotonicMs() - from;
    }
  };
  return {
    questions: questions && {
      confirm: (...given) => apart(() => questions.confirm(...given)),
      text: (...given) => apart(() => questions.text(...given)),
    },
    elapsedMs: () => Math.round(clock.monotonicMs() - startedAt - askedMs),
  };
}

/**
 * A reporter that keeps the warnings of the preparation until the title and the plan come, or until `release`: the first
 * line says which program does what. The title is a note, so it is not kept.
 */
export function keepWarnings(reporter: Reporter): {
  readonly reporter: Reporter;
  readonly release: () => void;
} {
  let kept: RunEvent[] | null = [];
  const said = new Set<string>();
  const release = (): void => {
    const events = kept ?? [];
    kept = null;
    for (const event of events) reporter.listen(event);
  };
  return {
    release,
    reporter: {
      ...reporter,
      listen(event) {
        // The settings may be resolved twice.
        if (event.type === "warning" && said.has(event.text)) return;
        if (event.type === "warning") said.add(event.text);
        if (event.type === "warning" && kept !== null) return void kept.push(event);
        if (event.type === "planned") release();
        return reporter.listen(event);
      },
    },
  };
}

/**
 * Runs the steps of a join with a journal. Asks questions if there is a terminal. If an installed Docker does not run, it
 * is started first, in a run of its own: what it has can't be judged before. `prepare` gets true after that.
 */
export async function runJoin(
  deps: Pick<JoinDeps, "host" | "reporter" | "questions" | "pid" | "version">,
  options: {
    readonly verb: string;
    readonly baseDir: string;
    readonly flags: RunFlags;
    readonly journal: string;
    /** When the verb started, as ISO text. */
    readonly since: string;
    /** The steps, and the flags that give a consent. */
    readonly prepare: (
      startedDocker: boolean,
    ) => Promise<{ readonly steps: readonly AnyStep[]; readonly consents: ReadonlySet<string> }>;
  },
): Promise<RunOutcome> {
  const { host, reporter, questions, pid, version } = deps;
  const { verb, baseDir, flags, journal: path, since, prepare } = options;
  const listenAt =
    (placeOf: (items: readonly PlanItem[]) => string): Listener =>
    (event) => {
      if (event.type === "planned" && !isUpToDate(event.items))
        reporter.note(`fula-node ${version} · ${verb} · ${baseDir} (${placeOf(event.items)})`);
      reporter.listen(event);
    };
  const { dryRun, yes } = flags;
  const ask: Ask =
    questions === null || dryRun ? null : (question, byDefault) => questions.confirm(question, byDefault);
  let first: RunOutcome | null = null;
  if ((await whySilent(host)) !== null) {
    const listen = listenAt(() => "Docker does not run");
    first = await startDocker(deps, { listen, ask, dryRun, yes, journal: path, since });
    reporter.note(
      dryRun
        ? "  What is in Docker can't be judged now: a run starts Docker, then looks again."
        : "Docker runs. What it has can be judged only now.",
    );
    if (dryRun) return first;
  }
  const { steps, consents } = await prepare(first !== null);
  const outcome = await run({
    steps,
    host,
    journal: openJournal({
      files: host.files,
      path,
      attempt: `${since}-${pid}`,
      version,
      now: () => host.clock.now(),
    }),
    listen: listenAt(describePlace),
    ask,
    dryRun,
    yes,
    adopted: checkAdopt(
      flags.adopt,
      steps.map(({ id }) => id),
    ),
    consents,
  });
  const changes = [...(first?.changes ?? []), ...outcome.changes];
  return { ...outcome, changes };
}

function isUpToDate(items: readonly PlanItem[]): boolean {
  return items.every(({ state, changes }) => changes.length === 0 && state !== "foreign");
}

/** What a newer version brings anew, or is no part of the node itself. */
const RENEWED: ReadonlySet<string> = new Set(["docker", "cli", "images", "service-image", "cron"]);

/** A box that was joined has a program, settings or a compose file. A join that was interrupted left something absent. */
function describePlace(items: readonly PlanItem[]): string {
  const own = new Set(["cli", "env-file", "compose-file"]);
  const isThere = ({ state }: PlanItem) => state === "ours" || state === "drifted";
  if (!items.some((item) => own.has(item.step) && isThere(item))) return "not installed yet";
  const isChanged = ({ state, settings = [] }: PlanItem) => state === "drifted" && settings.length > 0;
  if (items.some(isChanged)) return "installed, changing";
  const lacks = items.some(
    ({ step, state, changes }) => state === "absent" && changes.length > 0 && !RENEWED.has(step),
  );
  return lacks ? "not completely installed" : "installed";
}

/** What the operator can do after a join, and the command for it. */
export type NextStep = readonly [purpose: string, command: string];

/** Prints what a join did, and returns its exit. */
export async function closeJoin(
  { reporter, version }: Pick<JoinDeps, "reporter" | "version">,
  outcome: RunOutcome,
  options: {
    readonly verb: string;
    readonly baseDir: string;
    /** How long the whole verb took. */
    readonly durationMs: number;
    readonly next: readonly NextStep[];
    /** What `status` shows as left to do, a short line each: this node itself works. */
    readonly left?: readonly string[];
  },
): Promise<VerbExit> {
  const { verb, baseDir, durationMs, next, left = [] } = options;
  const works = (words: string) => (left.length === 0 ? words : "");
  const { dryRun, changes, plan } = outcome;
  await reporter.close();
  const pending = plan.some((item) => item.changes.length > 0);
  const late = unplanned(outcome);
  const upToDate = `Nothing to do: all ${plan.length} things are up to date`;
  // A dry run with changes ends with its plan, which says that nothing has been changed.
  const dryLines = pending ? [] : [`${upToDate}.`];
  const runLines =
    changes.length === 0
      ? [`${upToDate}${works(", and everything works")}.`, ...left]
      : [
          "",
          `Done in ${duration(durationMs)}: ${countOf(changes.length, "change")}${works(", everything works")}.`,
          ...left,
          ...(late.length === 0
            ? []
            : [
                "Also done, as it showed only during the run",
                ...reporter.table(late.map((one) => ["", one])),
              ]),
          ...reporter.table(next),
        ];
  reporter.result({ data: { verb, version, baseDir, ...outcome }, lines: dryRun ? dryLines : runLines });
  return dryRun && pending ? "pending" : "ok";
}

/** What a run did and its plan does not have: what only shows once an earlier change is made. */
function unplanned({ plan, changes }: RunOutcome): readonly string[] {
  const planned = new Set(plan.flatMap((item) => item.changes.map(({ summary }) => summary)));
  return changes.flatMap(({ change: { summary } }) => (planned.has(summary) ? [] : [summary]));
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

/** The flags of every kind of join. */
interface RunFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly set: readonly string[];
  readonly setFile?: readonly string[];
  readonly adopt: readonly string[];
  readonly ignore: readonly string[];
  readonly images?: string;
}

/** The flags of join-as-master, as commander returns them. */
export interface JoinFlags extends RunFlags {
  readonly provisionWriter: boolean;
  /** The adopted services that fula-node's own may replace. */
  readonly replace: readonly string[];
  /** The invite of another master: the token, `@FILE`, or `-` for standard input. */
  readonly invite?: string;
  readonly fingerprint?: string;
  /** True for an upgrade without a backup before it. */
  readonly withoutBackup?: boolean;
  /** An archive of `backup create`: the machine becomes the master that it is of. */
  readonly fromBackup?: string;
  /** The name of the machine that the backup is of, as a confirmation that it is off. */
  readonly oldMachineIsOff?: string;
}

/** The flags of join-as-storage-node, as commander returns them. */
export interface StorageFlags extends RunFlags {
  /** The token, `@FILE`, or `-` for standard input. */
  readonly invite?: string;
  readonly fingerprint?: string;
  readonly acceptPoolChange: boolean;
  /** Allows plain http to another host for the pool API and the storage API. */
  readonly allowHttp: boolean;
  /** False for `--no-register`. */
  readonly register: boolean;
}
