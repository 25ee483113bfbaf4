import { fulaNode } from "../support/artifact.ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import {
  type Account,
  authorization,
  createAccount,
  digestOf,
  Ingest,
  killProcess,
  kuboPeers,
  localBlocks,
  readBack,
  runSql,
  someBlock,
  startLoad,
  startOf,
} from "../support/ingress-boxes.ts";
import { expectExit, skipped } from "../support/master-box.ts";
import {
  bootFederation,
  bootNode,
  by,
  invite,
  join,
  members,
  pinContent,
  pinset,
  PRIVATE_NETWORK,
  stored,
  untilStored,
  watchNode,
} from "../support/storage-boxes.ts";

const MAX_BLOCK_BYTES = 2_097_152;
const ENV_FILE = "/opt/fula-storage/.env";
const FREE_TIER_BYTES = 524_288_000;

/** Looks at every command line for as long as a join runs: who was seen with a secret in it, and whether the join itself was seen. */
const WATCHER = `
while [ ! -e /root/joined ]; do
  grep -alFf /root/secrets /proc/[0-9]*/cmdline && tr '\\0' ' ' </proc/[0-9]*/cmdline
  grep -alFf /root/argument /proc/[0-9]*/cmdline >/root/seen.new && mv /root/seen.new /root/seen
  sleep 0.05
done 2>/dev/null
`;

