import { OperatorError } from "../errors.ts";
import { findInstalledNode, nameOf, type NodeKind, type NodeSigns } from "../join/installed-node.ts";
import { contextOfMaster, contextOfStorageNode } from "../join/preflight.ts";
import { openStorageSource, readMasterSettings, readSavedSettings } from "../join/settings-source.ts";
import { readKnownSecrets } from "../logs/known-secrets.ts";
import { createRedactor, type Redact } from "../logs/redact.ts";
import {
  baseDirFlag,
  isOurs,
  MASTER_BASE_DIR,
  masterLayout,
  NAMES,
  STORAGE_BASE_DIR,
  STORAGE_NAMES,
  storageLayout,
} from "../settings/layout.ts";
import type { Settings } from "../settings/settings.ts";
import { judgeError, type Monotonic } from "../status/collect.ts";
import { NO_DOCKER, type StatusDeps } from "../status/look-at-node.ts";
import { lookOnce } from "../status/look-once.ts";
import { REPAIR_MASTER, REPAIR_STORAGE } from "../status/part.ts";
import { lookAtInstalled } from "../status/report-status.ts";
import { type Examined, makeCheck, severityOf } from "./doctor-check.ts";
import { DOCTOR_CHECKS } from "./doctor-checks.ts";
import { type Finding, sortFindings } from "./finding.ts";
import { findingsOfPreflight } from "./from-preflight.ts";
import { findingsOfStatus } from "./from-status.ts";

/** What `doctor` knows about this machine. */
export interface Diagnosis {
  /** Null if no node is installed, or it is not known which one. */
  readonly kind: NodeKind | null;
  readonly baseDir: string;
  /** `master berlin-1 of pool my-pool`. */
  readonly title: string;
  /** The most serious first. */
  readonly findings: readonly Finding[];
  readonly durationMs: number;
}

/** Makes every check of this machine side by side, each with its deadline. Changes nothing, and throws only for a bug. */
export async function examine(
  baseDir: string | undefined,
  given: StatusDeps,
  clock: Monotonic,
): Promise<Diagnosis> {
  const startMs = clock.nowMs();
  const warnings = new Set<string>();
  const reporter: StatusDeps["reporter"] = {
    ...given.reporter,
    // A warning is a finding here, and several parts give the same one.
    listen: (event) => void (event.type === "warning" && warnings.add(event.text)),
  };
  const deps: StatusDeps = { ...given, reporter, host: lookOnce(given.host) };
  const looking = lookAtNode(baseDir, deps, clock);
  looking.catch(() => {});
  // What the files say is right on nearly every machine: the checks need not wait for all parts.
  const likely = await guess(baseDir, deps);
  const checking = checkMachine(likely, deps, clock);
  checking.catch(() => {});
  const { place, title, findings } = await looking;
  const redact = await redactorOf(place.baseDir, deps);
  const isSame = place.kind === likely.kind && place.baseDir === likely.baseDir;
  const checked = await (isSame ? checking : checkMachine(place, deps, clock));
  return {
    ...place,
    title,
    findings: sortFindings(
      [...findings, ...checked, ...[...warnings].map(ofWarning)].map((one) => redacted(one, redact)),
    ),
    durationMs: Math.round(clock.nowMs() - startMs),
  };
}

/** Takes out what a log, a health check or an answer had in it. Remedies are our own words. */
function redacted(finding: Finding, redact: Redact): Finding {
  const evidence = Object.entries(finding.evidence).map(([key, value]) => [key, redact(value)] as const);
  return { ...finding, what: redact(finding.what), evidence: Object.fromEntries(evidence) };
}

/** What takes the secrets of the node in this directory out of a text. */
export async function redactorOf(
  baseDir: string,
  { host, environment }: Pick<StatusDeps, "host" | "environment">,
): Promise<Redact> {
  return createRedactor(await readKnownSecrets(host, masterLayout(baseDir), environment));
}

/** Adopted containers have no label of ours. */
const NAMES_HERE: ReadonlySet<string> = new Set([...Object.values(NAMES), ...Object.values(STORAGE_NAMES)]);

/** Where a node is; `kind` is null if there is none, or it is not known. */
interface Place {
  readonly kind: NodeKind | null;
  readonly baseDir: string;
}

