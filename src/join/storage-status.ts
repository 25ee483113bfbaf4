import type { PlanItem } from "../engine/events.ts";
import { describe, look } from "../engine/plan.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { storageLayout } from "../settings/master-layout.ts";
import { readContainerEnv } from "../settings/node-context.ts";
import { STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import { STORAGE_REQUIRED } from "../settings/storage.ts";
import type { VerbExit, World } from "../world.ts";
import { concludeReport, judgeNode } from "./node-report.ts";
import { openStorageSource, readSavedSettings } from "./settings-source.ts";
import { sentenceOf } from "./status-lines.ts";
import { lookAtNode } from "./storage-facts.ts";
import { prepareStorageNode } from "./storage-prepare.ts";

const NAME_STEP = "node-name";

/** `status` of a storage node: every thing with its state, and how the node fares in its pool. Changes nothing. */
export async function storageStatus(baseDir: string, world: World): Promise<VerbExit> {
  const { host, reporter, version } = world;
  const layout = storageLayout(baseDir);
  const source = await openStorageSource(world, await readSavedSettings(world, layout.envFile));
  const { settings, problems } = source.resolve(new Map());
  const told = await readContainerEnv(host, STORAGE_RECOVERABLE);
  const missing = STORAGE_REQUIRED.filter((key) => !settings.has(key) && !told.has(key)).map((key) => ({
    subject: key,
    what: `${key} is missing.`,
  }));
  if (problems.length + missing.length > 0)
    throw new OperatorError({
      exit: "settings",
      what: "The settings are not as they must be.",
      problems: [...problems, ...missing],
    });
  const steps = await prepareStorageNode(world, { layout, settings, imagesArchive: null, register: true });
  const values = (key: string) => {
    const setting = settings.get(key);
    const given = setting?.origin === "default" ? undefined : setting?.value;
    return given ?? told.get(key)?.value ?? setting?.value;
  };
  const [items, facts] = await Promise.all([lookAtSteps(steps, world), lookAtNode(world, values)]);
  const report = judgeNode(facts);
  const mendable = items.some(({ state, changes }) => state === "foreign" || changes.length > 0);
  const pending = mendable || report.some(({ state }) => state === "attention");
  reporter.result({
    data: { verb: "status", version, kind: "storage-node", baseDir, items, node: facts, report, pending },
    lines: [
      `fula-node ${version}, storage node in ${baseDir}`,
      ...reporter.table(items.map((item) => [item.state, item.step, sentenceOf(item)])),
      ...reporter.table(report.map(({ state, about, sentence }) => [state, about, sentence])),
      mendable
        ? "Something is to be done: run join-as-storage-node."
        : pending
          ? "Something needs your attention: see above, and run join-as-storage-node."
          : concludeReport(report),
    ],
  });
  return pending ? "pending" : "ok";
}

/** Where the master does not answer, its step is left out: the report says so, and the rest is told. */
async function lookAtSteps(steps: readonly AnyStep[], { host }: World): Promise<readonly PlanItem[]> {
  const lookAt = async (some: readonly AnyStep[]) => describe(await look(some, host, new Set()));
  const things = await lookAt(steps.filter(({ id }) => id !== NAME_STEP));
  try {
    return [...things, ...(await lookAt(steps.filter(({ id }) => id === NAME_STEP)))];
  } catch (thrown) {
    if (thrown instanceof OperatorError && thrown.exit === "unavailable") return things;
    throw thrown;
  }
}
