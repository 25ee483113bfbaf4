import { bucketDrill } from "../../src/drills/bucket-drill.ts";
import type { Drill } from "../../src/drills/drill.ts";
import { leaseDrill } from "../../src/drills/lease-drill.ts";
import { nameDrill } from "../../src/drills/name-drill.ts";
import { replayDrill } from "../../src/drills/replay-drill.ts";
import type { CronDrillDeps } from "../../src/drills/scratch/cron-group.ts";
import { takeoverDrill } from "../../src/drills/takeover-drill.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { counted, depsIn, type DrillPlaces, masterOn } from "./drill-deps.ts";

/** Runs a drill, and kills itself at a call of an adapter. It prints its calls, and the outcome if it comes to that. */
const { target, places, id, killAt } = JSON.parse(process.env["DRILL"] ?? "{}") as {
  readonly target: PostgresTarget;
  readonly places: DrillPlaces;
  readonly id: string;
  readonly killAt: { readonly n: number; readonly when: "before" | "sent" };
};
const drills: readonly Drill<CronDrillDeps>[] = [
  leaseDrill,
  takeoverDrill,
  replayDrill,
  bucketDrill,
  nameDrill,
];
const drill = drills.find((one) => one.id === id);
if (drill === undefined) throw new Error(`there is no ${id}`);
const deps = counted(depsIn(places), (n, when) => {
  if (n === killAt.n && when === killAt.when) process.kill(process.pid, "SIGKILL");
});
const context = { master: masterOn(target), report: () => {} };
await drill.cleanUp(deps, context);
const outcome = await drill.run(deps, { ...context, stop: new AbortController().signal });
process.stdout.write(JSON.stringify(outcome));
