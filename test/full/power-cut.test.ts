import { expect } from "vitest";
import { FIRST_JOIN, fulaNode, PROGRAM } from "../support/artifact.ts";
import { whyNoDisks } from "../support/box-disk.ts";
import type { Box } from "../support/box.ts";
import { cidOf } from "../support/cids.ts";
import { expectMaster, watchSecrets } from "../support/kill-boxes.ts";
import { ALL_HEALTHY, clusterUrl, expectExit, health, psql, skipped } from "../support/master-box.ts";
import { bootForCuts, CutJoin } from "../support/power-cuts.ts";
import { pinset } from "../support/storage-boxes.ts";
import { matrix, times } from "./cases.ts";

const CUTS = 5;
const PINS = 20;
const EMAIL = "you@example.org";
/** Without such a disk, test/contract/durability.test.ts is what is left: it records the order of the calls. */
const unless = skipped ?? (await whyNoDisks());
if (unless !== undefined) console.warn(`skipped: no power cuts: ${unless}`);

/** Cuts a join five times, repeats it to its end, and checks the master. */
async function fiveCuts(random: () => number, images: "fresh" | "seeded"): Promise<string> {
  const box = await bootForCuts(images);
  try {
    const checkSecrets = watchSecrets(box);
    const join = new CutJoin(box);
    const where: string[] = [];
    for (let cut = 0; cut < CUTS; cut += 1) {
      const began = performance.now();
      const at = await join.cutOnce(random);
      where.push(`${at} (${Math.round((performance.now() - began) / 1000)} s)`);
      await checkSecrets();
    }
    const again = await fulaNode(box, FIRST_JOIN);
    expect(again.exitCode, `${where.join(", ")}\n${again.stdout}\n${again.stderr}`).toBe(0);
    await checkSecrets();
    await expectMaster(box);
    return `${where.join("; ")}; kept: ${join.kept}`;
  } finally {
    await box.destroy();
  }
}

/** A file for curl with one request for each CID. */
function postsOf(cids: readonly string[], lines: (cid: string) => readonly string[]): string {
  const always = ['request = "POST"', 'output = "/dev/null"', String.raw`write-out = "%{http_code}\n"`];
  return cids.map((cid) => [...lines(cid), ...always].join("\n")).join("\nnext\n");
}

function cidsOf(kind: string): readonly string[] {
  return Array.from({ length: PINS }, (_, index) => cidOf(`${kind} ${index}`));
}

const LAST_LINES =
  'for name in $(docker ps -a --format "{{.Names}}"); do echo "== $name"; docker logs --tail 8 "$name" 2>&1; done';

/** Starts a box again after a cut, and waits until everything is healthy. */
async function startAgain(box: Box): Promise<void> {
  await box.start();
  try {
    await expect.poll(() => health(box), { timeout: 300_000, interval: 500 }).toEqual(ALL_HEALTHY);
  } catch (thrown) {
    const { stdout } = await box.exec(LAST_LINES);
    throw new Error(stdout, { cause: thrown });
  }
}

/** Cuts a master's power right after it said yes to pins, to requests and to a snapshot. */
async function acknowledgedThings(): Promise<string> {
  const box = await bootForCuts("seeded");
  const run = async (...args: readonly string[]): Promise<string> => {
    const result = await fulaNode(box, args);
    expectExit(result, 0);
    return result.stdout;
  };
  /** Sends the requests at once, counts the answers with this code, and cuts. */
  const sendAndCut = async (requests: string, code: RegExp): Promise<void> => {
    await box.writeFile("/root/requests", requests, 0o600);
    const answers = await box.cutPower("curl -s --parallel --parallel-max 8 -K /root/requests");
    expect(answers.match(code), answers).toHaveLength(PINS);
    await startAgain(box);
  };
  try {
    await run(...FIRST_JOIN);
    await run("user", "create", "--email", EMAIL);
    await run("user", "credit", "25", "--email", EMAIL, "--reason", "a test", "--key", "1");
    const key = (await run("user", "token", "--email", EMAIL)).trim().split("\n").at(-1);

    const [pins, requests] = [cidsOf("a pin"), cidsOf("a request")];
    const [before, url] = [await pinset(box), await clusterUrl(box)];
    await sendAndCut(
      postsOf(pins, (cid) => [`url = "${url}/pins/${cid}"`]),
      /^200$/gm,
    );
    expect([...(await pinset(box))]).toEqual(expect.arrayContaining([...before, ...pins]));

    await sendAndCut(
      postsOf(requests, (cid) => [
        'url = "http://127.0.0.1:6000/pins"',
        'header = "content-type: application/json"',
        `header = "authorization: Bearer ${key}"`,
        `data = "{\\"cid\\":\\"${cid}\\"}"`,
      ]),
      /^202$/gm,
    );
    const stored = (await psql(box, "SELECT cid FROM pins")).split("\n");
    expect(stored).toEqual(expect.arrayContaining([...requests]));

    const taken = await box.cutPower(`node ${PROGRAM} snapshot take --json`);
    const { name } = JSON.parse(taken) as { name: string };
    await startAgain(box);
    await run("snapshot", "verify", name);
    await expectMaster(box);
    return `3 cuts; ${PINS} pins, ${PINS} requests and a snapshot kept`;
  } finally {
    await box.destroy();
  }
}

/** The cut itself: what was synced stays, and what was not is lost, although the box and its machine had it in memory. */
async function whatACutLoses(): Promise<string> {
  const box = await bootForCuts("fresh");
  try {
    await box.run(
      "cd /opt && echo 1 >synced && sync synced && sync . && echo 2 >unsynced && mv synced renamed",
    );
    expect((await box.cutPower("ls /opt")).split("\n")).toEqual(["renamed", "unsynced"]);
    await box.start();
    expect((await box.run("ls /opt; cat /opt/*")).stdout.split("\n")).toEqual(["synced", "1"]);
    return "a file and a rename without a sync are lost, a synced file is there";
  } finally {
    await box.destroy();
  }
}

matrix(
  "a power cut itself",
  [{ name: "loses what is not synced, and only that", run: whatACutLoses }],
  unless,
);

matrix(
  "join-as-master, its power cut: the page cache is lost",
  [
    ...times(2, "five cuts, with images that it pulls", (random) => fiveCuts(random, "fresh")),
    ...times(2, "five cuts, with images on the disk", (random) => fiveCuts(random, "seeded")),
  ],
  unless,
);

matrix(
  "a master, its power cut right after it said yes",
  [{ name: "to pins, to requests for pins, and to a snapshot", run: acknowledgedThings }],
  unless,
);
