import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { createAccount, Ingest, someBlock } from "../support/ingress-boxes.ts";
import { expectExit, skipped } from "../support/master-box.ts";
import {
  bootFederation,
  bootNode,
  by,
  FORWARD_PORT,
  invite,
  join,
  PRIVATE_NETWORK,
} from "../support/storage-boxes.ts";

const BLOCK_BYTES = 2_000_000;
const LIMIT_BYTES = 50_000_000;

describe.skipIf(skipped !== undefined)("a storage node with a limit of 50 MB", () => {
  let network: string;
  let master: Box;
  let node: Box;
  let ingest: Ingest;
  let token: string;

  /** Sends this many bytes in blocks, eight at a time, and counts the answers. */
  const upload = async (bytes: number): Promise<ReadonlyMap<number, number>> => {
    const counts = new Map<number, number>();
    let left = bytes / BLOCK_BYTES;
    const client = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        const { status } = await ingest.put(someBlock(BLOCK_BYTES), token);
        counts.set(status, (counts.get(status) ?? 0) + 1);
      }
    };
    await Promise.all(Array.from({ length: 8 }, client));
    return counts;
  };
  const repositoryBytes = async (): Promise<number> => {
    const { stdout } = await node.run("docker exec ipfs_host ipfs repo stat --size-only --enc=json");
    return (JSON.parse(stdout) as { RepoSize: number }).RepoSize;
  };
  const storageLine = async (exitCode: number): Promise<string> => {
    const result = await fulaNode(node, ["status", "--json"]);
    expectExit(result, exitCode);
    const { report } = JSON.parse(result.stdout) as {
      report: readonly { readonly about: string; readonly state: string; readonly sentence: string }[];
    };
    const line = report.find(({ about }) => about === "storage");
    return `${line?.state}: ${line?.sentence}`;
  };

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
    const invited = await invite(master, "one");
    const limit = ["--set", "KUBO_STORAGE_MAX=50MB"];
    expectExit(await join(node, [...by(invited), ...PRIVATE_NETWORK, ...limit]), 0);
    ingest = await Ingest.of(node);
    await createAccount(master, "a@example.org");
    const issued = await fulaNode(master, ["user", "token", "--email", "a@example.org", "--upload"]);
    expectExit(issued, 0);
    token = issued.stdout.trim();
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("takes what fits of 120 MB, refuses the rest, and says that it is full", async () => {
    expect(await storageLine(0)).toMatch(/^ok: .* of 50\.0 MB used/);
    const answers = await upload(120_000_000);
    expect(new Set(answers.keys())).toEqual(new Set([200, 507]));
    expect((answers.get(200) ?? 0) + (answers.get(507) ?? 0)).toBe(60);
    expect(answers.get(200)).toBeGreaterThanOrEqual(20);
    const used = await repositoryBytes();
    expect(used).toBeGreaterThan(LIMIT_BYTES * 0.8);
    expect(used).toBeLessThanOrEqual(LIMIT_BYTES);
    expect(await storageLine(20)).toMatch(/^attention: full: .*; uploads are refused$/);
    expect((await ingest.health()).status).toBe(200);
  });

  test("takes blocks again with a higher limit, but none that the disk's reserve forbids", async () => {
    expectExit(await join(node, ["--set", "KUBO_STORAGE_MAX=500MB"]), 0);
    expect(await upload(10_000_000)).toEqual(new Map([[200, 5]]));
    expect(await storageLine(0)).toMatch(/^ok: /);
    expectExit(await join(node, ["--set", "DISK_RESERVE=900TB"]), 0);
    expect(await upload(4_000_000)).toEqual(new Map([[507, 2]]));
    expect(await storageLine(20)).toMatch(
      /^attention: full: .*with a reserve of 900\.0 TB; uploads are refused/,
    );
  });

  test("the key for uploading opens nothing else on the master", async () => {
    const ask = async (path: string): Promise<string> => {
      const url = `http://master:${FORWARD_PORT}${path}`;
      const command = ["curl", "-s", "-w", " %{http_code}", "-H", `Authorization: Bearer ${token}`, url];
      return (await node.run(command)).stdout;
    };
    expect(await ask("/api/v1/storage")).toBe('{"canUpload":true}\n 200');
    expect(await ask("/api/v1/nodes")).toMatch(/"code":"upload-only".* 403$/s);
  });
});
