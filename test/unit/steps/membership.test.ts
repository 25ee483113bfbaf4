import { describe, expect, it } from "vitest";
import { lookAt } from "../../support/master-boxes.ts";
import { makeIdentityFile } from "../../support/node-identity.ts";
import {
  FakeStorage,
  MASTER_ID,
  MASTER_KUBO,
  OWN,
  storageBoxBefore,
  type StorageOptions,
  storageStepOn,
} from "../../support/storage-fake.ts";

const step = (host: FakeStorage, wishes: StorageOptions = {}) => storageStepOn(host, "membership", wishes);
const verify = async (host: FakeStorage, wishes: StorageOptions = {}) =>
  (await step(host, wishes)).verify(host);
const elapsedMs = async (host: FakeStorage, work: () => Promise<void>) => {
  const begun = host.clock.now().getTime();
  await work();
  return host.clock.now().getTime() - begun;
};

const TWO_MASTERS = { MASTER_CLUSTER_PEERIDS: `${MASTER_ID},${makeIdentityFile().peerId}` };

describe("membership", () => {
  it("plans nothing, and is content once a master counts this node", async () => {
    const host = await storageBoxBefore(null);
    expect((await lookAt(await step(host), host)).changes).toEqual([]);
    await verify(host);
    expect(host.printed.at(-1)).toBe("3 of 3 pins known here");
  });

  it("says whether no master is connected, or one that does not count this node", async () => {
    const host = await storageBoxBefore(null);
    host.isCounted = false;
    await expect(verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      why: expect.stringContaining("does not list"),
    });
    host.isMasterConnected = false;
    await expect(verify(host)).rejects.toMatchObject({
      why: expect.stringContaining(`None of the masters (${MASTER_ID})`),
    });
  });

  it("of a node whose kubo has no peers comes with what to do about it", async () => {
    const host = await storageBoxBefore(null);
    host.kuboPeers = 0;
    await expect(verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      remedy: expect.stringContaining("KUBO_PRIVATE_NETWORK=true"),
    });
    const printed = host.printed.join("\n");
    for (const tries of ["1 time", "10 times", "20 times"])
      expect(printed).toContain(`waiting for kubo to connect to another node, tried ${tries}`);
  });
});

describe("pins that an older removal took out of kubo while the pinset arrived", () => {
  const MISSING = "unexpectedly_unpinned";

  it("are pinned again before the join says that everything works", async () => {
    const host = await storageBoxBefore(null);
    host.statuses = ["pinned", MISSING, MISSING];
    await verify(host);
    expect(host.recovered).toEqual(["1", "2"]);
    expect(host.statuses).toEqual(["pinned", "pinning", "pinning"]);
    const printed = host.printed.join("\n");
    expect(printed).toContain("2 pins removed by an older change, pinning again");
    expect(printed).not.toContain('"warning"');
  });

  it("are a warning if ipfs-cluster does not pin them again", async () => {
    const host = await storageBoxBefore(null);
    host.statuses = [MISSING];
    host.canRecover = false;
    expect(await elapsedMs(host, () => verify(host))).toBeGreaterThan(30_000);
    expect(host.printed.at(-1)).toContain("1 pin of the pinset is not on this node, and not being fetched");
  });

  it("are not confused with direct pins, about which the list is wrong", async () => {
    const host = await storageBoxBefore(null);
    host.statuses = [MISSING];
    host.directPins.add("0");
    expect(await elapsedMs(host, () => verify(host))).toBeLessThan(1_000);
    expect(host.printed.at(-1)).toBe("3 of 3 pins known here");
  });
});

describe("a node whose kubo has no peers yet", () => {
  /** How a request to connect to all addresses of the master's kubo, except its loopback, is answered. */
  const onConnect = (host: FakeStorage, answer: () => { status: number; body: unknown } | null): void => {
    const args = MASTER_KUBO.slice(1).map((address) => `arg=${encodeURIComponent(address)}`);
    host.http.routes.set(`http://127.0.0.1:5001/api/v0/swarm/connect?${args.join("&")}`, answer);
  };

  it("gives it all addresses of the master's kubo at once, and waits no longer", async () => {
    const host = await storageBoxBefore(null);
    host.kuboPeers = 0;
    onConnect(host, () => ({ status: 200, body: { Strings: ["connect 12D3KooWKubo success"] } }));
    expect(await elapsedMs(host, () => verify(host))).toBeLessThan(1_000);
    expect(host.printed.join("\n")).not.toContain("waiting for kubo");
  });

  it("tries again, and says at the end why kubo could not connect", async () => {
    const host = await storageBoxBefore(null);
    host.kuboPeers = 0;
    let asked = 0;
    onConnect(host, () => {
      asked += 1;
      return { status: 500, body: { Message: "failure: failed to dial 12D3KooWKubo" } };
    });
    await expect(verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      why: "failure: failed to dial 12D3KooWKubo",
    });
    expect(asked).toBeGreaterThan(10);
  });

  it("asks for nothing where kubo is connected", async () => {
    const host = await storageBoxBefore(null);
    let asked = 0;
    onConnect(host, () => {
      asked += 1;
      return null;
    });
    await verify(host);
    expect(asked).toBe(0);
  });
});

