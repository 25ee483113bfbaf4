import type { TrustDeps } from "../join/change-trust.ts";
import type { Listener, PlanItem } from "../engine/events.ts";
import { openJournal } from "../engine/journal.ts";
import { describe, look, refuseForeign } from "../engine/plan.ts";
import { run, type RunOptions, type RunOutcome } from "../engine/run.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { readValueFile } from "../join/assignments.ts";
import type { InstalledMaster } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import { prepareMaster } from "../join/prepare-master.ts";
import { readMasterSettings } from "../join/settings-source.ts";
import { requireDocker } from "../join/silent-docker.ts";
import { parseMemory } from "../pinset/snapshot/memory.ts";
import { quoteValue, whyUnwritable } from "../settings/env-file.ts";
import type { MasterLayout } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { isDatabaseElsewhere, postgresBindOf } from "../settings/postgres-target.ts";
import {
  parseRotation,
  ROTATED,
  type Rotation,
  type SecretName,
  unfinishedRotation,
} from "../settings/rotation.ts";
import { type SettingSpec, showValue } from "../settings/settings.ts";
import { runningDatabase } from "./acceptance.ts";
import { describeConsequences, type RotationScene } from "./consequences.ts";
import { endingStep, openingSteps } from "./rotation-steps.ts";
import { findHolders, readStage, type RotationContext, type Stage } from "./stage.ts";

/** What a rotation needs from the composition root. */
export type RotateDeps = TrustDeps & Pick<JoinDeps, "readStdin">;

/** What the operator asks for. */
export interface RotateRequest {
  readonly secret: SecretName;
  readonly dryRun: boolean;
  readonly yes: boolean;
  /** The file with the new value, `-` for standard input; undefined: it is generated. */
  readonly valueFile: string | undefined;
  /** When the verb started, as ISO text. */
  readonly since: string;
  /** ` --base-dir DIR`, or empty for the default directory. */
  readonly hereFlags: string;
}

/** What a rotation did. */
export interface RotateResult {
  readonly dryRun: boolean;
  /** True if it went on with a rotation that was interrupted. */
  readonly resumed: boolean;
  /** What the change invalidates, in sentences. */
  readonly consequences: readonly string[];
  readonly plan: readonly PlanItem[];
  /** What a dry run can't plan yet: what happens after the new value is in place. */
  readonly later: readonly string[];
  readonly changes: RunOutcome["changes"];
}

/**
 * Changes one secret of a master, or finishes the change that was interrupted. The caller holds the lock. `guard` runs the
 * first half; it holds the lock of the snapshots if the snapshot key is changed.
 */
export async function rotateSecret(
  deps: RotateDeps,
  master: InstalledMaster,
  request: RotateRequest,
  guard: <Result>(work: () => Promise<Result>) => Promise<Result>,
): Promise<RotateResult> {
  const { host, reporter, nodePath } = deps;
  const { layout, values } = master;
  const { secret, dryRun } = request;
  await requireDocker(host, "What it has, and who uses the secret, can't be seen now.");
  const saved = parseRotation(await host.files.readText(layout.rotation), layout.rotation);
  if (saved !== null && saved.secret !== secret) throw unfinishedRotation(saved, request.hereFlags);
  const stage = await readStage(host, { secret, layout });
  const given = await readGiven(deps, request, master);
  const nothing = { dryRun, resumed: false, consequences: [], plan: [], later: [], changes: [] };
  if (given !== null && stage.at === "none" && given === stage.current) return nothing;
  refuseOther(stage, given);
  const makeNext = (on: Host) => given ?? generate(on, secret);
  const context: RotationContext = { secret, layout, nodePath, values, makeNext };
  if (stage.at === "none") await refusePending(deps, master, request);
  else await refuseOtherVersion(deps, layout, request);
  const scene = await readScene(host, context, stage);
  const consequences = describeConsequences(secret, scene);
  const ending = endingStep(context);
  const later = [
    ...scene.ours.map((name) => ["containers", `start ${name} with the new value`] as const),
    ...ending.changes.map(({ summary }) => [ending.step.id, summary] as const),
  ];
  const resumed = stage.at !== "none";
  if (!dryRun && !request.yes && deps.questions === null) throw confirmationRequired();
  const done: RunOutcome[] = [];
  const printPlan = (items: readonly PlanItem[], rest: typeof later): void => {
    const rows = items.flatMap(({ step, changes }) => changes.map(({ summary }) => [step, summary]));
    const heading = resumed ? "the change that was interrupted goes on" : `master in ${layout.baseDir}`;
    const lines = [
      `secret rotate ${secret} · ${heading}`,
      ...reporter.table([...rows, ...rest]),
      "What it means",
      ...reporter.table(consequences.map((sentence) => ["-", sentence])),
    ];
    for (const line of lines) reporter.note(line);
  };
  const revived =
    stage.at === "given" ? await reviveDatabase(deps, master, request, context, stage.rotation) : null;
  if (revived !== null) done.push(revived);
  // Without a server, a dry run can't look any further.
  if (stage.at !== "switched" && !(dryRun && revived !== null)) {
    const steps = openingSteps(context);
    const confirmed = { ...request, yes: request.yes || revived !== null };
    done.push(
      await guard(() => runSteps(deps, master, confirmed, { steps, plan: (of) => printPlan(of, later) })),
    );
  }
  if (stage.at === "switched" || !dryRun) {
    const steps = [...(await joinSteps(deps, master)), ending.step];
    const plan = (items: readonly PlanItem[]) => (stage.at === "switched" ? printPlan(items, []) : undefined);
    const confirmed = { ...request, yes: true };
    done.push(await finish(() => runSteps(deps, master, confirmed, { steps, plan })));
  }
  return {
    dryRun,
    resumed,
    consequences,
    later: dryRun && stage.at !== "switched" ? later.map(([, summary]) => summary) : [],
    plan: done.flatMap(({ plan }) => plan),
    changes: done.flatMap(({ changes }) => changes),
  };
}

