import { applyPlan } from "../../engine/apply.ts";
import { type Journal, openJournal } from "../../engine/journal.ts";
import { changesOf, look } from "../../engine/plan.ts";
import { OperatorError } from "../../errors.ts";
import type { InstalledMaster } from "../../join/installed-node.ts";
import type { JoinDeps } from "../../join/join-run.ts";
import { isOurCron } from "../../machine/crontab.ts";
import { chooseNode } from "../../machine/node-program.ts";
import { CRON_FILES } from "../../settings/layout.ts";
import { newDrillCron } from "../../steps/master/cron-entry.ts";

type ScheduleDeps = Pick<
  JoinDeps,
  "host" | "reporter" | "packageDir" | "nodePath" | "hash" | "version" | "pid"
>;

const PATH = CRON_FILES.drill;

/** Lets cron run every drill once a week. Returns false if it does already. Throws (`foreign`) for somebody else's file. */
export async function scheduleDrills(
  deps: ScheduleDeps,
  { layout, values }: InstalledMaster,
): Promise<boolean> {
  const { host, reporter, packageDir, nodePath, hash } = deps;
  await readOwnEntry(deps);
  const node = await chooseNode(host, { running: nodePath, script: `${packageDir}/bin/fula-node.js` });
  const step = newDrillCron({
    layout,
    nodePath: node.path ?? nodePath,
    hash,
    name: values("CLUSTER_PEERNAME") ?? "",
  });
  const none: ReadonlySet<string> = new Set();
  const plan = await look([step], host, none);
  if (changesOf(plan).length === 0) return false;
  const journal = openDrillJournal(deps, layout.journal);
  await applyPlan({ plan, host, adopted: none, journal, listen: reporter.listen });
  return true;
}

/** Ends what `scheduleDrills` began. Returns false if there is nothing to end. Throws (`foreign`) for somebody else's file. */
export async function unscheduleDrills(deps: ScheduleDeps, { layout }: InstalledMaster): Promise<boolean> {
  const { files } = deps.host;
  if ((await readOwnEntry(deps)) === null) return false;
  const change = { kind: "unschedule-drills", summary: `remove ${PATH}` };
  await openDrillJournal(deps, layout.journal).around("drill-cron", change, () => files.remove(PATH));
  return true;
}

/** The text of our file; null if there is none. Throws (`foreign`) for somebody else's. */
async function readOwnEntry({ host }: Pick<ScheduleDeps, "host">): Promise<string | null> {
  const text = await host.files.readText(PATH);
  if (text === null || isOurCron(text)) return text;
  throw new OperatorError({
    exit: "foreign",
    what: `${PATH} was not written by fula-node.`,
    remedy: "If it is not needed, move it out of /etc/cron.d.",
  });
}

function openDrillJournal({ host, pid, version }: ScheduleDeps, path: string): Journal {
  const attempt = `${host.clock.now().toISOString()}-${pid}`;
  return openJournal({ files: host.files, path, attempt, version, now: () => host.clock.now() });
}
