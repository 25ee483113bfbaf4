import { homeOf, PROJECT_LABEL } from "../docker/compose-document.ts";
import { scratchMaker } from "../database/scratch-mark.ts";
import { changesOf, look, type Planned } from "../engine/plan.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { storageApiCaOf } from "../federation/storage-context.ts";
import { resolveBaseDir } from "../join/base-dir.ts";
import { findInstalledNode, type NodeKind, type NodeSigns, twoNodes } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import { refuseOtherBaseDir } from "../join/one-node.ts";
import { findDatabaseVolume } from "../join/prepare-master.ts";
import { findUnclearKeys, readSavedSettings } from "../join/settings-source.ts";
import type { Values } from "../settings/context.ts";
import { findEntry } from "../settings/env-file.ts";
import { MASTER_BASE_DIR, masterLayout, NAMES, STORAGE_BASE_DIR, storageLayout } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { isDatabaseElsewhere, postgresTarget } from "../settings/postgres-target.ts";
import { findUnclear, savedValue, type SettingSpec } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import {
  databasesThatStay,
  findConsequences,
  findHolds,
  findOtherMasters,
  remoteDatabasesOf,
  warnOfFlags,
} from "./holds.ts";
import { type Part, type Purge, wasNameReleased } from "./policy.ts";
import { dropScratches, isNameOfOther, leaveSteps, RELEASE_ID, releaseName, retractFlags } from "./steps.ts";
import { applyPurge, isGoing, type LeavingNode, surveyNode, type Thing } from "./survey.ts";

/** What a leave needs from the composition root. */
type LeaveDeps = Pick<JoinDeps, "host" | "openNodesClient" | "packageDir" | "hash" | "hostname">;

/** What a leave will do, and what it will not. */
export interface LeavePlan {
  readonly purged: ReadonlySet<Part>;
  readonly plan: readonly Planned[];
  /** What the plan removes. */
  readonly going: readonly Thing[];
  /** True if something is removed that stays without `--purge`. */
  readonly isPurging: boolean;
  /** What stays on purpose. */
  readonly kept: readonly (Thing & { readonly part: Part })[];
  /** What is not removed because fula-node did not create it, a phrase each. */
  readonly others: readonly string[];
  readonly warnings: readonly string[];
  /** True if its pool goes on with other masters and remembers it as removed: a later join needs their consent. */
  readonly needsConsent: boolean;
}

/**
 * Finds the node that leaves. Throws `settings` if there is none, `preflight` if there are things of both kinds, and
 * `foreign` if the containers belong to another base directory.
 */
export async function findLeavingNode(
  deps: LeaveDeps,
  given: string | undefined,
  purged: ReadonlySet<Part>,
): Promise<LeavingNode> {
  const { host } = deps;
  const baseDir =
    given === undefined
      ? undefined
      : await resolveBaseDir(host, given, `${MASTER_BASE_DIR} or ${STORAGE_BASE_DIR}`);
  const { answer, found, other } = await findInstalledNode(host, baseDir);
  const isOurs = ({ signs }: NodeSigns) => signs.some((sign) => sign.isOurs);
  if (other !== null && (answer === "both" || isOurs(other))) throw bothKindsFound([found, other]);
  if (!isOurs(found)) return await findEmptied(deps, [found, ...(other === null ? [] : [other])], purged);
  const home = baseDir ?? (found.kind === "master" ? MASTER_BASE_DIR : STORAGE_BASE_DIR);
  await refuseOtherBaseDir(host, found.kind, home, found.containers);
  return await openNode(deps, found);
}

/** Plans a leave, with its locks taken: one survey of the box, then one look at each thing that is to be removed. */
export async function planLeave(
  deps: LeaveDeps,
  node: LeavingNode,
  { purge, release }: { readonly purge: Purge; readonly release: boolean },
): Promise<LeavePlan> {
  const { host } = deps;
  const observed = await surveyNode(host, node);
  const holds = await findHolds(host, node, { survey: applyPurge(observed, purge.parts), purge });
  const held = new Set(holds.flatMap(({ parts }) => parts));
  const purged = new Set([...purge.parts].filter((part) => !held.has(part)));
  const flagsLeft = await warnOfFlags(host, node, purged);
  const survey = applyPurge(observed, purged);
  const going = survey.things.filter((thing) => isGoing(thing, purged));
  const name = release ? releaseOf(deps, node) : null;
  const steps = leaveSteps({
    node,
    purged,
    going,
    name,
    flags: retractionOf(node),
    scratches: scratchesOf(deps, node),
  });
  const plan = await look(steps, host, new Set());
  const databases = databasesThatStay(survey, node);
  const otherMasters = await findOtherMasters(host, node);
  const consequences =
    changesOf(plan).length === 0
      ? []
      : await findConsequences(host, node, {
          purged,
          databases,
          otherMasters,
          name: await fateOfName(host, node, { plan, release }),
        });
  return {
    purged,
    plan,
    going,
    isPurging: going.some(({ part }) => part !== null),
    kept: survey.things.flatMap(({ part, ...thing }) =>
      part === null || purged.has(part) ? [] : [{ ...thing, part }],
    ),
    others: [...survey.others, ...remoteDatabasesOf(node)],
    warnings: [...holds.map(({ why }) => why), ...flagsLeft, ...consequences],
    needsConsent: otherMasters.length > 0 && isDatabaseElsewhere(node.values),
  };
}