describe.skipIf(skipped !== undefined)("a storage node takes in what it may, and nothing else", () => {
  let network: string;
  let master: Box;
  let node: Box;
  let ingest: Ingest;
  let account: Account;
  let token: string;
  const pins: string[] = [];

  const pinOnMaster = async (): Promise<void> => {
    pins.push(await pinContent(master));
  };

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
    for (let pin = 0; pin < 3; pin += 1) await pinOnMaster();
    ingest = await Ingest.of(node);
    account = await createAccount(master, "a@example.org");
    token = await account.token();
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("it joins by an invite from a file, which nobody reads in an argument, a file or a container", async () => {
    const invited = await invite(master, "one");
    const secret = /^CLUSTER_SECRET=(.{64})$/m.exec(await master.readFile("/opt/fula-master/.env"))?.[1];
    const parts = invited.token.split(".").filter((part) => part.length > 20);
    expect(parts.length).toBeGreaterThan(1);
    await node.writeFile("/root/invite", `${invited.token}\n`, 0o600);
    await node.writeFile("/root/parts", `${parts.join("\n")}\n`, 0o600);
    await node.writeFile("/root/secrets", `${[...parts, secret].join("\n")}\n`, 0o600);
    await node.writeFile("/root/argument", "@/root/invite\n");
    const watching = node.exec(WATCHER);
    const result = await join(node, [...by({ ...invited, token: "@/root/invite" }), ...PRIVATE_NETWORK]);
    await node.writeFile("/root/joined", "");
    expectExit(result, 0);
    expect((await watching).stdout).toBe("");
    expect((await node.run("cat /root/seen")).stdout).toContain("/cmdline");
    const found = (where: string) => node.exec(`${where} | sort`);
    expect((await found("grep -rlFf /root/parts /run /opt /etc /tmp /var/log")).stdout).toBe("");
    expect((await found("grep -rlFf /root/secrets /opt /etc /tmp /var/log")).stdout).toBe(ENV_FILE);
    expect((await found("docker ps -aq | xargs docker inspect | grep -cFf /root/parts")).stdout).toBe("0");
    expect((await found("journalctl --no-pager | grep -cFf /root/secrets")).stdout).toBe("0");
    expect(`${result.stdout}${result.stderr}`).not.toContain(parts[0]);
    // What the node keeps of the invite is in .env only.
    await node.run(`sed -n 's/^NODE_INVITE=//p' ${ENV_FILE} | grep -E '^.{119}$' >/root/kept`);
    expect((await found("grep -rlFf /root/kept /opt /etc /tmp /var/log")).stdout).toBe(ENV_FILE);
    expect((await found("docker ps -aq | xargs docker inspect | grep -cFf /root/kept")).stdout).toBe("0");
    await untilStored([node], pins);
  });

  test("what is not proven, not named, too large or broken off is refused, and nothing of it is stored", async () => {
    const block = someBlock(1_500_000);
    const [other, large] = [someBlock(1_500_000), someBlock(MAX_BLOCK_BYTES + 1)];
    const before = await localBlocks(node);
    const tampered = await ingest.put({ cid: block.cid, bytes: other.bytes }, token);
    expect(tampered.status).toBe(422);
    expect(tampered.body).toMatchObject({ declared: block.cid, actual: other.cid });
    expect((await ingest.put(block, null)).status).toBe(401);
    expect((await ingest.put(block, "made-up")).status).toBe(401);
    expect((await ingest.put({ ...block, cid: pins[0] ?? "" }, token)).status).toBe(400);
    expect((await ingest.put(large, token)).status).toBe(413);
    const declared = { ...authorization(token), "content-length": large.bytes.length };
    expect((await ingest.putEndless(large.cid, Buffer.alloc(0), declared)).status).toBe(413);
    expect((await ingest.putEndless(large.cid, large.bytes, authorization(token))).status).toBe(413);
    await ingest.putHalf(block, token);
    expect(await localBlocks(node)).toEqual(before);
    expect((await ingest.put(block, token)).status).toBe(200);
    expect(await localBlocks(node)).toEqual(new Set([...before, block.cid]));
  });

  test("a hundred clients at once: every true block is stored, and no other", async () => {
    const sent = Array.from({ length: 100 }, (_, at) => ({
      block: someBlock(200_000),
      isTrue: at % 4 !== 0,
    }));
    const answers = await Promise.all(
      sent.map(({ block, isTrue }) =>
        ingest.put(isTrue ? block : { ...block, bytes: someBlock(200_000).bytes }, token),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(sent.map(({ isTrue }) => (isTrue ? 200 : 422)));
    const held = await localBlocks(node);
    expect(sent.filter(({ block, isTrue }) => held.has(block.cid) !== isTrue)).toEqual([]);
    expect(answers.filter(({ body }) => held.has(String(body["actual"])))).toEqual([]);
    const taken = sent.filter(({ isTrue }) => isTrue).map(({ block }) => block);
    expect(await readBack(node, taken)).toBe(digestOf(taken));
  });

  test("over the free tier: who has not paid or is suspended gets 402, until the account is well again", async () => {
    const user = await createAccount(master, "over@example.org");
    const block = someBlock();
    const credits = (balance: number, suspended: 0 | 1) =>
      runSql(
        master,
        `INSERT INTO user_credits (user_id, balance_fula, is_suspended, suspended_at)
         VALUES ('${user.userId}', ${balance}, ${suspended}, CASE ${suspended} WHEN 1 THEN now() END)
         ON CONFLICT (user_id) DO UPDATE SET balance_fula = excluded.balance_fula,
           is_suspended = excluded.is_suspended, suspended_at = excluded.suspended_at`,
      );
    await runSql(
      master,
      `INSERT INTO pins (requestid, cid, status, size, user_id)
       VALUES ('over', '${pins[0] ?? ""}', 'pinned', ${FREE_TIER_BYTES}, '${user.userId}')`,
    );
    expect((await ingest.put(block, await user.token())).status).toBe(402);
    await credits(-0.01, 1);
    const early = await user.token();
    expect((await ingest.put(block, early)).status).toBe(402);
    await credits(5, 1);
    expect((await ingest.put(block, await user.token())).status).toBe(402);
    expect(await localBlocks(node)).not.toContain(block.cid);
    await credits(5, 0);
    expect((await ingest.put(block, await user.token())).status).toBe(200);
    expect(await localBlocks(node)).toContain(block.cid);
    await eventually("the early key is asked for again", async () => {
      return (await ingest.put(block, early)).status === 200;
    });
  });

  test("without a storage API strict refuses and open stores; the change makes the ingest anew, and nothing else", async () => {
    const [refused, taken] = [someBlock(), someBlock()];
    const before = await watchNode(node);
    await master.run("docker stop fula-pinning-webui");
    expect((await ingest.put(refused, await account.token())).status).toBe(503);
    expect(await localBlocks(node)).not.toContain(refused.cid);
    const open = ["--set", "INGEST_QUOTA_MODE=open", "--no-register"];
    expectExit(await join(node, open), 0);
    expect((await ingest.put(taken, await account.token())).status).toBe(200);
    expect(await localBlocks(node)).toContain(taken.cid);
    expect((await ingest.put(taken, null)).status).toBe(401);
    const during = await watchNode(node);
    const { "/fula-ingest": made, ...kept } = during.docker?.containers ?? {};
    const { "/fula-ingest": old, ...rest } = before.docker?.containers ?? {};
    expect(made).not.toBe(old);
    expect(kept).toEqual(rest);
    const changed = Object.keys(during.files).filter((path) => during.files[path] !== before.files[path]);
    expect(changed).toEqual(["/opt/fula-storage", ENV_FILE, "/opt/fula-storage/journal.ndjson"]);
    expectExit(await join(node, ["--set", "INGEST_QUOTA_MODE=strict", "--no-register"]), 0);
    expect((await ingest.put(refused, await account.token())).status).toBe(503);
    await master.run("docker start fula-pinning-webui");
    const late = await account.token();
    await eventually("it asks again", async () => (await ingest.put(refused, late)).status === 200);
  });

  test("the master's database down: 503 and not 402, and status of the node says where the fault is", async () => {
    const [refused, late] = [someBlock(), await account.token()];
    await master.run("docker stop postgres-pinning");
    const answer = await ingest.put(refused, late);
    expect(answer.status).toBe(503);
    expect(JSON.stringify(answer)).toContain("the master's storage API can't check the quota now");
    expect(await localBlocks(node)).not.toContain(refused.cid);
    const { parts } = JSON.parse((await fulaNode(node, ["status", "--json"])).stdout) as {
      parts: readonly Record<string, string>[];
    };
    expect(parts.find(({ name }) => name === "quota gate")).toMatchObject({
      state: "attention",
      summary: expect.stringMatching(/ answers 503 \(The database does not respond/) as string,
      todo: "the fault is at the master: ask its operator",
    });
    await master.run("docker start postgres-pinning");
    await eventually("it asks again", async () => (await ingest.put(refused, late)).status === 200);
  });

  test("kubo down: it says so and takes nothing; kubo back: it is well again by itself", async () => {
    const block = someBlock();
    await node.run("docker stop ipfs_host");
    expect(await ingest.health()).toEqual({ status: 503, body: { status: "ok", kubo: false } });
    expect((await ingest.put(block, token)).status).toBe(502);
    await eventually(
      "its healthcheck sees it",
      async () => (await startOf(node, "fula-ingest")).health === "unhealthy",
      150_000,
    );
    await node.run("docker start ipfs_host");
    await eventually("it is well again", async () => (await ingest.health()).status === 200);
    expect(await localBlocks(node)).not.toContain(block.cid);
    expect((await ingest.put(block, token)).status).toBe(200);
    await eventually(
      "its healthcheck sees that",
      async () => (await startOf(node, "fula-ingest")).health === "healthy",
    );
    expect((await startOf(node, "fula-ingest")).restarts).toBe(0);
  });

  test.each([
    ["kubo", "^/usr/local/bin/ipfs daemon ", "ipfs_host"],
    ["ipfs-cluster", "^/usr/local/bin/ipfs-cluster-service daemon", "ipfs_cluster"],
    ["the ingest", "^node /app/bin/fula-node.js serve ingest$", "fula-ingest"],
  ])(
    "%s killed under load comes back by itself, and no acknowledged block is lost",
    async (_, line, container) => {
      const before = await localBlocks(node);
      const load = startLoad(ingest, token);
      const untilMore = async (count: number) => {
        const wished = load.acknowledged.length + count;
        await eventually("blocks go in", async () => load.acknowledged.length >= wished, 120_000);
      };
      try {
        await untilMore(50);
        await killProcess(node, line, container);
        await untilMore(50);
      } finally {
        await load.stop();
      }
      expect([...load.refusals].filter((status) => status !== 502)).toEqual([]);
      expect(await readBack(node, load.acknowledged)).toBe(digestOf(load.acknowledged));
      const unknown = [...(await localBlocks(node))].filter((cid) => !before.has(cid) && !load.sent.has(cid));
      expect(unknown).toEqual([]);
      expect([...(await stored(node))]).toEqual(expect.arrayContaining(pins));
      await eventually("it is a member", async () => (await members(master)).includes("one"));
      expect([...(await pinset(node))].toSorted()).toEqual(pins.toSorted());
      await eventually("its kubo is connected", async () => (await kuboPeers(node)) > 0);
      await pinOnMaster();
      await untilStored([node], pins);
    },
  );
});
