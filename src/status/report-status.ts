import { EXIT_CODES, OperatorError, type VerbExit } from "../errors.ts";
import type { HostReader } from "../host.ts";
import {
  findInstalledNode,
  nameOf,
  type NodeKind,
  type NodeSigns,
  twoNodes,
} from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import { readSavedSettings } from "../join/settings-source.ts";
import { whySilent } from "../join/silent-docker.ts";
import {
  baseDirFlag,
  MASTER_BASE_DIR,
  masterLayout,
  STORAGE_BASE_DIR,
  storageLayout,
} from "../settings/layout.ts";
import { isDatabaseElsewhere } from "../settings/postgres-target.ts";
import { savedValue } from "../settings/settings.ts";
import { type Monotonic, monotonic, QUERY_MS, within } from "./collect.ts";
import {
  askDocker,
  askWithin,
  type Found,
  listContainers,
  NO_DOCKER,
  type StatusDeps,
} from "./look-at-node.ts";
import { lookOnce } from "./look-once.ts";
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
  const node = await lookAtInstalled(flags.baseDir, deps, clock);
  if ("leftAt" in node) return await reportLeft(node, deps);
  if ("left" in node) return reportNothing(flags.baseDir, node.left, deps);
  return print(node, flags.verbose === true, deps);
}

/**
 * Detects the node on this machine and looks at its parts, or returns what an earlier node left. Throws (`unavailable`,
 * `preflight`) if it is not known which node this is. Asks the machine best through lookOnce.
 */
export async function lookAtInstalled(
  baseDir: string | undefined,
  deps: StatusDeps,
  clock: Monotonic,
): Promise<Found | { readonly left: NodeSigns | null } | LeftNode> {
  const ask = askWithin(clock);
  const byFiles = await findInstalledNode({ ...deps.host, docker: NO_DOCKER }, baseDir);
  const likely = byFiles.answer === "none" || byFiles.answer === "both" ? null : byFiles.found;
  // Its code is loaded while Docker answers.
  if (likely !== null) void LOOKS[likely.kind]();
  const docker = { askedAtMs: clock.nowMs(), facts: askDocker(deps.host, ask) };
  // The part awaits it. Until then, an error must not count as unhandled.
  docker.facts.catch(() => {});
  const containers = listContainers(deps.host.docker, ask);
  const start = async (place: Place, host: HostReader): Promise<Found> => {
    const look = await LOOKS[place.kind]();
    return await look({ baseDir: place.baseDir, docker, containers, host }, deps, clock);
  };
  // A master's parts need not wait until Docker has confirmed it. A storage node may need Docker before it can ask.
  const isEarly = likely?.kind === "master" && !isLeftOver(likely);
  const early = isEarly ? start(likely, deps.host) : null;
  early?.catch(() => {});
  const node = await detect(deps.host, { baseDir, byFiles, clock });
  if ("leftAt" in node || "left" in node) return node;
  const host: HostReader = node.isDockerSilent ? { ...deps.host, docker: NO_DOCKER } : deps.host;
  const isConfirmed = likely?.kind === node.kind && likely.baseDir === node.baseDir;
  const found = (isConfirmed ? early : null) ?? start(node, host);
  return await found;
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

/** A node that left, with what it kept. */
interface LeftNode {
  readonly node: NodeSigns;
  readonly leftAt: string;
}

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
): Promise<(Place & { readonly isDockerSilent: boolean }) | { readonly left: NodeSigns | null } | LeftNode> {
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
  const silent = node.answer === "none" && !isDockerSilent ? await whySilent(host) : null;
  if (silent !== null) throw notDetected(silent);
  if (node.answer === "none") return { left: null };
  const leftAt = await findLeave(host, found);
  if (leftAt !== null) return { node: found, leftAt };
  if (isLeftOver(found)) return { left: found };
  return { kind: found.kind, baseDir: found.baseDir, isDockerSilent };
}

function isLeftOver({ signs }: NodeSigns): boolean {
  return signs.every(({ weight }) => weight === "remains");
}

