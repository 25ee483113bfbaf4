import { expect } from "vitest";
import { FIRST_JOIN, fulaNode, PROGRAM } from "../support/artifact.ts";
import { cidOf } from "../support/cids.ts";
import { expectMaster, watchSecrets } from "../support/kill-boxes.ts";
import { ALL_HEALTHY, clusterUrl, expectExit, health, psql } from "../support/master-box.ts";
import { bootForCuts, CutJoin } from "../support/power-cuts.ts";
import { pinset } from "../support/storage-boxes.ts";
import { matrix, times } from "./cases.ts";

const CUTS = 5;
const PINS = 20;
const EMAIL = "you@example.org";

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

matrix("join-as-master, its power cut: the page cache is lost", [
  ...times(2, "five cuts, with images that it pulls", (random) => fiveCuts(random, "fresh")),
  ...times(2, "five cuts, with images on the disk", (random) => fiveCuts(random, "seeded")),
]);

matrix("a master, its power cut right after it acknowledged something", [
  {
    name: "pins of ipfs-cluster, requests to the pinning API, a snapshot",
    run: async () => {
      const box = await bootForCuts("seeded");
      try {
        expectExit(await fulaNode(box, FIRST_JOIN), 0);
        expectExit(await fulaNode(box, ["user", "create", "--email", EMAIL]), 0);
        const credit = ["user", "credit", "25", "--email", EMAIL, "--reason", "a test", "--key", "1"];
        expectExit(await fulaNode(box, credit), 0);
        const token = await fulaNode(box, ["user", "token", "--email", EMAIL]);
        expectExit(token, 0);
        const key = token.stdout.trim().split("\n").at(-1) ?? "";
        const url = await clusterUrl(box);
        const names = (kind: string): readonly string[] =>
          Array.from({ length: PINS }, (_, index) => cidOf(`${kind} ${index}`));
        const posts = (lines: (cid: string) => readonly string[], cids: readonly string[]): string =>
          cids
            .map((cid) =>
              [
                ...lines(cid),
                'request = "POST"',
                'output = "/dev/null"',
                String.raw`write-out = "%{http_code}\n"`,
              ].join("\n"),
            )
            .join("\nnext\n");
        const send = "curl -s --parallel --parallel-max 8 -K ";

        const pins = names("a pin");
        const before = await pinset(box);
        await box.writeFile(
          "/root/pins",
          posts((cid) => [`url = "${url}/pins/${cid}"`], pins),
          0o600,
        );
        expect((await box.cutPower(`${send} /root/pins`)).match(/200/g)).toHaveLength(PINS);
        await box.start();
        await expect.poll(() => health(box), { timeout: 180_000, interval: 500 }).toEqual(ALL_HEALTHY);
        expect(await pinset(box)).toEqual(new Set([...before, ...pins]));

        const requests = names("a request");
        await box.writeFile(
          "/root/requests",
          posts(
            (cid) => [
              'url = "http://127.0.0.1:6000/pins"',
              'header = "content-type: application/json"',
              `header = "authorization: Bearer ${key}"`,
              `data = "{\\"cid\\":\\"${cid}\\"}"`,
            ],
            requests,
          ),
          0o600,
        );
        expect((await box.cutPower(`${send} /root/requests`)).match(/202/g)).toHaveLength(PINS);
        await box.start();
        await expect.poll(() => health(box), { timeout: 180_000, interval: 500 }).toEqual(ALL_HEALTHY);
        const stored = (await psql(box, "SELECT cid FROM pins")).split("\n");
        expect(stored).toEqual(expect.arrayContaining([...requests]));

        const taken = await box.cutPower(`node ${PROGRAM} snapshot take --json`);
        const { name: snapshot } = JSON.parse(taken) as { name: string };
        await box.start();
        expectExit(await fulaNode(box, ["snapshot", "verify", snapshot]), 0);
        await expect.poll(() => health(box), { timeout: 180_000, interval: 500 }).toEqual(ALL_HEALTHY);
        await expectMaster(box);
        return `3 cuts; ${PINS} pins, ${PINS} requests and a snapshot kept`;
      } finally {
        await box.destroy();
      }
    },
  },
]);