/** What the files say. */
async function guess(baseDir: string | undefined, { host }: StatusDeps): Promise<Place> {
  const { answer, found } = await findInstalledNode({ ...host, docker: NO_DOCKER }, baseDir);
  const isLeftOver = found.signs.every(({ weight }) => weight === "remains");
  const kind = answer === "none" || answer === "both" || isLeftOver ? null : answer;
  return { kind, baseDir: found.baseDir };
}

/** What the parts of the installed node say. An error that leaves nothing to look at is a finding, too. */
async function lookAtNode(
  baseDir: string | undefined,
  deps: StatusDeps,
  clock: Monotonic,
): Promise<{ readonly place: Place; readonly title: string; readonly findings: readonly Finding[] }> {
  try {
    const node = await lookAtInstalled(baseDir, deps, clock);
    if (!("left" in node) && !("leftAt" in node)) {
      const { kind, title } = node;
      return { place: { kind, baseDir: node.baseDir }, title, findings: findingsOfStatus(node) };
    }
    const former = "leftAt" in node ? node.node : node.left;
    const place = { kind: null, baseDir: former?.baseDir ?? baseDir ?? MASTER_BASE_DIR };
    return { place, title: "no node is installed", findings: [nothingInstalled(former)] };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const place = await guess(baseDir, deps);
    const { state, summary, todo, evidence } = judgeError(thrown);
    const title = place.kind === null ? "it is not known which node this is" : nameOf(place.kind);
    const finding = { id: "node", severity: severityOf(state), what: summary, evidence, remedy: todo };
    return { place, title: `${title} · ${place.baseDir}`, findings: [finding] };
  }
}

function nothingInstalled(former: NodeSigns | null): Finding {
  const isStorage = former?.kind === "storage-node";
  const left = former?.signs.map(({ what }) => what) ?? [];
  return {
    id: "node",
    severity: "warning",
    what: former === null ? "no node is installed here" : `a ${nameOf(former.kind)} was here, and left`,
    evidence: left.length === 0 ? {} : { "what it kept": left.join(", ") },
    remedy: isStorage ? REPAIR_STORAGE : `${REPAIR_MASTER}, or ${REPAIR_STORAGE} --invite TOKEN`,
  };
}

function ofWarning(text: string): Finding {
  return {
    id: "settings-ignored",
    severity: "note",
    what: text.replace(/\.$/, ""),
    evidence: {},
    remedy: null,
  };
}

/** The checks of the machine and of what no part of `status` looks at. */
async function checkMachine(
  { kind, baseDir }: Place,
  deps: StatusDeps,
  clock: Monotonic,
): Promise<readonly Finding[]> {
  const { host } = deps;
  const isStorage = kind === "storage-node";
  const settings = await readSettings(isStorage, baseDir, deps);
  const layout = masterLayout(baseDir);
  const examined: Examined = {
    host,
    kind,
    layout,
    master: isStorage ? null : layout,
    values: (key) => settings.get(key)?.value,
    containers: async () => ((await host.docker.unreachable()) === null ? host.docker.containers() : null),
    engine: () => host.docker.version(),
    isOurs: (container) => isOurs(container) || NAMES_HERE.has(container.name),
    repair: isStorage
      ? `${REPAIR_STORAGE}${baseDirFlag(baseDir, STORAGE_BASE_DIR)}`
      : `${REPAIR_MASTER}${baseDirFlag(baseDir)}`,
  };
  const prepare = () =>
    isStorage
      ? contextOfStorageNode({ deps, layout: storageLayout(baseDir), settings })
      : contextOfMaster({ deps, layout, settings });
  const [preflight, own] = await Promise.all([
    findingsOfPreflight(host, prepare, { isInstalled: kind !== null, clock }),
    Promise.all(DOCTOR_CHECKS.map((check) => makeCheck(check, examined, clock))),
  ]);
  return [...own.flat(), ...preflight];
}

/** The settings of the node; the defaults, if `.env` can't be read: then the look at the node says so. */
async function readSettings(isStorage: boolean, baseDir: string, deps: StatusDeps): Promise<Settings> {
  const { envFile } = storageLayout(baseDir);
  try {
    if (!isStorage) return (await readMasterSettings(deps, envFile, "none")).settings;
    return (await openStorageSource(deps, await readSavedSettings(deps, envFile))).resolve("none").settings;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return new Map();
    throw thrown;
  }
}
