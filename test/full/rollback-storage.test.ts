import { expect } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { PROGRAM } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { FORMER_PROGRAM, installFormerRelease } from "../support/former-release.ts";
import { expectExit, health } from "../support/master-box.ts";
import {
  bootFederation,
  bootNode,
  by,
  invite,
  members,
  peerId,
  pinContent,
  PRIVATE_NETWORK,
  stored,
  untilStored,
} from "../support/storage-boxes.ts";
import { matrix } from "./cases.ts";

const LINK = "/opt/fula-storage/cli/current";
const JOIN = ["join-as-storage-node", "--yes", "--allow-http"] as const;
const BACK = ["join-as-storage-node", "--rollback", "--yes"] as const;

/** A storage node of the former version, upgraded, rolled back by two runs of which the first is killed, and upgraded again. */
async function thereAndBack(master: Box, node: Box): Promise<string> {
  const cids: string[] = [];
  const linked = async (): Promise<string> => (await node.run(`readlink ${LINK}`)).stdout.trim();
  const know = async (): Promise<unknown> => ({
    peers: [await peerId(node), (await node.run("docker exec ipfs_host ipfs id -f '<id>'")).stdout],
    pins: [...(await stored(node))].toSorted(),
  });
  const works = () =>
    eventually(
      "the node works, and the master sees it",
      async () =>
        Object.values(await health(node)).every((state) => state === "running healthy") &&
        (await members(master)).includes("one"),
      180_000,
    );

  await installFormerRelease(node);
  const invited = await invite(master, "one");
  expectExit(await node.exec(["node", FORMER_PROGRAM, ...JOIN, ...by(invited), ...PRIVATE_NETWORK]), 0);
  const former = await linked();
  for (let count = 0; count < 3; count += 1) cids.push(await pinContent(master));
  await untilStored([node], cids);
  expectExit(await node.exec(["node", PROGRAM, ...JOIN]), 0);
  await works();
  const known = await know();
  expect(await linked()).toBe(manifest.version);

  const running = node.exec(["node", PROGRAM, ...BACK]);
  await node.run(
    `until [ "$(readlink ${LINK})" = ${former} ]; do sleep 0.05; done; pkill -9 -f '[p]ackage/bin/fula-node.js join-as-storage-node --rollback'; pkill -9 -f '[j]oin-as-storage-node --yes' || true`,
  );
  expect((await running).exitCode).toBe(137);
  expectExit(await node.exec(["node", PROGRAM, ...BACK]), 0);
  expect(await linked()).toBe(former);
  await works();
  expect(await know()).toEqual(known);
  cids.push(await pinContent(master));
  await untilStored([node], cids);

  expectExit(await node.exec(["node", PROGRAM, ...JOIN]), 0);
  expect(await linked()).toBe(manifest.version);
  await works();
  await untilStored([node], cids);
  return `${manifest.version} -> ${former}, killed and run again -> ${manifest.version}; same peers, ${cids.length} pins`;
}

matrix("join-as-storage-node --rollback", [
  {
    name: "to the version before, killed in the middle, and up again",
    run: async () => {
      const network = await Box.network();
      const boxes: Box[] = [];
      try {
        boxes.push(...(await Promise.all([bootFederation(network), bootNode("one", network)])));
        const [master, node] = boxes;
        if (master === undefined || node === undefined) throw new Error("two boxes");
        return await thereAndBack(master, node);
      } finally {
        await Promise.all(boxes.map((box) => box.destroy()));
        await Box.removeNetwork(network);
      }
    },
  },
]);