describe("a node whose kubo does not say to which nodes it is connected", () => {
  it("does not count as connected", async () => {
    const host = await storageBoxBefore(null);
    host.http.routes.set("http://127.0.0.1:5001/api/v0/swarm/peers", () => ({ status: 500, body: {} }));
    await expect(verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringContaining("does not say") as string,
    });
  });
});

describe("the pinset of a node whose master tells its count", () => {
  it("is waited for until it has as many pins, and no longer", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 0, masterPins: 50 });
    host.clock.onWait = () => void (host.pins = Math.min(50, host.pins + 5));
    expect(await elapsedMs(host, () => verify(host))).toBeLessThan(15_000);
    expect(host.printed.join("\n")).toMatch(
      /^10 of 50 pins known here, waiting for the rest \(\d+ ms left\)$/m,
    );
    expect(host.printed.at(-1)).toBe("50 of 50 pins known here");
  });

  it("is enough between two counts of a master that is busy", async () => {
    const host = await storageBoxBefore(null);
    Object.assign(host, { pins: 103, masterPins: 100 });
    host.clock.onWait = () => void Object.assign(host, { pins: host.pins + 1, masterPins: host.pins + 2 });
    expect(await elapsedMs(host, () => verify(host))).toBeLessThan(15_000);
    expect(host.printed.at(-1)).toMatch(
      /^\d+ pins known here; the master counted 100 to \d+ during the wait$/,
    );
  });

  it("is waited for where both have none in a pool of several masters: one that has not synced itself counts none", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 0, masterPins: 0 });
    const news = host.clock.now().getTime() + 40_000;
    host.clock.onWait = (now) => {
      if (now.getTime() > news) Object.assign(host, { pins: 7, masterPins: 7 });
    };
    await verify(host, { set: TWO_MASTERS });
    expect(host.printed.join("\n")).toMatch(/waiting for the first update from a master \(\d+ ms left\)/);
    expect(host.printed.at(-1)).toBe("7 of 7 pins known here");
  });

  it("is none once the first news would have come, where a pool of several masters has none", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 0, masterPins: 0 });
    const several = { set: TWO_MASTERS };
    expect(await elapsedMs(host, () => verify(host, several))).toBeGreaterThanOrEqual(75_000);
    expect(host.printed.at(-1)).toBe("No pins known here, and none on the master");
  });

  it("is none as soon as the only master of the pool lists this node and has none itself", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 0, masterPins: 0, isCounted: false });
    const listed = host.clock.now().getTime() + 10_000;
    host.clock.onWait = (now) => void (host.isCounted = now.getTime() >= listed);
    expect(await elapsedMs(host, () => verify(host))).toBeLessThan(12_000);
    expect(host.printed.join("\n")).not.toContain("waiting for the first update");
    expect(host.printed.at(-1)).toBe("No pins known here, and none on the master");
  });

  it("is waited for on a node that has been up for long, too", async () => {
    const host = await storageBoxBefore(null);
    await host.clock.wait(3_600_000);
    Object.assign(host, { pins: 3, masterPins: 4 });
    host.clock.onWait = () => void (host.pins = 4);
    await verify(host);
    expect(host.printed.at(-1)).toBe("4 of 4 pins known here");
  });

  it("warns, and does not fail, where it is still behind when the time is over", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 2, masterPins: 5 });
    await verify(host);
    expect(host.printed.at(-1)).toMatch(/"type":"warning".*2 of 5 pins are known here after 3 minutes/);
    expect(host.printed.at(-1)).toContain("Syncing continues in the background");
  });

  it("does not wait for what was unpinned meanwhile", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 3, masterPins: 5 });
    host.clock.onWait = () => void (host.masterPins = 3);
    await verify(host);
    expect(host.printed.at(-1)).toBe("3 of 3 pins known here");
  });

  it("is waited for where it has more than the master: old pins hide that new ones are missing", async () => {
    const host = await storageBoxBefore(null);
    await host.clock.wait(3_600_000);
    Object.assign(host, { pins: 10, masterPins: 9 });
    const news = host.clock.now().getTime() + 40_000;
    host.clock.onWait = (now) => {
      if (now.getTime() > news) host.pins = 9;
    };
    await verify(host);
    expect(host.printed.join("\n")).toContain("10 pins known here, more than the master's 9");
    expect(host.printed.at(-1)).toBe("9 of 9 pins known here");
  });

  it("is said to have not in sync where it keeps more than the master", async () => {
    const host = await storageBoxBefore(null);
    await host.clock.wait(3_600_000);
    Object.assign(host, { pins: 10, masterPins: 9 });
    const waitedMs = await elapsedMs(host, () => verify(host));
    expect(waitedMs).toBeGreaterThanOrEqual(75_000);
    expect(waitedMs).toBeLessThan(90_000);
    expect(host.printed.at(-1)).toMatch(/"type":"warning".*10 pins.*more than the master's 9.*not in sync/);
  });

  it("is said to have not in sync where it has more, and still growing, when the time is over", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 10, masterPins: 9 });
    host.clock.onWait = () => void (host.pins += 1);
    expect(await elapsedMs(host, () => verify(host))).toBeGreaterThanOrEqual(180_000);
    expect(host.printed.at(-1)).toMatch(/"type":"warning".*more than the master's 9.*not in sync/);
  });

  it("keeps to the count where the master is gone for a while", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 3, masterPins: 5 });
    host.clock.onWait = () => void (host.names = null);
    await verify(host);
    expect(host.printed.at(-1)).toMatch(/"type":"warning".*3 of 5 pins/);
  });

  it("is compared with the age of the master's count, where that is old", async () => {
    const host = await storageBoxBefore("membership");
    host.masterCountAgeMs = 240_000;
    await verify(host);
    expect(host.printed.at(-1)).toBe("3 of 3 pins known here (the master counted 4 minutes ago)");
    host.masterPins = 5;
    await verify(host);
    expect(host.printed.at(-1)).toMatch(
      /"type":"warning".*3 of 5 pins.*\(the master counted 4 minutes ago\)/,
    );
    Object.assign(host, { masterPins: 2, masterCountAgeMs: 55_000 });
    await verify(host);
    expect(host.printed.at(-1)).toMatch(/more than the master's 2 \(the master counted \d\d seconds ago\)/);
  });

  it("is never asked for in silence: there is a word before the list, and an end to waiting for it", async () => {
    const host = await storageBoxBefore("membership");
    host.printed.length = 0;
    host.clusterTargets.length = 0;
    const toldAtFirstList: number[] = [];
    host.onList = () => void toldAtFirstList.push(host.printed.length);
    await verify(host);
    expect(toldAtFirstList[0]).toBe(1);
    expect(host.printed[0]).toBe("waiting for a complete pin list from ipfs-cluster (180000 ms left)");
    expect(host.clusterTargets.length).toBeGreaterThan(0);
    for (const { listingTimeoutMs = Infinity } of host.clusterTargets)
      expect(listingTimeoutMs).toBeLessThanOrEqual(60_000);
  });

  it("does not accept an incomplete list as the pinset", async () => {
    const host = await storageBoxBefore("membership");
    host.isListWhole = false;
    await verify(host);
    expect(host.printed.at(-1)).toMatch(/"type":"warning".*the progress is unknown/);
  });
});

