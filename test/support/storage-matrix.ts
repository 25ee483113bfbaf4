import { Box, type Checkpoint } from "./box.ts";
import { untilHealthy } from "./crash-matrices.ts";
import type { CrashMatrix } from "./crash-matrix.ts";
import { type EndState, endStateOf } from "./end-state.ts";
import { psql } from "./master-box.ts";
import {
  bootFederation,
  bootNode,
  by,
  type CreatedInvite,
  invite,
  openStorageApi,
  peerId,
  PRIVATE_NETWORK,
} from "./storage-boxes.ts";

/** What a master knows of its nodes: names, invites that were used, peers. Each is told without keys and times. */
const KNOWN = `
  SELECT 'name ' || name FROM node_names
  UNION ALL SELECT 'descriptors ' || count(*) FROM node_descriptors
  UNION ALL SELECT 'invites ' || count(*) FROM invites
  ORDER BY 1`;

/**
 * A storage node joins the pool of a real master. A node's name can be taken once, so each point has a master of its own: both boxes
 * are made from checkpoints, on a network of their own.
 */
export function storageMatrix(): CrashMatrix {
  let made: { readonly invited: CreatedInvite; readonly savedMaster: Checkpoint } | undefined;
  const dispose: (() => Promise<void>)[] = [];
  const masters = new Map<Box, Box>();
  const known = () => {
    if (made === undefined) throw new Error("the boxes are not prepared");
    return made;
  };

  const prepare = async (): Promise<Box> => {
    const network = await Box.network();
    dispose.push(() => Box.removeNetwork(network));
    const master = await bootFederation(network);
    dispose.unshift(() => master.destroy());
    const node = await bootNode("one", network);
    // A master that is made from the checkpoint has the same name, and another address.
    const bootstrap = ["--bootstrap", `/dns4/master/tcp/9096/p2p/${await peerId(master)}`];
    made = { invited: await invite(master, "one", bootstrap), savedMaster: await master.save() };
    return node;
  };

  const boot = async (from: Checkpoint) => {
    const own = await Box.network();
    const boxes: Box[] = [];
    const destroy = async (): Promise<void> => {
      await Promise.all(boxes.map((box) => box.destroy()));
      await Box.removeNetwork(own);
    };
    try {
      const beside = await Box.bootFrom(known().savedMaster, own);
      boxes.push(beside);
      const box = await Box.bootFrom(from, own);
      boxes.push(box);
      masters.set(box, beside);
      await untilHealthy(beside);
      await openStorageApi(beside);
      return { box, destroy };
    } catch (error) {
      await destroy();
      throw error;
    }
  };
  const endState = async (box: Box): Promise<EndState> => {
    const state = await endStateOf(box);
    const beside = masters.get(box);
    if (beside === undefined) throw new Error("a node without its master");
    const things = { ...state.things, "what the master knows": await psql(beside, KNOWN) };
    // Each point has a network of its own.
    const [own, other] = [await box.address(), await beside.address()];
    const named = (text: string): string => text.replaceAll(own, "<node>").replaceAll(other, "<master>");
    return {
      ...state,
      things: Object.fromEntries(Object.entries(things).map(([name, text]) => [name, named(text)])),
    };
  };
  return {
    name: "join-as-storage-node",
    prepare,
    boot,
    dispose: async () => {
      for (const one of dispose) await one();
    },
    get command() {
      // What the disk has left is the default, and other boxes use the same disk meanwhile.
      const size = ["--set", "KUBO_STORAGE_MAX=10GB"];
      return [
        "join-as-storage-node",
        "--yes",
        "--allow-http",
        ...by(known().invited),
        ...PRIVATE_NETWORK,
        ...size,
      ];
    },
    journal: "/opt/fula-storage/journal.ndjson",
    endState,
  };
}
