import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { optionsKey, readWholePin } from "../../src/cluster/pin.ts";
import { AS_OPERATOR, FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootFollower, type Follower, openKubo } from "../support/follower-box.ts";
import { clusterUrl, expectExit, skipped, stderrOf } from "../support/master-box.ts";

const SNAPSHOTS = "/opt/fula-master/snapshots";
const CONTENTS = 24;
const MINUTES = 60_000;

/** Text that can't be compressed much, for a query, a third longer than `bytes`. */
const noise = (bytes: number): string => randomBytes(bytes).toString("base64url");

describe.skipIf(skipped !== undefined)("the pinset of a master with two followers", () => {
  let network: string;
  let box: Box;
  const followers: Follower[] = [];
  let snapshot = "";
  let api: string;

  const fula = (...args: string[]): Promise<ExecResult> => fulaNode(box, args);
  const allocations = async (): Promise<ReadonlyMap<string, string>> => {
    const { stdout } = await box.run(`curl -sf ${api}/allocations`);
    const pins = stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => readWholePin(JSON.parse(line)));
    return new Map(pins.flatMap((pin) => (pin === null ? [] : [[pin.cid, optionsKey(pin.options)]])));
  };
  const unpinAll = async (): Promise<void> => {
    const cids = [...(await allocations()).keys()].join("\n");
    await box.run(`xargs -I{} -P4 curl -sf -o /dev/null -X DELETE ${api}/pins/{}`, { input: cids });
    expect((await allocations()).size).toBe(0);
  };
  const followersHold = (cids: readonly string[]): Promise<true> =>
    eventually(
      "the followers hold what they ought to",
      async () => {
        const held = await Promise.all(followers.map((follower) => follower.pins()));
        return held.every((pins) => cids.every((cid) => pins.has(cid)));
      },
      3 * MINUTES,
    );
  const sweepUntil = (exitCode: number): Promise<ExecResult> =>
    eventually(
      `sweep --strict exits ${exitCode}`,
      async () => {
        const result = await fula("sweep", "--strict", "--json");
        return result.exitCode === exitCode
          ? result
          : Promise.reject(new Error(result.stdout + result.stderr));
      },
      4 * MINUTES,
    );
  const snapshotFiles = async (): Promise<string> => (await box.run(`ls -A ${SNAPSHOTS}`)).stdout;

  beforeAll(async () => {
    network = await Box.network();
    box = await Box.boot({ name: "master", image: "docker", network });
    await installArtifact(box);
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    api = await clusterUrl(box);
    const masterKubo = await openKubo(box);
    for (const name of ["follower-1", "follower-2"])
      followers.push(await bootFollower(box, { name, network, masterKubo }));
    // They have no registered names, since they were not made by fula-node.
    for (const follower of followers) {
      const { stdout } = await follower.box.run(`curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/id`);
      const { id, peername } = JSON.parse(stdout) as { id: string; peername: string };
      expectExit(await fula("node", "keep", id, "--name", peername), 0);
    }

    await eventually("the master may send pins to all three", async () => {
      const metrics = ["freespace", "tag:group"].map((name) =>
        box.run(`curl -sf ${api}/monitor/metrics/${name}`),
      );
      const counts = (await Promise.all(metrics)).map(
        ({ stdout }) => (JSON.parse(stdout) as unknown[]).length,
      );
      return counts.every((count) => count === 3);
    });
    const add = `for i in $(seq ${CONTENTS}); do v=$([ $i = 1 ] && echo 0 || echo 1)
      echo "content $i of the test" | docker exec -i ipfs_host ipfs add -q --pin=false --cid-version=$v; done`;
    const cids = (await box.run(add)).stdout.split("\n");
    expect(new Set(cids).size).toBe(CONTENTS);
    const posts = cids.map((cid, index) => {
      const factors =
        index % 2 === 0 ? "replication-min=-1&replication-max=-1" : "replication-min=2&replication-max=3";
      const path = index % 6 === 5 ? `ipfs/${cid}?mode=direct` : `${cid}?mode=recursive`;
      const expiry = index % 4 === 3 ? "&expire-at=2040-01-01T00%3A00%3A00Z" : "";
      const large = index === 2 ? `&meta-large=${noise(75_000)}` : "";
      return `${api}/pins/${path}&${factors}&name=n%C3%A4me%20%26%20${index}&meta-owner=u${index}&meta-${index}%3D=%2B%25${expiry}${large}`;
    });
    const config = posts
      .map((url) => `url = "${url}"\nrequest = "POST"\noutput = "/dev/null"\nfail`)
      .join("\nnext\n");
    await box.run("curl -s -K -", { input: config });
    expect([...(await allocations()).keys()].sort()).toEqual([...cids].sort());
    expect(Math.max(...[...(await allocations()).values()].map((key) => key.length))).toBeGreaterThan(
      100_000,
    );
    await followersHold(cids.filter((_, index) => index % 2 === 0));
  });
  afterAll(async () => {
    for (const follower of followers) await follower.box.destroy();
    await box?.destroy();
    if (network !== undefined) await Box.removeNetwork(network);
  });

  test("take, and verify with the tool and with openssl alone", async () => {
    const taken = await fula("snapshot", "take", "--json");
    expectExit(taken, 0);
    snapshot = (JSON.parse(taken.stdout) as { name: string }).name;
    const verified = await fula("snapshot", "verify", snapshot, "--json");
    expectExit(verified, 0);
    expect(JSON.parse(verified.stdout)).toMatchObject({ count: CONTENTS, order: "linked" });
    await box.run(
      `cd ${SNAPSHOTS} && openssl pkeyutl -verify -rawin -pubin -inkey ../snapshot-ed25519.pub.pem -sigfile ${snapshot}.manifest.sig -in ${snapshot}.manifest.json`,
    );
    expectExit(await fula("snapshot", "list"), 0);
  });

  test("tampered with, it is refused, and nothing is restored from it", async () => {
    await box.run(
      `cp -a ${SNAPSHOTS} /root/tampered && printf x | dd of=/root/tampered/${snapshot}.ndjson.gz bs=1 seek=100 conv=notrunc status=none`,
    );
    const before = await allocations();
    expectExit(await fula("snapshot", "verify", `/root/tampered/${snapshot}`), 28);
    expectExit(await fula("snapshot", "restore", `/root/tampered/${snapshot}`), 28);
    expectExit(await fula("snapshot", "list", "--dir", "/root/tampered"), 28);
    expect(await allocations()).toEqual(before);
  });

  test("everything unpinned: the next snapshot alarms, and restore brings all back as it was", async () => {
    const before = await allocations();
    const wished = [...before.keys()];
    await unpinAll();
    await eventually(
      "the followers have let go",
      async () => {
        const held = await Promise.all(followers.map((follower) => follower.pins()));
        return held.every((pins) => wished.every((cid) => !pins.has(cid)));
      },
      3 * MINUTES,
    );

    expectExit(await fula("snapshot", "take"), 20);
    expect(await box.readFile("/opt/fula-master/replication-alerts.log")).toContain(
      `pins=0 before=${CONTENTS}`,
    );
    expectExit(await fula("snapshot", "diff", snapshot, "live"), 20);
    expectExit(await fula("snapshot", "restore", snapshot, "--dry-run"), 20);
    expect((await allocations()).size).toBe(0);

    const restored = await fula("snapshot", "restore", snapshot, "--json");
    expectExit(restored, 0);
    expect(JSON.parse(restored.stdout)).toMatchObject({
      run: { pinned: CONTENTS, failed: 0 },
      after: { missing: 0, differing: 0 },
    });
    expect(await allocations()).toEqual(before);
    expectExit(await fula("snapshot", "diff", snapshot, "live"), 0);
    await followersHold(wished.filter((cid) => before.get(cid)?.includes("-1,-1")));
    const recursive = await followers[0]?.pins();
    for (const [cid, key] of before) {
      const held = recursive?.get(cid);
      if (held !== undefined) expect(held).toBe(key.includes('"direct"') ? "direct" : "recursive");
    }
  });

  test("followers that stop are missed by sweep --strict, and it is content when they are back", async () => {
    await sweepUntil(0);
    for (const follower of followers) await follower.stopCluster();
    const missed = await sweepUntil(20);
    expect((JSON.parse(missed.stdout) as { alerts: number }).alerts).toBeGreaterThan(0);
    expect(await box.readFile("/opt/fula-master/replication-alerts.log")).toMatch(
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ under-replicated cid=\S+ pinned=\d+ min=\d+$/m,
    );
    for (const follower of followers) await follower.startCluster();
    await sweepUntil(0);
  });

  test("a snapshot and a key in upstream's layout, made with ipfs-cluster-ctl and openssl, verify and restore", async () => {
    await box.run(`mkdir -p /root/upstream && cd /root/upstream &&
      openssl genpkey -algorithm ed25519 -out snapshot-ed25519.pem && chmod 600 snapshot-ed25519.pem &&
      docker exec ipfs_cluster ipfs-cluster-ctl --force-http --enc=json pin ls >pinset-20260101T060000Z.json &&
      openssl pkeyutl -sign -rawin -inkey snapshot-ed25519.pem -in pinset-20260101T060000Z.json -out pinset-20260101T060000Z.json.sig`);
    const at = [
      "/root/upstream/pinset-20260101T060000Z.json",
      "--key",
      "/root/upstream/snapshot-ed25519.pem",
    ];
    expectExit(await fula("snapshot", "verify", ...at), 0);
    const before = await allocations();
    await unpinAll();
    expectExit(await fula("snapshot", "restore", ...at), 0);
    expect(await allocations()).toEqual(before);
    await box.run("sed -i s/replication_factor_min/replication_factor_mim/ /root/upstream/*.json");
    expectExit(await fula("snapshot", "verify", ...at), 28);
    await box.run("chmod 644 /root/upstream/snapshot-ed25519.pem");
    expectExit(await fula("snapshot", "verify", ...at), 21);
  });

  test("pins that go little by little alarm, until they are back", async () => {
    const before = await allocations();
    const cids = [...before.keys()];
    const unpin = (some: readonly string[]): Promise<unknown> =>
      box.run(`xargs -I{} curl -sf -o /dev/null -X DELETE ${api}/pins/{}`, { input: some.join("\n") });
    const full = JSON.parse((await fula("snapshot", "take", "--json")).stdout) as { name: string };
    // 2 of 24 are less than 10 %, twice that is more.
    await unpin(cids.slice(0, 2));
    expectExit(await fula("snapshot", "take"), 0);
    await unpin(cids.slice(2, 4));
    const eroded = await fula("snapshot", "take");
    expectExit(eroded, 20);
    expect(eroded.stdout).toMatch(/4 of the 24 pins of pinset-\S+ are gone/);
    expect(await box.readFile("/opt/fula-master/replication-alerts.log")).toMatch(
      /pinset-dropped snapshot=\S+ pins=20 before=24 removed=4 reference=pinset-/,
    );
    expectExit(await fula("snapshot", "restore", full.name), 0);
    expect(await allocations()).toEqual(before);
    expectExit(await fula("snapshot", "take"), 0);
  });

  test("an emptied directory: the next snapshot alarms once", async () => {
    await box.run(`mkdir /root/moved && mv ${SNAPSHOTS}/* /root/moved/`);
    const restarted = await fula("snapshot", "take");
    expectExit(restarted, 20);
    expect(restarted.stdout).toContain("the chain of snapshots was restarted");
    expect(await box.readFile("/opt/fula-master/replication-alerts.log")).toMatch(
      /snapshot-chain-restarted snapshot=\S+ expected=\d+/,
    );
    expect(await box.readFile("/opt/fula-master/heartbeats/snapshot.json")).toContain("was restarted");
    expectExit(await fula("snapshot", "take"), 0);
    await box.run(`mv -n /root/moved/* ${SNAPSHOTS}/`);
    expectExit(await fula("snapshot", "list"), 0);
  });

  test("a full disk: it is said, and nothing half-written is left", async () => {
    await box.run(`mount -t tmpfs -o size=32k tmpfs ${SNAPSHOTS}`);
    try {
      const result = await fula("snapshot", "take");
      expectExit(result, 29);
      expect(stderrOf(result)).toContain("is full");
      expect(await snapshotFiles()).toBe("");
    } finally {
      await box.run(`umount ${SNAPSHOTS}`);
    }
  });

  test.each(["stop --time=60", "kill"])(
    "the master's ipfs-cluster gone by docker %s in the middle of a listing: exit 29, no snapshot",
    async (how) => {
      const cids = (
        await box.run(
          "for i in $(seq 300); do echo big $i | docker exec -i ipfs_host ipfs add -q --only-hash --cid-version=1; done",
        )
      ).stdout.split("\n");
      const config = cids
        .map(
          (cid) =>
            `url = "${api}/pins/${cid}?meta-noise=${noise(90_000)}"\nrequest = "POST"\noutput = "/dev/null"\nfail`,
        )
        .join("\nnext\n");
      await box.run("curl -s -K -", { input: config });
      const before = await snapshotFiles();
      const script = `
      node /root/package/bin/fula-node.js snapshot take >/root/take.log 2>&1 & pid=$!
      until [ -n "$(find ${SNAPSHOTS} -name '.*.partial' -size +0)" ]; do kill -0 $pid || exit 99; done
      kill -STOP $pid
      docker ${how} ipfs_cluster >/dev/null
      kill -CONT $pid
      wait $pid`;
      const result = await box.exec(script);
      expect(result.exitCode, await box.readFile("/root/take.log")).toBe(29);
      expect(await snapshotFiles()).toBe(before);
      await box.run("docker start ipfs_cluster");
      await eventually(
        "ipfs-cluster is back",
        async () => (await box.exec(`curl -sf ${api}/id`)).exitCode === 0,
      );
    },
  );
});