/** When this node left: nothing of it is installed, and the last thing in its journal is a removal. Else null. */
async function findLeave({ files }: HostReader, { baseDir, signs }: NodeSigns): Promise<string | null> {
  if (signs.some(({ weight }) => weight === "installed")) return null;
  const last = (await files.readText(storageLayout(baseDir).journal))?.trim().split("\n").at(-1) ?? "";
  const read = JOURNAL_LINE.exec(last);
  return read === null ? null : (read[1] ?? null);
}

/** A line of the journal (engine/journal.ts) about a removal, which only `leave` makes. */
const JOURNAL_LINE = /^\{"at":"([^"]+)".*"change":\{"kind":"remove-[a-z]+".*"phase":"done"/;

async function reportLeft({ node, leftAt }: LeftNode, deps: StatusDeps): Promise<VerbExit> {
  const { reporter, version, host } = deps;
  const { kind, baseDir } = node;
  const isMaster = kind === "master";
  const saved = await readSavedSettings(deps, storageLayout(baseDir).envFile);
  const writerDir = savedValue(saved, "WRITER_DIR") ?? "/opt/fula-writer";
  const hasWriter = isMaster && (await host.files.stat(writerDir)) !== null;
  const command = `${isMaster ? REPAIR_MASTER : REPAIR_STORAGE}${hasWriter ? " --provision-writer" : ""}`;
  const here = baseDirFlag(baseDir, isMaster ? MASTER_BASE_DIR : STORAGE_BASE_DIR);
  // Its own database has left with it. In a shared one, it is remembered as removed while other masters are there.
  const sharesDatabase = isMaster && isDatabaseElsewhere((key) => savedValue(saved, key));
  const snapshots = isMaster ? masterLayout(baseDir).snapshotsDir : null;
  const hasSnapshots = snapshots !== null && (await host.files.stat(snapshots)) !== null;
  const signs = [...node.signs.map(({ what }) => what), ...(hasSnapshots ? [snapshots] : [])];
  const exit = EXIT_OF.attention;
  reporter.result({
    data: {
      ...emptyReport(version, baseDir),
      left: { kind, baseDir, at: leftAt, signs },
    },
    lines: [
      `fula-node ${version}`,
      "",
      `This ${nameOf(kind)} left on ${leftAt.slice(0, 16).replace("T", " ")} UTC.`,
      ...reporter.table([
        ...(sharesDatabase
          ? [
              [
                "First:",
                `if the pool has other masters, on one of them: fula-node trust add ${savedValue(saved, "CLUSTER_PEERNAME") ?? "NAME"}`,
              ],
            ]
          : []),
        ["To come back:", `${command}${here}`],
        ["It kept:", signs.join(", ")],
      ]),
      "",
      `There is no node to look at (exit ${EXIT_CODES[exit]}).`,
    ],
  });
  return exit;
}

/** What `--json` has where no node is installed. */
function emptyReport(version: string, baseDir: string | null): Readonly<Record<string, unknown>> {
  const exit = EXIT_OF.attention;
  return {
    verb: "status",
    version,
    kind: null,
    baseDir,
    items: [],
    pending: true,
    parts: [],
    verdict: "attention",
    exit,
    exitCode: EXIT_CODES[exit],
  };
}

function notDetected(cause: OperatorError | typeof LATE | string): OperatorError {
  const why =
    cause === LATE
      ? "Docker did not answer in time."
      : typeof cause === "string"
        ? `It does not answer: ${cause}.`
        : (cause.why ?? cause.what);
  return new OperatorError({
    exit: "unavailable",
    what: "It is not known which node is installed on this machine.",
    why: `Its files do not say it, and Docker can't be asked. ${why}`,
    remedy: "Look at `journalctl -u docker -n 50`, then run again.",
    ...(typeof cause === "string" ? {} : { cause }),
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
      ...emptyReport(version, baseDir ?? null),
      left: left && { kind: left.kind, baseDir: left.baseDir, signs: left.signs.map(({ what }) => what) },
    },
    lines: [
      `fula-node ${version}`,
      "",
      ...reporter.wrap(`No fula-node node is installed ${place}.`),
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
    lines: linesOf(
      { header, parts, notes, remark },
      { table: (rows) => reporter.table(rows), wrap: (text) => reporter.wrap(text) },
      verbose,
    ),
  });
  return exit;
}