/**
 * The second half is a join: by a newer version it would be an upgrade, without a plan and without a backup. Throws (`preflight`) if
 * another version is installed.
 */
async function refuseOtherVersion(
  { host, version }: RotateDeps,
  { cliCurrent }: MasterLayout,
  { secret, valueFile, hereFlags }: RotateRequest,
): Promise<void> {
  const installed = await host.files.readLink(cliCurrent);
  if (installed === null || installed === version) return;
  const file = valueFile === undefined ? "" : ` --value-file ${valueFile}`;
  throw new OperatorError({
    exit: "preflight",
    what: `A change of ${secret} is not finished, and fula-node ${installed} is installed here. This is version ${version}.`,
    why: "To finish it with another version would also upgrade this master.",
    remedy: `Finish it first: node ${cliCurrent}/bin/fula-node.js secret rotate ${secret}${file}${hereFlags}`,
  });
}

/**
 * Starts the database of this machine if its container was stopped or removed since the interruption: a join refuses until
 * the change is finished, and without a server neither value can be tested. Null if it runs.
 */
async function reviveDatabase(
  deps: RotateDeps,
  master: InstalledMaster,
  request: RotateRequest,
  context: RotationContext,
  rotation: Rotation,
): Promise<RunOutcome | null> {
  if (isDatabaseElsewhere(master.values)) return null;
  const own = (await joinSteps(deps, master)).filter(({ id }) => id === "postgres");
  const steps = own.map((step) => runningDatabase(context, rotation, step));
  const plan = (items: readonly PlanItem[]): void => {
    const rows = items.flatMap(({ step, changes }) => changes.map(({ summary }) => [step, summary]));
    if (rows.length === 0) return;
    deps.reporter.note("The database does not run. Before the change goes on:");
    for (const line of deps.reporter.table(rows)) deps.reporter.note(line);
  };
  const done = await runSteps(deps, master, request, { steps, plan });
  return done.plan.every(({ changes }) => changes.length === 0) ? null : done;
}

function runSteps(
  { host, reporter, questions, pid, version }: RotateDeps,
  { layout }: InstalledMaster,
  { secret, dryRun, yes, since }: RotateRequest,
  {
    steps,
    plan,
  }: { readonly steps: readonly AnyStep[]; readonly plan: (items: readonly PlanItem[]) => void },
): Promise<RunOutcome> {
  const listen: Listener = (event) => {
    if (event.type === "planned") plan(event.items);
    else reporter.listen(event);
  };
  const journal = openJournal({
    files: host.files,
    path: layout.journal,
    attempt: `${since}-${pid}`,
    version,
    now: () => host.clock.now(),
  });
  const ask: RunOptions["ask"] =
    questions === null || dryRun ? null : () => questions.confirm(`Change the ${secret}?`, true);
  return run({ steps, host, journal, listen, ask, dryRun, yes, adopted: new Set(), consents: new Set() });
}

/** The steps of join-as-master with the settings that are saved now. They make the containers again that have another value. */
async function joinSteps(deps: RotateDeps, { layout }: InstalledMaster): Promise<readonly AnyStep[]> {
  const { settings, problems } = await readMasterSettings(deps, layout.envFile, "none");
  if (problems.length > 0)
    throw new OperatorError({ exit: "settings", what: "Some settings are missing or invalid.", problems });
  const desired = { layout, settings, provisionWriter: false, imagesArchive: null };
  return (await prepareMaster(deps, desired)).steps;
}

/** Throws if join-as-master would change or refuse anything: a rotation starts on a node that is whole. */
async function refusePending(
  deps: RotateDeps,
  master: InstalledMaster,
  { hereFlags }: RotateRequest,
): Promise<void> {
  const plan = await look(await joinSteps(deps, master), deps.host, new Set());
  refuseForeign(plan, new Set());
  const pending = describe(plan).filter(({ changes }) => changes.length > 0);
  if (pending.length === 0) return;
  throw new OperatorError({
    exit: "preflight",
    what: "This node needs a repair before a secret of it can be changed.",
    remedy: `Run fula-node join-as-master${hereFlags} first.`,
    problems: pending.map(({ step, changes }) => ({
      subject: step,
      what: changes.map(({ summary }) => summary).join("; "),
    })),
  });
}

