import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Cluster, openCluster } from "../../src/cluster/client.ts";
import { cidOf } from "../support/cids.ts";
import { apiPin, type DoublePin, startClusterDouble } from "../support/cluster-double.ts";
import { findPrograms, startRealCluster } from "../support/cluster-real.ts";

const PINS: readonly DoublePin[] = Array.from({ length: 3000 }, (_, index) => ({
  cid: cidOf(`contract ${index}`),
  name: `ünïcode ${index}`,
  metadata: index % 2 === 0 ? { owner: `u${index}` } : null,
}));

interface Subject {
  readonly url: string;
  readonly stop: () => Promise<void>;
}

const programs = await findPrograms();
if (typeof programs === "string" && process.env["CI"] !== undefined) throw new Error(programs);
if (typeof programs === "string") console.warn(`skipped: the contract on the real ipfs-cluster: ${programs}`);

const subjects: readonly {
  readonly name: string;
  readonly start: (pins: readonly DoublePin[]) => Promise<Subject>;
}[] = [
  {
    name: "the double",
    start: (pins) => startClusterDouble({ pins }),
  },
  ...(typeof programs === "string"
    ? []
    : [
        {
          name: "the real ipfs-cluster",
          start: async (pins: readonly DoublePin[]): Promise<Subject> => {
            const pinset = pins.map((pin) => `${JSON.stringify(apiPin(pin))}\n`).join("");
            const real = await startRealCluster(programs, { peers: 1, pinset });
            return { url: (real.peers[0] as { apiUrl: string }).apiUrl, stop: () => real.stop() };
          },
        },
      ]),
];

describe.each(subjects)("a cluster client on $name", ({ start }) => {
  let subject: Subject;
  let cluster: Cluster;
  beforeAll(async () => {
    subject = await start(PINS);
    cluster = openCluster({ endpoint: subject.url });
  });
  afterAll(async () => {
    cluster?.close();
    await subject?.stop();
  });

  test("gives its identity and its members", async () => {
    const me = await cluster.identity();
    expect(me.id).toMatch(/^12D3KooW/);
    expect(me.version).toBe("1.1.6");
    expect(await cluster.peers()).toEqual([expect.objectContaining({ id: me.id, error: "", ipfsError: "" })]);
  });

  test("gives metrics, and an empty list for an unknown name", async () => {
    const me = await cluster.identity();
    expect(await cluster.metrics("ping")).toContainEqual(
      expect.objectContaining({ peer: me.id, valid: true }),
    );
  });

  test("lists every desired pin once, in whole lines", async () => {
    const lines: string[] = [];
    const listing = await cluster.list("allocations", (block) => {
      expect(block.at(-1)).toBe(0x0a);
      lines.push(...block.toString("utf8").trimEnd().split("\n"));
    });
    const pins = lines.map((line) => JSON.parse(line) as { cid: string; name: string });
    expect(pins.map((pin) => pin.cid).sort()).toEqual(PINS.map((pin) => pin.cid).sort());
    expect(new Set(pins.map((pin) => pin.name))).toEqual(new Set(PINS.map((pin) => pin["name"])));
    expect(listing.noContent).toBe(false);
  });

  test("makes the server wait while the receiver is busy", async () => {
    let blocks = 0;
    let busy = false;
    await cluster.list("allocations", async () => {
      expect(busy).toBe(false);
      busy = true;
      await new Promise((resolve) => setImmediate(resolve));
      busy = false;
      blocks += 1;
    });
    expect(blocks).toBeGreaterThan(1);
  });

  test("lists the status of every pin", async () => {
    let pins = 0;
    await cluster.list("status", (block) => {
      pins += block.toString("latin1").split("\n").length - 1;
    });
    expect(pins).toBe(PINS.length);
  });

  test("gives the pin of a desired CID, and null for another CID", async () => {
    const cid = (PINS[7] as DoublePin).cid;
    expect(await cluster.allocation(cid)).toMatchObject({ cid, name: "ünïcode 7", type: "pin" });
    expect(await cluster.allocation(cidOf("never pinned"))).toBeNull();
    expect(await cluster.status(cid)).toMatchObject({ cid, peer_map: {} });
  });

  test("recovers a CID", async () => {
    await cluster.recover((PINS[0] as DoublePin).cid);
  });

  test("pins a CID, takes it out again, and says if it was not there", async () => {
    const cid = cidOf("pinned and unpinned");
    expect(await cluster.unpin(cid)).toBe("absent");
    expect(await cluster.pin(`/pins/${cid}?name=x`)).toEqual({ kind: "done" });
    expect(await cluster.allocation(cid)).toMatchObject({ cid, name: "x" });
    expect(await cluster.unpin(cid)).toBe("removed");
    expect(await cluster.allocation(cid)).toBeNull();
    await expect(cluster.unpin("no-cid")).rejects.toMatchObject({ exit: "unavailable" });
  });

  test("throws the error of the receiver", async () => {
    const refusal = new Error("no more");
    await expect(
      cluster.list("allocations", () => {
        throw refusal;
      }),
    ).rejects.toBe(refusal);
    await expect(cluster.list("allocations", () => Promise.reject(refusal))).rejects.toBe(refusal);
  });
});

describe.each(subjects)("an empty pinset on $name", ({ start }) => {
  test("is reported as no content", async () => {
    const subject = await start([]);
    const cluster = openCluster({ endpoint: subject.url });
    try {
      const listing = await cluster.list("allocations", () => expect.unreachable());
      expect(listing).toEqual({ noContent: true, bytes: 0 });
    } finally {
      cluster.close();
      await subject.stop();
    }
  });
});
