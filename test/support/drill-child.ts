import { readFileSync } from "node:fs";
import type { Drill } from "../../src/drills/drill.ts";
import { snapshotDrill } from "../../src/drills/snapshot-drill.ts";
import { sweepDrill } from "../../src/drills/sweep-drill.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import { hooked } from "./drill-interrupts.ts";
import { type DrillMaster, type DrillPlace, drillDeps, drillSettings } from "./pinset-drills.ts";

/** A drill in its own process, which kills itself before its call number `killAt`. */
const { place, id, killAt, registered } = JSON.parse(process.env["DRILL"] ?? "{}") as {
  readonly place: DrillPlace;
  readonly id: string;
  readonly killAt: number;
  readonly registered: DrillMaster["registered"];
};
const settings = drillSettings(place);
let calls = 0;
const deps = hooked(
  drillDeps(place, () => registered),
  {
    before: () => {
      calls += 1;
      if (calls === killAt) process.kill(process.pid, "SIGKILL");
    },
    after: () => {},
  },
);
const drill = (id === "D6" ? snapshotDrill : sweepDrill) as Drill<typeof deps>;
const outcome = await drill.run(deps, {
  master: { layout: masterLayout(place.base), values: (key) => settings[key] },
  stop: new AbortController().signal,
  report: () => {},
});
process.stdout.write(
  `${JSON.stringify({ ...outcome, calls, node: readFileSync("/proc/self/comm", "utf8") })}\n`,
);