describe("the pinset of a node whose master does not tell its count", () => {
  it("is waited for until the first news has come and it grows no more", async () => {
    const host = await storageBoxBefore("membership");
    Object.assign(host, { pins: 0, masterPins: null });
    const news = host.clock.now().getTime() + 40_000;
    host.clock.onWait = (now) => {
      if (now.getTime() > news && host.pins < 50) host.pins += 10;
    };
    await verify(host);
    expect(host.printed.join("\n")).toContain("waiting for the first update from a master");
    expect(host.printed.at(-1)).toBe(
      "50 pins known here; the master's count is unknown (https://master.example/api/v1/pool responded with HTTP status 404)",
    );
  });

  it("warns, and does not fail, if it still grows when the time is over", async () => {
    const host = await storageBoxBefore("membership");
    host.masterPins = null;
    host.clock.onWait = () => void (host.pins += 1);
    await verify(host);
    expect(host.printed.at(-1)).toMatch(/"type":"warning".*still growing.*responded with HTTP status 404/);
  });

  it("is only counted on a node that has been up for long", async () => {
    const host = await storageBoxBefore(null);
    await host.clock.wait(3_600_000);
    host.masterPins = null;
    expect(await elapsedMs(host, () => verify(host))).toBe(0);
  });

  it.each<[string, (host: FakeStorage) => unknown, StorageOptions, string]>([
    ["does not answer", (host) => (host.names = null), {}, "does not respond"],
    ["counts for a stranger", (host) => (host.countedBy = OWN.peerId), {}, "which this node does not trust"],
    ["counts what is no number", (host) => (host.masterPins = Number.NaN), {}, "returned no count"],
    [
      "did not report the time",
      (host) => (host.masterCountAgeMs = Number.NaN),
      {},
      "did not report the time of its count",
    ],
    ["is not to be asked", () => {}, { register: false }, "--no-register: the master was not asked"],
  ])("names why where it %s", async (_name, arrange, wishes, why) => {
    const host = await storageBoxBefore(null);
    await host.clock.wait(3_600_000);
    host.masterPins = 900;
    arrange(host);
    await verify(host, wishes);
    expect(host.printed.at(-1)).toContain("3 pins known here; the master's count is unknown");
    expect(host.printed.at(-1)).toContain(why);
  });
});