/** What becomes of the name: the master says it if this leave asks it, and else the journal of an earlier leave. */
async function fateOfName(
  { files }: LeaveDeps["host"],
  { layout }: LeavingNode,
  { plan, release }: { readonly plan: readonly Planned[]; readonly release: boolean },
): Promise<"free" | "reserved" | "unknown"> {
  const asked = plan.find(({ step }) => step.id === RELEASE_ID);
  if (asked !== undefined && (asked.changes.length > 0 || isNameOfOther(asked.finding))) return "free";
  if (wasNameReleased((await files.readText(layout.journal)) ?? "")) return "free";
  return release ? "unknown" : "reserved";
}

/** Finds a node of which a killed leave left only an empty directory. */
async function findEmptied(
  deps: LeaveDeps,
  nodes: readonly NodeSigns[],
  purged: ReadonlySet<Part>,
): Promise<LeavingNode> {
  const emptied: LeavingNode[] = [];
  for (const { kind, baseDir } of nodes) {
    const node = await openNode(deps, { kind, baseDir, containers: [] });
    const { things } = applyPurge(await surveyNode(deps.host, node), purged);
    if (things.some((thing) => thing.kind === "directory")) emptied.push(node);
  }
  const [node, other] = emptied;
  if (other !== undefined) throw bothKindsFound(nodes);
  if (node !== undefined) return node;
  throw new OperatorError({
    exit: "settings",
    what: "There is no node on this machine: fula-node created nothing here.",
    why: `It has no container, volume, network or cron file of fula-node, and nothing of fula-node in ${nodes.map(({ baseDir }) => baseDir).join(" or ")}.`,
    remedy: "If the node is in another directory, give --base-dir DIR.",
  });
}

function bothKindsFound(nodes: readonly NodeSigns[]): OperatorError {
  const remedy =
    "Choose the one that leaves with --base-dir DIR. A node that left earlier still has what was kept.";
  return twoNodes(nodes, remedy);
}

/** Opens a node with the settings in its `.env`, and defaults for those that are not there. */
async function openNode(
  deps: LeaveDeps,
  { kind, baseDir, containers }: Omit<NodeSigns, "signs">,
): Promise<LeavingNode> {
  const isMaster = kind === "master";
  const specs: readonly SettingSpec[] = isMaster ? MASTER_SETTINGS : STORAGE_SETTINGS;
  const saved = await readSavedSettings(deps, `${baseDir}/.env`);
  await refuseUnclear(deps, saved, { kind, specs });
  const values: Values = (key) => savedValue(saved, key) ?? specs.find((spec) => spec.key === key)?.byDefault;
  if (!isMaster) {
    const layout = storageLayout(baseDir);
    return { kind, layout, values, writerDir: null, databaseVolumes: [] };
  }
  const layout = masterLayout(baseDir);
  const writer = containers.find(({ labels }) => labels[PROJECT_LABEL] === NAMES.writerProject);
  const isSaved = findEntry(saved, "WRITER_DIR") !== undefined;
  const { volume } = await findDatabaseVolume(deps.host, layout);
  // Upstream's Compose names the volume after the directory in which it was run.
  const upstreamVolume = `${baseDir.slice(baseDir.lastIndexOf("/") + 1)}_pgdata`;
  return {
    kind,
    layout,
    values,
    // If the settings are lost, the labels of the writer's containers say where it is.
    writerDir: (!isSaved && writer !== undefined ? homeOf(writer) : null) ?? values("WRITER_DIR") ?? null,
    databaseVolumes: [volume, NAMES.postgresVolume, upstreamVolume],
  };
}

/**
 * Throws (`settings`) if `.env` has a value that programs read differently, by the rule of a join and of `status`:
 * from such a value, nobody knows for sure which data or directory belongs to the node.
 */
async function refuseUnclear(
  deps: LeaveDeps,
  saved: Parameters<typeof findUnclear>[1],
  { kind, specs }: { readonly kind: NodeKind; readonly specs: readonly SettingSpec[] },
): Promise<void> {
  const settings = specs.map(({ key }) => key);
  const problems = [...findUnclear([], saved, settings), ...(await findUnclearKeys(deps, saved, kind))];
  const subjects = problems.map(({ subject }) => subject);
  const distinct = problems.filter(({ subject }, index) => subjects.indexOf(subject) === index);
  if (distinct.length === 0) return;
  throw new OperatorError({ exit: "settings", what: "Some settings are ambiguous.", problems: distinct });
}

/** Null for a master, and if `.env` lacks these settings: nothing was announced, or nobody knows where. */
function releaseOf(deps: LeaveDeps, { kind, values }: LeavingNode): AnyStep | null {
  const [pool, name, url] = [values("CLUSTERNAME"), values("CLUSTER_PEERNAME"), values("STORAGE_API_URL")];
  if (kind === "master" || pool === undefined || name === undefined || url === undefined) return null;
  return releaseName({
    pool,
    name,
    client: deps.openNodesClient(url, storageApiCaOf(values)),
    ca: storageApiCaOf(values),
  });
}

function scratchesOf({ hash, hostname }: LeaveDeps, { kind, values }: LeavingNode): AnyStep | null {
  const target = kind === "master" ? postgresTarget(values) : null;
  return target === null ? null : dropScratches(target, scratchMaker(hash, values("MASTER_ID") ?? hostname));
}

function retractionOf({ kind, values }: LeavingNode): AnyStep | null {
  const target = kind === "master" && isDatabaseElsewhere(values) ? postgresTarget(values) : null;
  const master = values("CLUSTER_PEERNAME");
  if (target === null || master === undefined) return null;
  return retractFlags(target, { id: values("MASTER_ID") ?? null, name: master });
}
