import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Drill, DrillOutcome } from "../../src/drills/drill.ts";
import { snapshotDrill } from "../../src/drills/snapshot-drill.ts";
import { sweepDrill } from "../../src/drills/sweep-drill.ts";
import { bundleChild } from "../support/bundle-child.ts";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { type CallHook, hooked } from "../support/drill-interrupts.ts";
import {
  type DrillMaster,
  type KuboDouble,
  type PinsetDrillDeps,
  startDrillMaster,
  startKuboDouble,
} from "../support/pinset-drills.ts";

const PINS = ["one", "two", "three"].map((text) => ({ cid: cidOf(text), name: text }));
const child = await bundleChild(new URL("../support/drill-child.ts", import.meta.url));

let cluster: ClusterDouble;
let kubo: KuboDouble;
let box: DrillMaster;
let runs = 0;

beforeEach(async () => {
  cluster = await startClusterDouble({ pins: PINS, peers: 3 });
  kubo = await startKuboDouble((cid) => cluster.pins.has(cid));
  box = startDrillMaster({ clusterUrl: cluster.url, kuboUrl: kubo.url });
  box.registered = [1, 2].map((index) => ({
    owner: `12D3KooWPeer${index}`,
    name: `follower-${index}`,
    announced_at: null,
  }));
});
afterEach(async () => {
  await cluster.stop();
  await kubo.stop();
  box.clear();
});

const left = () => ({
  pins: [...cluster.pins.keys()].filter((cid) => !PINS.some((pin) => pin.cid === cid)),
  blocks: [...kubo.blocks],
  directories: box.left(),
});
const NOTHING = { pins: [], blocks: [], directories: [] };

const context = (stop = new AbortController().signal) => ({ master: box.master, report: () => {}, stop });

/** Runs the drill with a hook at each of its calls. Null if it threw. */
async function tryRun(
  drill: Drill<PinsetDrillDeps>,
  hook: CallHook,
  stop?: AbortSignal,
): Promise<DrillOutcome | null> {
  runs += 1;
  // The kernel releases the lock of a process that dies. Here it lives on.
  const takeLock: PinsetDrillDeps["takeLock"] = (name, holder) =>
    box.deps.takeLock(`${name} of run ${runs}`, holder);
  return drill.run(hooked({ ...box.deps, takeLock }, hook), context(stop)).catch(() => null);
}

async function countCalls(drill: Drill<PinsetDrillDeps>): Promise<readonly string[]> {
  const names: string[] = [];
  const outcome = await tryRun(drill, { before: (name) => void names.push(name), after: () => {} });
  expect(outcome?.state).toBe("passed");
  await drill.cleanUp(box.deps, context());
  expect(left()).toEqual(NOTHING);
  return names;
}

const DRILLS: readonly [string, Drill<PinsetDrillDeps>][] = [
  ["D6", snapshotDrill],
  ["D7", sweepDrill],
];

describe.each(DRILLS)("%s, interrupted", (id, drill) => {
  test("stopped at each of its calls, it does not pass, and the next clean-up leaves nothing", async () => {
    const names = await countCalls(drill);
    expect(names.length).toBeGreaterThan(30);
    for (const [at, name] of names.entries()) {
      let calls = 0;
      const stop = new AbortController();
      const before = (): void => {
        if (calls === at) stop.abort();
        calls += 1;
      };
      const startMs = performance.now();
      const outcome = await tryRun(drill, { before, after: () => {} }, stop.signal);
      expect(performance.now() - startMs, name).toBeLessThan(10_000);
      // At the end it has proven everything already.
      if (at < names.length - 10) expect(outcome?.state, name).not.toBe("passed");
      const later = calls - at - 1;
      await drill.cleanUp(box.deps, context());
      expect(left(), `stopped at call ${at}: ${name}`).toEqual(NOTHING);
      // It may finish what it is in the middle of, but nothing more of what it would do.
      expect(later, `calls after call ${at}: ${name}`).toBeLessThan(15);
    }
  }, 180_000);

  test("dead before or after each of its calls, the next clean-up leaves nothing", async () => {
    const names = await countCalls(drill);
    for (const phase of ["before", "after"] as const)
      for (const [at, name] of names.entries()) {
        let calls = 0;
        let isDead = false;
        const die = (): void => {
          isDead = true;
          throw new Error("killed");
        };
        await tryRun(drill, {
          before: () => {
            if (isDead || (phase === "before" && calls === at)) die();
            calls += 1;
          },
          after: () => {
            if (phase === "after" && calls === at + 1) die();
          },
        });
        expect(isDead, `${phase} call ${at}: ${name}`).toBe(true);
        await drill.cleanUp(box.deps, context());
        expect(left(), `killed ${phase} call ${at}: ${name}`).toEqual(NOTHING);
      }
  }, 180_000);

  test("kill -9 of its process: the next clean-up leaves nothing", async () => {
    const place = { base: box.base, clusterUrl: cluster.url, kuboUrl: kubo.url };
    const runChild = (killAt: number) =>
      execa(process.execPath, ["--input-type=module"], {
        input: child,
        env: { DRILL: JSON.stringify({ place, id, killAt, registered: box.registered }) },
        reject: false,
      });
    const whole = await runChild(-1);
    const { state, calls } = JSON.parse(whole.stdout) as { state: string; calls: number };
    expect(state).toBe("passed");
    await drill.cleanUp(box.deps, context());
    let seen = 0;
    for (let part = 1; part <= 6; part += 1) {
      const { signal } = await runChild(Math.floor((calls * part) / 7));
      expect(signal).toBe("SIGKILL");
      if (left().pins.length > 0) seen += 1;
      await drill.cleanUp(box.deps, context());
      expect(left()).toEqual(NOTHING);
    }
    expect(seen).toBeGreaterThan(0);
  }, 120_000);
});
