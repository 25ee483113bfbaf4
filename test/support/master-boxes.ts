import { parse as parseEnv } from "dotenv";
import type { RunEvent } from "../../src/engine/events.ts";
import { openJournal } from "../../src/engine/journal.ts";
import { type Ask, run, type RunOutcome } from "../../src/engine/run.ts";
import type { AnyStep, Change, Finding } from "../../src/engine/step.ts";
import { prepareMaster } from "../../src/join/prepare-master.ts";
import { readMasterSettings } from "../../src/join/settings-source.ts";
import { MASTER_BASE_DIR, masterLayout } from "../../src/settings/layout.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import type { MasterContext } from "../../src/settings/context.ts";
import type { World } from "../../src/world.ts";
import type { FakeHost, Snapshot } from "./fake-host.ts";
import { FakeMaster, NODE_PATH, PACKAGE_DIR, sha256, VERSION } from "./fake-master.ts";

/** Where everything of a fake master lies. */
export const LAYOUT = masterLayout(MASTER_BASE_DIR);

/** What the operator gives a run. */
export interface Wishes {
  /** `--set KEY=VALUE`, beside CLUSTERNAME. */
  readonly set?: Readonly<Record<string, string>>;
  readonly environment?: Readonly<Record<string, string>>;
  /** True unless told otherwise. */
  readonly provisionWriter?: boolean;
  readonly imagesArchive?: string;
}

/** How a run goes; without any of these it asks nobody and changes what it has to. */
export interface JoinWishes extends Wishes {
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly ask?: Ask;
  readonly adopt?: readonly string[];
  readonly listen?: (event: RunEvent) => void;
}

/** A box as the distribution installs it: no engine, no Compose, no cron. */
export function bareBox(): FakeMaster {
  const host = new FakeMaster();
  host.strip();
  return host;
}

/** A box on which everything before this step stands. */
export async function boxBefore(step: string, wishes: Wishes = {}): Promise<FakeMaster> {
  const host = new FakeMaster();
  await settle(host, step, wishes);
  host.revive();
  return host;
}

/** A box that was joined. */
export async function joinedBox(wishes: Wishes = {}): Promise<FakeMaster> {
  const host = new FakeMaster();
  await join(host, wishes);
  host.revive();
  return host;
}

/** What join-as-master makes of the wishes on this box before its first probe. */
export async function prepare(
  host: FakeHost,
  { set = {}, environment = {}, provisionWriter = true, imagesArchive }: Wishes = {},
): Promise<{ readonly steps: readonly AnyStep[]; readonly context: MasterContext }> {
  const world = {
    host,
    version: VERSION,
    packageDir: PACKAGE_DIR,
    nodePath: NODE_PATH,
    hostname: "box",
    environment,
    hash: sha256,
  } satisfies Partial<World> as unknown as World;
  const flags = new Map(Object.entries({ CLUSTERNAME: "pool", ...set }));
  const { settings, problems } = await readMasterSettings(world, LAYOUT.envFile, flags);
  if (problems.length > 0) throw new Error(problems.map(({ what }) => what).join("\n"));
  return prepareMaster(world, {
    layout: LAYOUT,
    settings,
    provisionWriter,
    imagesArchive: imagesArchive ?? null,
  });
}

/** One step of a master, made as a run on this box with these wishes would make it. */
export async function stepOn(host: FakeHost, id: string, wishes: Wishes = {}): Promise<AnyStep> {
  const { steps } = await prepare(host, wishes);
  const step = steps.find((one) => one.id === id);
  if (step === undefined) throw new Error(`no step ${id}`);
  return step;
}

/** What a step finds on a box, and what it would do about that; a foreign thing gives no changes. */
export async function lookAt(
  step: AnyStep,
  host: FakeHost,
): Promise<{ readonly finding: Finding<unknown>; readonly changes: readonly Change[] }> {
  const finding = (await step.probe(host)) as Finding<unknown>;
  return { finding, changes: finding.state === "foreign" ? [] : (step.plan(finding) as readonly Change[]) };
}

/** The whole of join-as-master after its preflight: prepare, plan, apply, verify. */
export async function join(host: FakeHost, wishes: JoinWishes = {}): Promise<RunOutcome> {
  const { dryRun = false, yes = true, ask = null, adopt = [], listen = () => {} } = wishes;
  const { steps } = await prepare(host, wishes);
  return run({
    steps,
    host,
    listen,
    ask,
    dryRun,
    yes,
    adopted: new Set(adopt),
    consents: new Set(wishes.provisionWriter === false ? [] : ["--provision-writer"]),
    journal: openJournal({
      files: host.files,
      path: LAYOUT.journal,
      attempt: "1",
      version: VERSION,
      now: () => host.clock.now(),
    }),
  });
}

/** Makes everything that stands before this step. */
export async function settle(host: FakeHost, until: string, wishes: Wishes = {}): Promise<void> {
  const { steps } = await prepare(host, wishes);
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

/** The secrets that `.env` and the signing key hold, where there are such files. */
export function secretsOf(host: FakeHost): readonly string[] {
  const saved = host.files.tree.has(LAYOUT.envFile) ? savedValues(host) : {};
  const keys = MASTER_SETTINGS.filter(({ secret }) => secret === true).map(({ key }) => key);
  const key = host.files.tree.get(LAYOUT.signingKey)?.text.split("\n")[1];
  return [...keys.map((one) => saved[one]), key].filter(
    (text) => text !== undefined && text !== "",
  ) as string[];
}

/** What a run ends in: the outcome without the journal, which tells how it came to be. */
export function endOf(host: FakeHost): Snapshot {
  const { files, ...rest } = host.outcome();
  return {
    ...rest,
    files: Object.fromEntries(Object.entries(files).filter(([path]) => path !== LAYOUT.journal)),
  };
}