/** After the first half, an error must not say that nothing was changed. */
async function finish<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.changed !== undefined) throw thrown;
    throw thrown.withChanged(
      "the new value is saved and in place, and the old one is kept, too. Running the same command again is safe and continues from here.",
    );
  }
}

async function readScene(
  host: Host,
  { secret, layout, values }: RotationContext,
  stage: Stage,
): Promise<RotationScene> {
  const value = stage.at === "none" ? stage.current : stage.rotation.previous;
  const isKey = ROTATED[secret] === null;
  const holders = isKey ? { ours: [], others: [] } : await findHolders(host, value);
  return {
    ours: holders.ours.map(({ name }) => name),
    others: holders.others.map(({ name }) => name),
    // Other masters can use it in both cases.
    databaseElsewhere: isDatabaseElsewhere(values) || postgresBindOf(values) !== null,
    fingerprint: isKey ? (await host.signing.publicKey(value, layout.signingKey)).id : null,
    envFile: layout.envFile,
  };
}

function confirmationRequired(): OperatorError {
  return new OperatorError({
    exit: "preflight",
    what: "Confirmation required: this changes a secret.",
    why: "There is no terminal to ask on.",
    remedy: "Read the plan of --dry-run, then run again with --yes.",
  });
}

function specOf(secret: SecretName): SettingSpec | undefined {
  return MASTER_SETTINGS.find(({ key }) => key === ROTATED[secret]);
}

function generate(host: Host, secret: SecretName): string | Promise<string> {
  const generated = specOf(secret)?.generated;
  if (generated === undefined) return host.signing.generate();
  return generated.kind === "hex"
    ? host.random.hex(generated.bytes)
    : host.random.token(generated.characters);
}

/** The value of `--value-file`; null without it. Throws (`usage`, `settings`) if it can't be the secret. */
async function readGiven(
  deps: RotateDeps,
  { secret, valueFile }: RotateRequest,
  { layout }: InstalledMaster,
): Promise<string | null> {
  if (valueFile === undefined) return null;
  const read = await readValueFile("--value-file", { subject: secret, path: valueFile }, deps);
  if ("problem" in read) {
    const { what, remedy } = read.problem;
    throw new OperatorError({ exit: "usage", what, ...(remedy === undefined ? {} : { remedy }) });
  }
  const spec = specOf(secret);
  if (spec === undefined) {
    const pem = `${read.value}\n`;
    await refuseRetired(deps.host, layout, pem, valueFile);
    return pem;
  }
  const fault = faultOf(spec, read.value);
  if (fault === null) return read.value;
  throw new OperatorError({
    exit: "settings",
    what: `${spec.key} from --value-file is ${showValue(spec, read.value)}; ${fault}.`,
    remedy: "Give another value, or none: then one is generated.",
  });
}

/** A key that was replaced before can't sign again: in the chain of snapshots, that is the sign of a thief. */
async function refuseRetired(host: Host, layout: MasterLayout, pem: string, path: string): Promise<void> {
  const { id } = await host.signing.publicKey(pem, path);
  const memory = parseMemory(await host.files.readText(layout.snapshotMemory));
  const retired = memory === null || memory === "damaged" ? [] : memory.retiredKeys;
  const current = await host.files.readText(layout.signingKey);
  const isCurrent =
    current !== null && current !== pem && (await host.signing.publicKey(current, path)).id === id;
  if (!isCurrent && !retired.some(({ keyId }) => keyId === id)) return;
  throw new OperatorError({
    exit: "settings",
    what: `The key in ${path} (fingerprint ${id}) ${isCurrent ? "is the present one" : "was replaced before"}.`,
    remedy: "Give a new key, or none: then one is generated.",
  });
}

function faultOf(spec: SettingSpec, value: string): string | null {
  if (!spec.rule.holds(value)) return `it must be ${spec.rule.requirement}`;
  // Programs prepare other characters in different ways before they hash a password (RFC 4013).
  if (spec.key === "POSTGRES_PASSWORD" && !/^[\x20-\x7e]+$/.test(value))
    return "it may have ASCII characters only";
  return quoteValue(value) === null ? `it can't be used: ${whyUnwritable(value).why}` : null;
}

/** A rotation that was interrupted goes on with its own new value. */
function refuseOther(stage: Stage, given: string | null): void {
  if (given === null || stage.at === "none" || stage.rotation.next === given) return;
  throw new OperatorError({
    exit: "usage",
    what: "The change that was interrupted has another new value than --value-file.",
    remedy: "Run without --value-file to finish it. Then change the secret once more.",
  });
}
