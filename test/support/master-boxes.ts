import { parse as parseEnv } from "dotenv";
import type { RunEvent } from "../../src/engine/events.ts";
import { openJournal } from "../../src/engine/journal.ts";
import { type Ask, run, type RunOutcome } from "../../src/engine/run.ts";
import type { AnyStep, Change, Finding } from "../../src/engine/step.ts";
import {
  ADOPTIONS,
  consentsOfReplace,
  takeOverSettings,
  withReplacedImages,
} from "../../src/join/adopted-services.ts";
import { prepareMaster } from "../../src/join/prepare-master.ts";
import { readMasterSettings, readSavedSettings } from "../../src/join/settings-source.ts";
import type { MasterContext } from "../../src/settings/context.ts";
import { MASTER_BASE_DIR, masterLayout } from "../../src/settings/layout.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import type { World } from "../../src/world.ts";
import type { FakeHost, Snapshot } from "./fake-host.ts";
import { FakeMaster, NODE_PATH, PACKAGE_DIR, sha256, VERSION } from "./fake-master.ts";
import { FakeMigrator } from "./fake-migrator.ts";

/** The paths of a fake master. */
export const LAYOUT = masterLayout(MASTER_BASE_DIR);

/** What the operator gives to a run. */
export interface RunOptions {
  /** Values of `--set`, in addition to CLUSTERNAME. */
  readonly set?: Readonly<Record<string, string>>;
  readonly environment?: Readonly<Record<string, string>>;
  /** True by default. */
  readonly provisionWriter?: boolean;
  readonly imagesArchive?: string;
  /** The version that runs. Default: VERSION. */
  readonly version?: string;
  /** Steps named with `--adopt`. */
  readonly adopt?: readonly string[];
  /** Values of `--replace`. */
  readonly replace?: readonly string[];
}

/** Options of a run. By default it asks nothing and makes all changes. */
export interface JoinOptions extends RunOptions {
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly ask?: Ask;
  readonly listen?: (event: RunEvent) => void;
}

/** A box as the distribution installs it, without engine, Compose and cron. */
export function bareBox(): FakeMaster {
  const host = new FakeMaster();
  host.strip();
  return host;
}

/** A box on which all steps before this one are done. */
export async function boxBefore(step: string, options: RunOptions = {}): Promise<FakeMaster> {
  const host = new FakeMaster();
  await settle(host, step, options);
  host.revive();
  return host;
}

/** A box that was joined. */
export async function joinedBox(options: RunOptions = {}): Promise<FakeMaster> {
  const host = new FakeMaster();
  await join(host, options);
  host.revive();
  return host;
}

/** What join-as-master prepares on this box before its first probe. */
export async function prepare(
  host: FakeHost,
  {
    set = {},
    environment = {},
    provisionWriter = true,
    imagesArchive,
    version = VERSION,
    adopt = [],
    replace = [],
  }: RunOptions = {},
): Promise<{ readonly steps: readonly AnyStep[]; readonly context: MasterContext }> {
  // The migrator of a run is of the same version.
  if (host.migrations instanceof FakeMigrator) host.migrations.toolVersion = version;
  const world = {
    host,
    version,
    packageDir: PACKAGE_DIR,
    nodePath: NODE_PATH,
    hostname: "box",
    environment,
    hash: sha256,
  } satisfies Partial<World> as unknown as World;
  const flags = withReplacedImages(replace, new Map(Object.entries({ CLUSTERNAME: "pool", ...set })));
  const { settings, problems } = await readMasterSettings(world, LAYOUT.envFile, flags);
  if (problems.length > 0) throw new Error(problems.map(({ what }) => what).join("\n"));
  const saved = await readSavedSettings(world, LAYOUT.envFile);
  return prepareMaster(world, {
    layout: LAYOUT,
    settings: await takeOverSettings(host, {
      adoption: ADOPTIONS.master,
      layout: LAYOUT,
      adopt: new Set(adopt),
      settings,
      saved,
    }),
    adopt,
    provisionWriter,
    imagesArchive: imagesArchive ?? null,
  });
}

/** One step of a master, as a run on this box with these options creates it. */
export async function stepOn(host: FakeHost, id: string, options: RunOptions = {}): Promise<AnyStep> {
  const { steps } = await prepare(host, options);
  const step = steps.find((one) => one.id === id);
  if (step === undefined) throw new Error(`no step ${id}`);
  return step;
}

/** What a step finds on a box, and its plan. A foreign thing has no changes. */
export async function lookAt(
  step: AnyStep,
  host: FakeHost,
): Promise<{ readonly finding: Finding<unknown>; readonly changes: readonly Change[] }> {
  const finding = (await step.probe(host)) as Finding<unknown>;
  return { finding, changes: finding.state === "foreign" ? [] : (step.plan(finding) as readonly Change[]) };
}

/** join-as-master after its preflight: prepare, plan, apply, verify. */
export async function join(host: FakeHost, options: JoinOptions = {}): Promise<RunOutcome> {
  const { dryRun = false, yes = true, ask = null, adopt = [], listen = () => {} } = options;
  const { steps } = await prepare(host, options);
  return run({
    steps,
    host,
    listen,
    ask,
    dryRun,
    yes,
    adopted: new Set(adopt),
    consents: new Set([
      ...(options.provisionWriter === false ? [] : ["--provision-writer"]),
      ...consentsOfReplace(options.replace ?? []),
    ]),
    journal: openJournal({
      files: host.files,
      path: LAYOUT.journal,
      attempt: "1",
      version: VERSION,
      now: () => host.clock.now(),
    }),
  });
}

/** Does all steps before this one. */
export async function settle(host: FakeHost, until: string, options: RunOptions = {}): Promise<void> {
  const { steps } = await prepare(host, options);
  for (const step of steps) {
    if (step.id === until) return;
    const finding = (await step.probe(host)) as Finding<unknown>;
    if (finding.state === "foreign") throw new Error(`${step.id}: ${finding.why}`);
    for (const change of step.plan(finding)) await step.apply(change, host, () => {});
    await step.verify(host);
  }
}

/** The values of `.env`, by key. */
export function savedValues(host: FakeHost): Readonly<Record<string, string>> {
  return parseEnv(host.files.textOf(LAYOUT.envFile));
}

/** The secrets in `.env` and in the signing key, if there are such files. */
export function secretsOf(host: FakeHost): readonly string[] {
  const saved = host.files.tree.has(LAYOUT.envFile) ? savedValues(host) : {};
  const keys = MASTER_SETTINGS.filter(({ secret }) => secret === true).map(({ key }) => key);
  const key = host.files.tree.get(LAYOUT.signingKey)?.text.split("\n")[1];
  return [...keys.map((one) => saved[one]), key].filter(
    (text) => text !== undefined && text !== "",
  ) as string[];
}

/** The state after a run, without the journal, which depends on the way there. */
export function endOf(host: FakeHost): Snapshot {
  const { files, ...rest } = host.outcome();
  return {
    ...rest,
    files: Object.fromEntries(Object.entries(files).filter(([path]) => path !== LAYOUT.journal)),
  };
}
