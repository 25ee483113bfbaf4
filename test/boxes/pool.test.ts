import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import { Box, type ExecOptions, type ExecResult } from "../support/box.ts";
import { expectExit, rejoin, skipped, stderrOf } from "../support/master-box.ts";
import { makeIdentityFile } from "../support/node-identity.ts";
import { PoolApi, poolAnswer } from "../support/pool-box.ts";
import {
  addContent,
  askCluster,
  bootFederation,
  bootNode,
  FORWARD_PORT,
  members,
  peerId,
  PRIVATE_NETWORK,
  untilStored,
  watchNode,
} from "../support/storage-boxes.ts";

const ENV_FILE = "/opt/fula-storage/.env";
const CERTIFICATE = "/root/pool.pem";

describe.skipIf(skipped !== undefined)(
  "a storage node that gets its trusted masters from the pool API",
  () => {
    const stranger = makeIdentityFile().peerId;
    let network: string;
    let master: Box;
    let node: Box;
    let pool: PoolApi;
    let masterId: string;

    const joinBy = (url: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) => {
      const settings = {
        CLUSTERNAME: "test-pool",
        STORAGE_API_URL: `http://master:${FORWARD_PORT}`,
        POOL_API: url,
      };
      const sets = Object.entries(settings).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
      return join(node, [...sets, ...PRIVATE_NETWORK, ...args], { env });
    };
    const join = (box: Box, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> =>
      fulaNode(box, ["join-as-storage-node", "--yes", ...args], options);

    /** Whom the node trusts by its file, and what its ipfs-cluster was started with. */
    const trusted = async (): Promise<readonly string[]> => {
      const key = "CLUSTER_CRDT_TRUSTEDPEERS=";
      const { stdout } = await node.run(
        `grep ^MASTER_CLUSTER_PEERIDS= ${ENV_FILE}; docker exec ipfs_cluster env | grep ^${key}`,
      );
      return stdout.split("\n").map((line) => line.slice(line.indexOf("=") + 1));
    };

    const expectDrift = (result: ExecResult, words: readonly string[]): void => {
      expectExit(result, 24);
      for (const word of [...words, "--accept-pool-change"]) expect(stderrOf(result)).toContain(word);
    };

    beforeAll(async () => {
      network = await Box.network();
      [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
      pool = await PoolApi.start(master);
      masterId = await peerId(master);
      await pool.answer(await poolAnswer(master));
      await node.writeFile(CERTIFICATE, await pool.certificate());
      // Accepted before: this test is about the pool API.
      await node.writeFile(ENV_FILE, `STORAGE_API_URL=http://master:${FORWARD_PORT}\n`, 0o600);
    });
    afterAll(async () => {
      await Promise.all([master?.destroy(), node?.destroy()]);
      await Box.removeNetwork(network);
    });

    test("plain http, an unknown certificate and an answer that names nobody are refused, and nothing is written", async () => {
      const before = await node.snapshot();
      const overHttp = await joinBy(pool.http, []);
      expectExit(overHttp, 21);
      expect(stderrOf(overHttp)).toContain("plain http to another host");
      expect(stderrOf(overHttp)).toContain("again with --allow-http.");
      expectExit(await joinBy(pool.https, []), 29);
      await pool.answer("<html>");
      expectExit(await joinBy(pool.http, ["--allow-http-pool"]), 29);
      await pool.answer(await poolAnswer(master, { "ipfs-cluster-trustedpeers": ["*", masterId] }));
      expectExit(await joinBy(pool.http, ["--allow-http-pool"]), 29);
      await pool.answer(await poolAnswer(master));
      expect(await node.snapshot()).toEqual(before);
    });

    test("over https it joins, prints what it learned, and saves it", async () => {
      const cid = await addContent(master);
      expect((await askCluster(master, "POST", `/pins/${cid}`)).status).toBe(200);
      const trust = { NODE_EXTRA_CA_CERTS: CERTIFICATE };
      const before = await node.snapshot();
      const uninvited = await joinBy(pool.https, [], trust);
      expectExit(uninvited, 21);
      expect(stderrOf(uninvited)).toMatch(
        /does not register the name one: it registers invited nodes only.*--invite.*--no-register/,
      );
      expect(await node.snapshot()).toEqual(before);
      expectExit(await rejoin(master, ["--set", "NODE_REGISTRATION=open"]), 0);
      const result = await joinBy(pool.https, [], trust);
      expectExit(result, 0);
      expect(result.stdout).toContain(`lists one master to trust: ${masterId}; bootstrap: /ip4/`);
      const saved = await node.readFile(ENV_FILE);
      expect(saved).toContain(`\nMASTER_CLUSTER_PEERIDS=${masterId}\n`);
      expect(saved).toContain(`\nPOOL_API=${pool.https}\n`);
      expect(saved).toMatch(new RegExp(`\nMASTER_CLUSTER_BOOTSTRAP=/ip4/[0-9.]+/tcp/9096/p2p/${masterId}\n`));
      expect(await members(master)).toEqual(["master", "one"]);
      await untilStored([node], [cid]);
    });

    test("an answer that later differs halts the run, named, and changes nothing", async () => {
      const before = await watchNode(node);
      const elsewhere = { addresses: [`/ip4/192.0.2.1/tcp/9096/p2p/${masterId}`] };
      const answers: readonly (readonly [Readonly<Record<string, unknown>>, string])[] = [
        [{ "ipfs-cluster-trustedpeers": [masterId, stranger] }, stranger],
        [{ "ipfs-cluster-trustedpeers": [stranger] }, stranger],
        [{ "ipfs-cluster-trustedpeers": [], "ipfs-cluster-peerid": stranger }, stranger],
        [{ ipfs_cluster: elsewhere }, "192.0.2.1"],
      ];
      const trust = { env: { NODE_EXTRA_CA_CERTS: CERTIFICATE } };
      for (const [changes, named] of answers) {
        await pool.answer(await poolAnswer(master, changes));
        expectDrift(await join(node, [], trust), [named]);
        expectDrift(await join(node, ["--dry-run"], trust), [named]);
      }
      await pool.answer("<html>");
      const away = await join(node, [], trust);
      expectExit(away, 0);
      expect(stderrOf(away)).toContain("The masters in .env stay in use.");
      expect(await trusted()).toEqual([masterId, masterId]);
      const { files, docker } = await watchNode(node);
      expect(docker).toEqual(before.docker);
      expect(files).toEqual(before.files);
    });

    test("accepted by name it trusts the new masters too, and drops them only when that is accepted", async () => {
      const accept = ["--accept-pool-change", "--allow-http-pool"];
      const both = `${masterId},${stranger}`;
      await pool.answer(await poolAnswer(master, { "ipfs-cluster-trustedpeers": [masterId, stranger] }));
      expectExit(await joinBy(pool.http, accept), 0);
      expect(await trusted()).toEqual([both, both]);
      expectExit(await join(node, []), 21);
      expectExit(await join(node, ["--allow-http-pool", "--dry-run"]), 0);
      await pool.answer(await poolAnswer(master));
      expectDrift(await join(node, ["--allow-http-pool"]), [stranger]);
      expect(await trusted()).toEqual([both, both]);
      expectExit(await join(node, accept), 0);
      expect(await trusted()).toEqual([masterId, masterId]);
    });
  },
);
