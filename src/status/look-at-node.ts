import type { DockerReader } from "../docker/engine.ts";
import { describe, look } from "../engine/plan.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { NodeKind } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import { whySilent } from "../join/silent-docker.ts";
import { PROBE_ID } from "../machine/http.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import type { SnapshotStore } from "../pinset/snapshot/store.ts";
import type { Values } from "../settings/context.ts";
import { judgeError, type Monotonic, type PartSpec, QUERY_MS, type TimedPart, within } from "./collect.ts";
import { type Containers, type DockerFacts, judgeDocker } from "./judge-docker.ts";
import { CRON_STEPS, type StepsSeen } from "./judge-steps.ts";
import { type HttpAnswer, type Judged, LATE, type Late, LOOK_AGAIN } from "./part.ts";
import type { Note } from "./screen.ts";

/** How long the look at the steps may take. A step asks more than one question. */
const STEPS_MS = 5_500;

/** Asks one question. Returns LATE if its answer does not arrive in QUERY_MS. */
export type Ask = <Answer>(question: () => Promise<Answer>) => Promise<Answer | Late>;

/** Makes the function that asks one question. */
export function askWithin(clock: Monotonic): Ask {
  return (question) => within(QUERY_MS, question, clock);
}

/** An answer over HTTP. The timeout is longer than the deadline, so that null always means: nothing listens there, or it broke off. */
export function getJson(
  { http }: Pick<HostReader, "http">,
  ask: Ask,
  url: string,
  method: "GET" | "POST" = "GET",
): Promise<HttpAnswer | Late> {
  return ask(() => http.json(url, { method, timeoutMs: QUERY_MS + 1_000, requestId: PROBE_ID }));
}

/** What Docker was asked, and when. */
export interface AskedDocker {
  readonly facts: Promise<DockerFacts>;
  readonly askedAtMs: number;
}

/** Asks the engine and Compose, at the start, while everything else is still being loaded. */
export async function askDocker({ docker, system }: HostReader, ask: Ask): Promise<DockerFacts> {
  const [engine, why, compose, program, unit] = await Promise.all([
    ask(() => docker.version()),
    ask(() => docker.unreachable()),
    ask(() => docker.composeVersion()),
    ask(() => system.which("dockerd")),
    // What systemd can't say is no fault of Docker's: the step docker reports it.
    ask(() => orNull(() => system.unit("docker.service"))),
  ]);
  return {
    engine,
    why,
    compose,
    isInstalled: program !== null,
    atBoot: unit === LATE ? LATE : (unit?.atBoot ?? null),
  };
}

/** The part of Docker itself. */
export function dockerPart({ facts, askedAtMs }: AskedDocker, repair: string): PartSpec {
  return { name: "Docker", askedAtMs, look: async () => judgeDocker(await facts, repair) };
}

/** All containers by name; null if no engine answers in time, or answers with an error. Docker's own part says so. */
export async function listContainers(docker: DockerReader, ask: Ask): Promise<Containers> {
  const [why, containers] = await Promise.all([
    ask(() => orNull(async () => (await docker.unreachable()) ?? "reachable")),
    ask(() => orNull(() => docker.containers())),
  ]);
  if (why !== "reachable" || containers === LATE || containers === null) return null;
  return new Map(containers.map((one) => [one.name, one]));
}

/** An engine that is not there, to look at a machine by its files alone. */
export const NO_DOCKER: DockerReader = {
  version: () => Promise.resolve(null),
  unreachable: () => Promise.resolve("Docker does not answer"),
  composeVersion: () => Promise.resolve(null),
  containers: () => Promise.resolve([]),
  container: () => Promise.resolve(null),
  definition: () => Promise.resolve(null),
  usersOf: () => Promise.resolve([]),
  image: () => Promise.resolve(null),
  volume: () => Promise.resolve(null),
  composeHashes: () => Promise.resolve({}),
  bridgeSubnets: () => Promise.resolve([]),
  listVolumes: () => Promise.resolve([]),
  listNetworks: () => Promise.resolve([]),
  listImages: () => Promise.resolve([]),
  logs: () => Promise.resolve(""),
  readArchive: () => Promise.resolve([]),
  openLog: () => Promise.resolve(null),
};

/** Steps that neither ask Docker nor depend on what it has. */
const OUTSIDE_DOCKER: ReadonlySet<string> = new Set([
  "docker",
  "cli",
  "signing-key",
  CRON_STEPS.daemon,
  ...CRON_STEPS.entries,
]);

