import type { HostReader } from "../host.ts";
import { EXIT_CODES, OperatorError, type VerbExit } from "../errors.ts";
import {
  findInstalledNode,
  nameOf,
  type NodeKind,
  type NodeSigns,
  twoNodes,
} from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import { type Monotonic, monotonic, QUERY_MS, within } from "./collect.ts";
import { lookOnce } from "./look-once.ts";
import {
  askDocker,
  askWithin,
  type Found,
  listContainers,
  NO_DOCKER,
  type StatusDeps,
} from "./look-at-node.ts";
import { EXIT_OF, LATE, REPAIR_MASTER, REPAIR_STORAGE, verdictOf } from "./part.ts";
import { linesOf } from "./screen.ts";

/** How long Docker may take to say which node this is, if the files say it too. */
const DETECTION_MS = 1_000;

type Flags = { readonly baseDir?: string; readonly verbose?: boolean };

/** Reports how the node on this machine stands, of either kind. Changes nothing. */
export async function reportStatus(
  flags: Flags,
  given: StatusDeps,
  clock: Monotonic = monotonic,
): Promise<VerbExit> {
  const deps = { ...given, host: lookOnce(given.host) };
  const ask = askWithin(clock);
  const byFiles = await findInstalledNode({ ...deps.host, docker: NO_DOCKER }, flags.baseDir);
  const likely = byFiles.answer === "none" || byFiles.answer === "both" ? null : byFiles.found;
  // Its code is loaded while Docker answers.
  if (likely !== null) void LOOKS[likely.kind]();
  const docker = { askedAtMs: clock.nowMs(), facts: askDocker(deps.host.docker, ask) };
  // The part awaits it. Until then, an error must not count as unhandled.
  docker.facts.catch(() => {});
  const containers = listContainers(deps.host.docker, ask);
  const start = async ({ kind, baseDir }: Place, host: HostReader): Promise<Found> => {
    const look = await LOOKS[kind]();
    return await look({ baseDir, docker, containers, host }, deps, clock);
  };
  // A master's parts need not wait until Docker has confirmed it. A storage node may need Docker before it can ask.
  const isEarly = likely?.kind === "master" && !isLeftOver(likely);
  const early = isEarly ? start(likely, deps.host) : null;
  early?.catch(() => {});
  const node = await detect(deps.host, { baseDir: flags.baseDir, byFiles, clock });
  if ("left" in node) return reportNothing(flags.baseDir, node.left, deps);
  const host: HostReader = node.isDockerSilent ? { ...deps.host, docker: NO_DOCKER } : deps.host;
  const isConfirmed = likely?.kind === node.kind && likely.baseDir === node.baseDir;
  const found = (isConfirmed ? early : null) ?? start(node, host);
  return print(await found, flags.verbose === true, deps);
}

/** Where a node is. */
interface Place {
  readonly kind: NodeKind;
  readonly baseDir: string;
}

/** Each loads what its kind of node needs. */
const LOOKS = {
  master: async () => (await import("./master-parts.ts")).lookAtMaster,
  "storage-node": async () => (await import("./storage-parts.ts")).lookAtStorage,
} as const;

/**
 * Which node is installed: what the files say, and Docker if it answers. `isDockerSilent`: only its files were looked at.
 * `left`: none is; what an earlier one left.
 */
async function detect(
  host: HostReader,
  given: {
    readonly baseDir: string | undefined;
    readonly byFiles: Awaited<ReturnType<typeof findInstalledNode>>;
    readonly clock: Monotonic;
  },
): Promise<(Place & { readonly isDockerSilent: boolean }) | { readonly left: NodeSigns | null }> {
  const { baseDir, byFiles, clock } = given;
  const whole = findInstalledNode(host, baseDir).catch((thrown: unknown) => {
    if (thrown instanceof OperatorError && thrown.exit === "unavailable") return thrown;
    throw thrown;
  });
  const isClear = byFiles.answer !== "none" && byFiles.answer !== "both";
  const answer = await within(isClear ? DETECTION_MS : QUERY_MS, () => whole, clock);
  const isDockerSilent = answer === LATE || answer instanceof OperatorError;
  if (isDockerSilent && !isClear) throw notDetected(answer);
  const node = isDockerSilent ? byFiles : answer;
  const { found, other } = node;
  if (node.answer === "both" && other !== null)
    throw twoNodes([found, other], "Select one of them: --base-dir DIR.");
  if (node.answer === "none") return { left: null };
  if (isLeftOver(found)) return { left: found };
  return { kind: found.kind, baseDir: found.baseDir, isDockerSilent };
}

function isLeftOver({ signs }: NodeSigns): boolean {
  return signs.every(({ weight }) => weight === "remains");
}

function notDetected(cause: OperatorError | typeof LATE): OperatorError {
  const why = cause === LATE ? "Docker did not answer in time." : (cause.why ?? cause.what);
  return new OperatorError({
    exit: "unavailable",
    what: "It is not known which node is installed on this machine.",
    why: `Its files do not say it, and Docker can't be asked. ${why}`,
    remedy: "Look at `journalctl -u docker -n 50`, then run again.",
    cause,
  });
}

function reportNothing(
  baseDir: string | undefined,
  left: NodeSigns | null,
  { reporter, version }: JoinDeps,
): VerbExit {
  const place = baseDir === undefined ? "on this machine" : `in ${baseDir}`;
  const exit = EXIT_OF.attention;
  reporter.result({
    data: {
      verb: "status",
      version,
      kind: null,
      baseDir: baseDir ?? null,
      left: left && { kind: left.kind, baseDir: left.baseDir, signs: left.signs.map(({ what }) => what) },
      items: [],
      pending: true,
      parts: [],
      verdict: "attention",
      exit,
      exitCode: EXIT_CODES[exit],
    },
    lines: [
      `fula-node ${version}`,
      "",
      `No fula-node node is installed ${place}.`,
      ...reporter.table([
        ["Make it the master of a pool:", REPAIR_MASTER],
        ["Make it a storage node of a pool:", `${REPAIR_STORAGE} --invite TOKEN`],
      ]),
      ...(left === null
        ? []
        : [
            "",
            `What a ${nameOf(left.kind)} left here:`,
            ...reporter.table([[left.signs.map(({ what }) => what).join(", ")]]),
          ]),
      "",
      `There is no node to look at (exit ${EXIT_CODES[exit]}).`,
    ],
  });
  return exit;
}

function print(
  { kind, baseDir, title, parts, notes, remark, data }: Found,
  verbose: boolean,
  { reporter, version }: JoinDeps,
): VerbExit {
  const verdict = verdictOf(parts);
  const exit = EXIT_OF[verdict];
  const header = `fula-node ${version} · ${title}`;
  reporter.result({
    data: {
      verb: "status",
      version,
      kind,
      baseDir,
      ...data,
      parts,
      notes: Object.fromEntries(notes.map(({ name, text }) => [name, text])),
      verdict,
      exit,
      exitCode: EXIT_CODES[exit],
    },
    lines: linesOf({ header, parts, notes, remark }, (rows) => reporter.table(rows), verbose),
  });
  return exit;
}
