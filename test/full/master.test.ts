import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { FIRST_JOIN, fulaNode } from "../support/artifact.ts";
import type { Box, ExecResult } from "../support/box.ts";
import { endStateOf } from "../support/end-state.ts";
import { expectConverged, withBox } from "../support/fault-boxes.ts";
import { walkJoin } from "../support/kill-boxes.ts";
import { clusterUrl, ALL_HEALTHY, expectExit, health } from "../support/master-box.ts";
import { pinset } from "../support/storage-boxes.ts";
import { matrix, times } from "./cases.ts";

/** A little longer than a first join, with every image on the box and other boxes at work. */
const JOIN_MS = 15_000;

/** Runs the first join, and interrupts it with this after some time. Null if the join had ended before. */
async function interrupt(box: Box, afterMs: number, cut: () => Promise<void>): Promise<ExecResult | null> {
  const joining = fulaNode(box, FIRST_JOIN);
  const ended = await Promise.race([joining.then(() => true), sleep(afterMs, false)]);
  if (ended) return null;
  await cut();
  return await joining;
}

/**
 * Interrupts a first join at a random moment, by `cut`, then starts the box again and repeats the join: it must end as a complete
 * master with what it had written. A join that ended before its moment proves nothing, so another one starts with another moment.
 */
async function interruptAndRepeat(
  random: () => number,
  { cut, back }: { readonly cut: (box: Box) => Promise<void>; readonly back: (box: Box) => Promise<void> },
): Promise<string> {
  for (let attempt = 1; attempt <= 10; attempt += 1) {
    const where = await withBox("docker", async (box) => {
      const afterMs = random() * JOIN_MS;
      const result = await interrupt(box, afterMs, () => cut(box));
      if (result === null || result.exitCode === 0) return null;
      await back(box);
      const at = `${Math.round(afterMs)} ms: ${await whereItWas(box)}`;
      await expectConverged(box, await endStateOf(box));
      return at;
    });
    if (where !== null) return where;
  }
  throw new Error("ten joins ended before their moments");
}

/** How far a run had come when it was cut off: the newest line of its journal. */
async function whereItWas(box: Box): Promise<string> {
  const journal = await box.exec("tail -n 1 /opt/fula-master/journal.ndjson");
  const { phase, step, change } = JSON.parse(journal.stdout || "{}") as {
    phase?: string;
    step?: string;
    change?: { kind: string };
  };
  return phase === undefined ? "before the first change" : `${phase} ${step} ${change?.kind}`;
}

matrix("join-as-master, killed", [
  ...(["plain", "docker"] as const).flatMap((image) =>
    (
      [
        ["after every change", "done", 1],
        ["before every change, its intent on disk", "intent", 2],
      ] as const
    ).map(([when, phase, count]) => ({
      name: `${when}, on a ${image} box`,
      run: () =>
        withBox(image, async (box) => {
          const kills = await walkJoin(box, phase, count);
          expect(kills).toBeGreaterThan(12);
          return `${kills} kills`;
        }),
    })),
  ),
  ...times(16, "at a random moment", (random) =>
    interruptAndRepeat(random, {
      cut: async (box) => void (await box.exec("pkill -KILL -f 'fula-node.js join-as-master'")),
      back: () => Promise.resolve(),
    }),
  ),
]);

matrix("join-as-master, its box cut off from power", [
  ...times(12, "at a random moment", (random) =>
    interruptAndRepeat(random, {
      cut: (box) => box.kill(),
      back: async (box) => {
        expect((await box.exec("true")).stderr).toContain("is not running");
        await box.start();
      },
    }),
  ),
]);

matrix("ipfs-cluster, killed right after it took pins", [
  {
    name: "twenty times",
    run: () =>
      withBox("docker", async (box) => {
        expectExit(await fulaNode(box, FIRST_JOIN), 0);
        const restarts = async (): Promise<string> =>
          (await box.run("docker inspect --format '{{.RestartCount}}' ipfs_cluster")).stdout;
        for (let round = 1; round <= 20; round += 1) {
          const cids = (
            await box.run(
              `for i in $(seq 200); do echo ${round} $i; done | docker exec -i ipfs_host sh -c 'mkdir -p /tmp/p && cd /tmp/p && rm -f * && while read -r line; do echo "$line" >"$(echo "$line" | tr " " -)"; done; ipfs --api=/ip4/127.0.0.1/tcp/5001 add -r -q --cid-version=1 --pin=false /tmp/p'`,
            )
          ).stdout
            .split("\n")
            .slice(0, 200);
          const before = await pinset(box);
          const url = await clusterUrl(box);
          const posts = cids.map(
            (cid) =>
              `url = "${url}/pins/${cid}"\nrequest = "POST"\noutput = "/dev/null"\nwrite-out = "%{http_code}\\n"`,
          );
          const script =
            "curl -s --parallel --parallel-max 32 -K - && kill -KILL $(pidof ipfs-cluster-service)";
          const answers = await box.run(script, { input: posts.join("\nnext\n") });
          expect(answers.stdout.match(/200/g)).toHaveLength(200);
          await expect.poll(restarts, { timeout: 60_000, interval: 200 }).toBe(String(round));
          await expect.poll(() => health(box), { timeout: 120_000, interval: 1000 }).toEqual(ALL_HEALTHY);
          expect(await pinset(box)).toEqual(new Set([...before, ...cids]));
        }
        return "20 kills, 4000 pins, none lost";
      }),
  },
]);