/**
 * Looks at every step side by side, each with a deadline. A step that fails or hangs is listed as unchecked, and the
 * others are still seen. So is what an installed Docker would know while it does not run. `prepare` builds the steps, and
 * asks Docker for that.
 */
export async function lookAtSteps(
  prepare: () => Promise<readonly AnyStep[]>,
  host: HostReader,
  clock: Monotonic,
): Promise<StepsSeen> {
  const startMs = clock.nowMs();
  const [steps, silent] = await Promise.all([
    orWhy(STEPS_MS, prepare, clock),
    within(QUERY_MS, () => orNull(() => whySilent(host)), clock),
  ]);
  if ("summary" in steps) return { items: [], unchecked: [{ step: "every step", why: steps }] };
  const isSilent = typeof silent === "string";
  const leftMs = STEPS_MS - (clock.nowMs() - startMs);
  const looked = await Promise.all(
    steps.map(async (step) => {
      if (isSilent && !OUTSIDE_DOCKER.has(step.id)) return { step: step.id, why: SILENT };
      const item = await orWhy(leftMs, async () => describe(await look([step], host, new Set())), clock);
      return "summary" in item ? { step: step.id, why: item } : item;
    }),
  );
  return {
    items: looked.flatMap((one) => ("why" in one ? [] : one)),
    unchecked: looked.flatMap((one) => ("why" in one ? [one] : [])),
  };
}

const SILENT: Judged = {
  state: "unknown",
  summary: "Docker does not run",
  todo: "see the line of Docker",
  evidence: {},
};

/** The answer, or a Judged that says why there is none. */
export async function orWhy<Answer extends object>(
  deadlineMs: number,
  question: () => Promise<Answer>,
  clock: Monotonic,
): Promise<Answer | Judged> {
  try {
    const answer = await within(deadlineMs, question, clock);
    return answer === LATE
      ? { state: "unknown", summary: "no answer in time", todo: LOOK_AGAIN, evidence: {} }
      : answer;
  } catch (thrown) {
    return judgeError(thrown);
  }
}

/** The answer; null if it is an error for the operator, which another part shows. A bug is thrown on. */
export async function orNull<Answer>(question: () => Promise<Answer>): Promise<Answer | null> {
  try {
    return await question();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

/** Why something does not work, if it said so itself. A bug is thrown on. */
export function whyRefused(thrown: unknown): string {
  if (thrown instanceof OperatorError) return thrown.what;
  throw thrown;
}

/** What was found out about a node, before it is printed. */
export interface Found {
  readonly kind: NodeKind;
  readonly baseDir: string;
  /** `master berlin-1 of pool my-pool`. */
  readonly title: string;
  readonly parts: readonly TimedPart[];
  readonly notes: readonly Note[];
  readonly remark: string | null;
  /** More keys for `--json`. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** What `status` needs from the composition root. */
export interface StatusDeps extends JoinDeps {
  openSnapshots(directory: string): Promise<SnapshotStore>;
  /** Reads the first of these files that exists. */
  readVerifyingKey(paths: readonly string[]): Promise<VerifyingKey>;
}

/** What is known of a node before its parts are looked at. */
export interface Given {
  readonly baseDir: string;
  /** Both are asked once, at the start. */
  readonly docker: AskedDocker;
  readonly containers: Promise<Containers>;
  /** The machine, without Docker if it is silent: for what is read before the parts. */
  readonly host: HostReader;
}

/** Settings that no join would accept: then no step can be prepared. */
export function refuseProblems(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  const said = problems.map(({ subject, what }) => (what.startsWith(subject) ? what : `${subject}: ${what}`));
  throw new OperatorError({
    exit: "settings",
    what: said.join(" "),
    remedy: problems[0]?.remedy ?? "Pass --set KEY=VALUE, or correct .env.",
  });
}

/** The name of the node and of its pool, as far as they are known, and the directory if it is not the usual one. */
export function titleOf(noun: string, values: Values, baseDir: string, usual: string): string {
  const [name, pool] = [values("CLUSTER_PEERNAME"), values("CLUSTERNAME")];
  const place = baseDir === usual && pool !== undefined ? "" : ` · ${baseDir}`;
  return `${noun}${name === undefined ? "" : ` ${name}`}${pool === undefined ? "" : ` of pool ${pool}`}${place}`;
}

/** What the steps say, for `--json`. */
export function dataOf({ items, unchecked }: StepsSeen): Readonly<Record<string, unknown>> {
  return { items, unchecked: unchecked.map(({ step, why }) => ({ step, why: why.summary })) };
}
