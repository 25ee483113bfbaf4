import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openBlake3 } from "../../src/ingest/blake3.ts";
import { blockCidOf } from "../../src/ingest/cid.ts";
import { fulaNode } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { withoutData } from "../support/box-snapshot.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, health, plannedChanges, skipped, stderrOf } from "../support/master-box.ts";
import {
  addContent,
  askCluster,
  bootFederation,
  bootNode,
  by,
  closeStorageApi,
  type CreatedInvite,
  invite,
  join,
  members,
  openStorageApi,
  peerId,
  pinContent,
  pinset,
  PRIVATE_NETWORK,
  stored,
  untilStored,
  watchNode,
} from "../support/storage-boxes.ts";

const HEALTHY = {
  ipfs_host: "running healthy",
  ipfs_cluster: "running healthy",
  "fula-ingest": "running healthy",
};
const MEMBERS = ["master", "one", "two"];
const COMPOSE_FILE = "/opt/fula-storage/docker-compose.yml";

describe.skipIf(skipped !== undefined)("one master and two storage nodes", () => {
  let network: string;
  let master: Box;
  let one: Box;
  let two: Box;
  const cids: string[] = [];

  const pinOnMaster = async (): Promise<string> => {
    const cid = await pinContent(master);
    cids.push(cid);
    return cid;
  };

  const inviteOf = async (id: string): Promise<unknown> => {
    const result = await fulaNode(master, ["invite", "list", "--json"]);
    expectExit(result, 0);
    const { invites } = JSON.parse(result.stdout) as { invites: readonly { readonly id: string }[] };
    return invites.find((found) => found.id === id);
  };

  beforeAll(async () => {
    network = await Box.network();
    [master, one, two] = await Promise.all([
      bootFederation(network),
      bootNode("one", network),
      bootNode("two", network),
    ]);
    for (let pin = 0; pin < 5; pin += 1) await pinOnMaster();
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), one?.destroy(), two?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("an altered invite is refused, and nothing is written", async () => {
    const { token, fingerprint } = await invite(master, "one");
    const before = await one.snapshot(["/opt"]);
    const at = token.lastIndexOf(".") + 1;
    const altered = token.slice(0, at) + (token[at] === "A" ? "B" : "A") + token.slice(at + 1);
    const result = await join(one, ["--invite", altered]);
    expectExit(result, 28);
    expectExit(await join(one, ["--invite", token, "--fingerprint", "0123456789abcdef"]), 28);
    const nobody = await join(one, ["--invite", token]);
    expectExit(nobody, 22);
    expect(stderrOf(nobody)).toContain("Nobody has compared the fingerprint");
    const overHttp = ["join-as-storage-node", "--yes", "--invite", token, "--fingerprint", fingerprint];
    const plain = await fulaNode(one, overHttp);
    expectExit(plain, 21);
    expect(stderrOf(plain)).toContain("plain http to another host");
    expect(await one.snapshot(["/opt"])).toEqual(before);
  });

  test("two join by one invite: one has its name, the other is told why not, and no revoked invite helps it", async () => {
    const shared = await invite(master, null);
    const nodes = [one, two];
    const results = await Promise.all(nodes.map((node) => join(node, [...by(shared), ...PRIVATE_NETWORK])));
    expect(
      results.map(({ exitCode }) => exitCode).toSorted((a, b) => a - b),
      results.map(stderrOf).join("\n"),
    ).toEqual([0, 21]);
    for (const { stdout } of results) expect(stdout).toMatch(/^5 of 5 pins known here$/m);
    const at = results.findIndex(({ exitCode }) => exitCode === 21);
    const [loser, winner] = at === 0 ? [one, two] : [two, one];
    expect(results.map(stderrOf)[at]).toContain("The invite was used by another node");
    expect(await inviteOf(shared.id)).toMatchObject({ state: "used", usedBy: { names: [winner.name] } });

    const revoked = await invite(master, null);
    for (let time = 0; time < 2; time += 1)
      expectExit(await fulaNode(master, ["invite", "revoke", revoked.id]), 0);
    const refused = await join(loser, by(revoked));
    expectExit(refused, 21);
    expect(stderrOf(refused)).toMatch(
      /was revoked at .* To join without a registered name, use --no-register/,
    );

    const own = await invite(master, loser.name);
    const flags = ["--invite", "-", "--fingerprint", own.fingerprint];
    expectExit(await join(loser, flags, { input: `${own.token}\n` }), 0);
    expect(await inviteOf(own.id)).toMatchObject({ state: "used", usedBy: { names: [loser.name] } });
  });

  test("both are members, and healthy", async () => {
    expect(await members(master)).toEqual(MEMBERS);
    expect(await health(one)).toEqual(HEALTHY);
    expect(await health(two)).toEqual(HEALTHY);
  });

  test("only swarm ports and the ingest are open to the network", async () => {
    const { stdout } = await one.run("ss -Hltn | awk '{print $4}'");
    const open = stdout
      .split("\n")
      .filter((address) => !address.startsWith("127."))
      .map((address) => Number(address.split(":").at(-1)));
    expect([...new Set(open)].toSorted((a, b) => a - b)).toEqual([3601, 4001, 9096]);
    expect(stdout).not.toMatch(/:909[57]$/m);
  });

  test("the master's pins arrive on both, those of before the join too", async () => {
    await pinOnMaster();
    await untilStored([one, two], cids);
  });

  test("a second run finds nothing to do, and restarts nothing", async () => {
    const before = await watchNode(one);
    const plan = await join(one, ["--dry-run", "--json"]);
    expectExit(plan, 0);
    expect(plannedChanges(plan.stdout)).toEqual([]);
    expectExit(await join(one, []), 0);
    expect(await watchNode(one)).toEqual(before);
  });

  test("a follower's own API takes neither pin nor unpin", async () => {
    const [cid = ""] = cids;
    const stray = await addContent(one);
    for (const [method, target] of [
      ["POST", stray],
      ["DELETE", cid],
    ] as const) {
      const { status, body } = await askCluster(one, method, `/pins/${target}`);
      expect(status).toBe(500);
      expect(body).toContain("follower mode");
    }
    expect([...(await pinset(master))].toSorted()).toEqual(cids.toSorted());
    expect(await stored(two)).toContain(cid);
  });

  test("follower mode off and trusting itself, it changes nobody but itself", async () => {
    const [cid = ""] = cids;
    const stray = await addContent(one);
    const own = await peerId(one);
    const text = await one.readFile(COMPOSE_FILE);
    const rogue = text
      .replace('CLUSTER_FOLLOWERMODE: "true"', 'CLUSTER_FOLLOWERMODE: "false"')
      .replace(
        /CLUSTER_CRDT_TRUSTEDPEERS: .*/,
        `CLUSTER_CRDT_TRUSTEDPEERS: "${own}"\n      CLUSTER_CRDT_REBROADCASTINTERVAL: 1s`,
      );
    expect(rogue).not.toBe(text);
    await one.writeFile(COMPOSE_FILE, rogue);
    await one.run("cd /opt/fula-storage && docker compose up -d ipfs-cluster");
    await eventually("the rogue answers", async () => (await members(one)).length === 3, 120_000);
    expect((await askCluster(one, "POST", `/pins/${stray}`)).status).toBe(200);
    expect((await askCluster(one, "DELETE", `/pins/${cid}`)).status).toBe(200);
    await eventually("it has changed its own pinset", async () => {
      const wished = await pinset(one);
      return wished.has(stray) && !wished.has(cid) && !(await stored(one)).has(cid);
    });
    // It tells its state every second by now: twelve looks, a second of telling each, see none of it.
    for (let look = 0; look < 12; look += 1) {
      const [wished, kept] = await Promise.all([pinset(master), stored(two), one.run("sleep 1")]);
      expect([...wished].toSorted()).toEqual(cids.toSorted());
      expect(await pinset(two)).toEqual(wished);
      expect(kept).toContain(cid);
      expect(kept).not.toContain(stray);
    }
  });

  test("a re-run makes it a follower again, and it takes the master's pins as before", async () => {
    const result = await join(one, []);
    expectExit(result, 0);
    expect((await askCluster(one, "POST", `/pins/${cids[1] ?? ""}`)).body).toContain("follower mode");
    const fresh = await pinOnMaster();
    await untilStored([one, two], [fresh]);
  });

  test("blocks go in by the ingest: true ones of those who may, and nothing else", async () => {
    const { hash } = await openBlake3();
    const block = Buffer.from("a block of a user");
    const cid = blockCidOf(hash(block)).text;
    expectExit(await fulaNode(master, ["user", "create", "--email", "a@example.org"]), 0);
    const token = async () =>
      (await fulaNode(master, ["user", "token", "--email", "a@example.org"])).stdout.trim();
    const put = async (body: string, bearer: string | null): Promise<string> => {
      const auth = bearer === null ? "" : `-H 'Authorization: Bearer ${bearer}'`;
      const url = `http://one:3601/v0/block?cid=${cid}`;
      const { stdout } = await two.run(
        `curl -s -X PUT --data-binary @- ${auth} -w '\\n%{http_code}' '${url}'`,
        {
          input: body,
        },
      );
      return stdout;
    };
    const first = await token();
    expect(await put("another block", first)).toMatch(/\n422$/);
    expect(await put(block.toString(), null)).toMatch(/\n401$/);
    const isThere = () => one.exec(`docker exec ipfs_host ipfs --offline block stat ${cid}`);
    expect((await isThere()).exitCode).not.toBe(0);
    expect(await put(block.toString(), first)).toMatch(/\n200$/);
    expect((await isThere()).exitCode).toBe(0);
    const second = await token();
    await closeStorageApi(master);
    expect(await put(block.toString(), second)).toMatch(/\n503$/);
    await openStorageApi(master);
    expect(await put(block.toString(), second)).toMatch(/\n200$/);
  });

  test("a master does not become a storage node, nor a storage node a master", async () => {
    const invited = await invite(master, "three");
    const look = async () => [withoutData(await master.snapshot()), await one.snapshot()];
    const before = await look();
    const wrong = await join(master, by(invited));
    expectExit(wrong, 23);
    expect(stderrOf(wrong)).toContain("is a master");
    const args = ["join-as-master", "--yes", "--provision-writer", "--set", "CLUSTERNAME=test-pool"];
    expectExit(await fulaNode(one, args), 23);
    expect(await look()).toEqual(before);
  });

  test("an invite that says otherwise is drift that halts, until it is accepted by name", async () => {
    const before = await watchNode(two);
    const args = ["invite", "create", "--json", "--storage-api-url", "http://elsewhere:8301"];
    const other = JSON.parse((await fulaNode(master, args)).stdout) as CreatedInvite;
    const result = await join(two, [...by(other), "--set", "CLUSTER_PEERNAME=two"]);
    expectExit(result, 24);
    expect(stderrOf(result)).toContain("--accept-pool-change");
    const accepted = [...by(other), "--accept-pool-change", "--no-register", "--dry-run"];
    expectExit(await join(two, accepted), 20);
    expect(await watchNode(two)).toEqual(before);
    expectExit(await join(two, by(await invite(master, "two"))), 0);
  });

  test("a name that another node holds is refused, with others to choose from", async () => {
    const before = await watchNode(two);
    const result = await join(two, ["--set", "CLUSTER_PEERNAME=one"]);
    expectExit(result, 23);
    expect(stderrOf(result)).toContain("one-2");
    expect(await watchNode(two)).toEqual(before);
  });

  test("rebuilt with its data kept, it is the same peer under the same name", async () => {
    const [id, held] = await Promise.all([peerId(two), stored(two)]);
    await two.run("docker rm -f ipfs_host ipfs_cluster fula-ingest && rm -rf /opt/fula-storage");
    const invited = await invite(master, "two");
    const plan = await join(two, [...by(invited), "--dry-run", "--json", ...PRIVATE_NETWORK]);
    // The master has its name, but does not know that it has this invite.
    expect(plannedChanges(plan.stdout).filter(({ step }) => step === "node-name")).toHaveLength(1);
    expectExit(await join(two, [...by(invited), ...PRIVATE_NETWORK]), 0);
    expect(await peerId(two)).toBe(id);
    expect([...(await stored(two))]).toEqual(expect.arrayContaining([...held]));
  });

  test("killed and started, it comes back by itself", async () => {
    await two.kill();
    await eventually("the master misses it", async () => !(await members(master)).includes("two"), 120_000);
    const fresh = await pinOnMaster();
    await two.start();
    await eventually("it is a member again", async () => (await members(master)).includes("two"), 180_000);
    await untilStored([two], [fresh]);
  });
});

describe.skipIf(skipped !== undefined)("a join that the network leaves alone", () => {
  let network: string;
  let master: Box;
  let node: Box;

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("late", network)]);
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("an ipfs_host of another hand halts it, and stays as it is", async () => {
    const invited = await invite(master, "late");
    await node.run("docker create --name ipfs_host ipfs/kubo:v0.42.0");
    const before = await node.snapshot();
    const result = await join(node, by(invited));
    expectExit(result, 23);
    expect(stderrOf(result)).toContain("fula-node did not create the container ipfs_host");
    expect(await node.snapshot()).toEqual(before);
    await node.run("docker rm -v ipfs_host");
  });

  test("cut off in the middle it fails with words; healed, a second run goes on", async () => {
    const invited = await invite(master, "late");
    const cid = await addContent(master);
    await askCluster(master, "POST", `/pins/${cid}`);
    const cut = join(node, [...by(invited), ...PRIVATE_NETWORK]);
    await eventually(
      "kubo is made",
      async () => (await node.exec("docker inspect ipfs_host")).exitCode === 0,
      300_000,
    );
    await node.disconnect(network);
    const result = await cut;
    expect([27, 29], `${result.stdout}\n${result.stderr}`).toContain(result.exitCode);
    expect(stderrOf(result)).toContain("Changed: done and kept");
    await node.connect(network);
    expectExit(await join(node, []), 0);
    expect(await members(master)).toEqual(["late", "master"]);
    await untilStored([node], [cid]);
  });
});
