import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box, type ExecOptions, type ExecResult } from "../support/box.ts";
import { difference, NO_DIFFERENCE } from "../support/box-difference.ts";
import { type BoxSnapshot, withoutData } from "../support/box-snapshot.ts";
import { ALL_HEALTHY, expectExit, health, readEnv, skipped, stderrOf } from "../support/master-box.ts";
import {
  addContent,
  askCluster,
  bootFederation,
  bootNode,
  by,
  closeStorageApi,
  invite,
  join,
  openStorageApi,
  peerId,
  pinset,
  PRIVATE_NETWORK,
  stored,
  untilStored,
  watchNode,
} from "../support/storage-boxes.ts";
import {
  FULA_WRITER,
  pinThroughWriter,
  startWriterContainers,
  writerState,
} from "../support/upstream-writer.ts";

/** Every place that a join could write to. */
const WATCHED = ["/opt", "/etc", "/usr/local", "/var/spool/cron", "/root", "/home", "/srv"] as const;
const HOOK = "/root/kill-hook.cjs";
const INSTALLED = "/opt/fula-master/cli/current/bin/fula-node.js";

function leave(box: Box, args: readonly string[] = [], options: ExecOptions = {}): Promise<ExecResult> {
  return fulaNode(box, ["leave", "--yes", ...args], options);
}

/** The flags of a leave that removes everything. */
function purgeAll(box: Box): readonly string[] {
  return ["--purge", "all", "--confirm", box.name];
}

describe.skipIf(skipped !== undefined)("a master that made its own writer leaves", () => {
  let box: Box;
  let before: BoxSnapshot;
  let env: Readonly<Record<string, string>>;
  let known: readonly string[];

  const users = async (): Promise<string> =>
    (
      await box.run(
        "docker exec postgres-pinning psql -U pinning_user -d pinning_service -tAc 'SELECT count(*) FROM webui_users'",
      )
    ).stdout;
  const know = async () => [await peerId(box), ...(await pinset(box)), ...(await stored(box))].toSorted();

  beforeAll(async () => {
    box = await Box.boot({ name: "leaver", image: "docker" });
    await installArtifact(box);
    await box.copyIn(`${import.meta.dirname}/../support/kill-hook.cjs`, HOOK);
    before = await box.snapshot(WATCHED);
    expectExit(await leave(box), 21);
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    await pinThroughWriter(box, 2);
    expectExit(await fulaNode(box, ["user", "create", "--email", "a@example.org"]), 0);
    expectExit(await fulaNode(box, ["sweep"]), 0);
    // What cron's runs leave, whether one falls into this test or not.
    await box.run("cd /opt/fula-master && touch snapshot.log sweep.log replication-alerts.log");
    [env, known] = await Promise.all([readEnv(box), know()]);
  });
  afterAll(() => box?.destroy());

  test("without a confirmation, or with another machine's name, nothing is touched", async () => {
    const joined = withoutData(await box.snapshot(WATCHED));
    for (const args of [
      ["leave"],
      ["leave", "--yes", "--purge", "data"],
      ["leave", "--purge", "all", "--confirm", "other"],
    ])
      expectExit(await fulaNode(box, args), 22);
    const plan = await fulaNode(box, ["leave", "--dry-run"]);
    expectExit(plan, 20);
    expect(plan.stdout).toContain("stop and remove the container postgres-pinning");
    expect(withoutData(await box.snapshot(WATCHED))).toEqual(joined);
  });

  test("run from the copy that it removes, it keeps what it must keep, and nothing else", async () => {
    const result = await box.exec(["node", INSTALLED, "leave", "--yes"]);
    expectExit(result, 0);
    expect(difference(before, await box.snapshot(WATCHED))).toEqual({
      more: [
        "/opt/fula-master",
        "/opt/fula-master/.env",
        "/opt/fula-master/journal.ndjson",
        "/opt/fula-master/known-nodes.json",
        "/opt/fula-master/replication-alerts.log",
        "/opt/fula-master/snapshot-ed25519.pem",
        "/opt/fula-master/snapshot-ed25519.pub.pem",
        "/opt/fula-master/snapshot.log",
        "/opt/fula-master/snapshots",
        "/opt/fula-master/state",
        "/opt/fula-master/sweep.log",
        "/opt/fula-writer",
        "/opt/fula-writer/cluster-start.sh",
        "/opt/fula-writer/ipfs-cluster",
        "/opt/fula-writer/kubo",
        "/opt/fula-writer/kubo-init.sh",
        "volume fula-master_pgdata",
      ],
      less: [],
      changed: [],
    });
    expect(result.stdout).toContain("fula-node join-as-master --provision-writer");
    const again = await leave(box);
    expectExit(again, 0);
    expect(again.stdout).toContain("It left earlier");
  });

  test("a join finds what was kept: secrets, rows, identities, pins and their content", async () => {
    expectExit(await fulaNode(box, ["join-as-master", "--yes", "--provision-writer"]), 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect(await readEnv(box)).toEqual(env);
    expect(await users()).toBe("1");
    expect(await know()).toEqual(known);
  });

  test("killed after every change, with everything purged, it finishes: the box is as it was", async () => {
    let kills = 0;
    for (;;) {
      const result = await leave(box, purgeAll(box), {
        env: { NODE_OPTIONS: `--require ${HOOK}`, KILL_AT: "journal|done|1" },
      });
      if (result.exitCode === 0) break;
      expectExit(result, 137);
      kills += 1;
      expect(kills).toBeLessThan(60);
    }
    expect(kills).toBeGreaterThan(15);
    expect(difference(before, await box.snapshot(WATCHED))).toEqual(NO_DIFFERENCE);
    expectExit(await leave(box), 21);
  });
});

describe.skipIf(skipped !== undefined)(
  "a master that adopted a writer in our default directory leaves",
  () => {
    let box: Box;
    beforeAll(async () => {
      box = await Box.boot({ name: "adopter", image: "docker" });
      await installArtifact(box);
    });
    afterAll(() => box?.destroy());

    test("with everything purged: the writer is as it was, and so is the box", async () => {
      await startWriterContainers(box, FULA_WRITER);
      await pinThroughWriter(box, 2);
      const [writer, before] = [await writerState(box, FULA_WRITER), await box.snapshot(WATCHED)];
      expectExit(await fulaNode(box, ["join-as-master", "--yes"]), 0);
      const result = await leave(box, [...purgeAll(box), "--json"]);
      expectExit(result, 0);
      const { others } = JSON.parse(result.stdout) as { others: readonly string[] };
      expect(others.toSorted()).toEqual([
        "/opt/fula-writer",
        "container ipfs_cluster",
        "container ipfs_host",
      ]);
      expect(await writerState(box, FULA_WRITER)).toEqual(writer);
      // The writer works on, in its own files.
      const { more, less, changed } = difference(before, await box.snapshot(WATCHED));
      const foreign = (path: string) => !path.startsWith("/opt/fula-writer/");
      expect([more, less, changed].map((some) => some.filter(foreign))).toEqual([[], [], []]);
    });
  },
);

describe.skipIf(skipped !== undefined)("a storage node leaves", () => {
  let network: string;
  let master: Box;
  let node: Box;
  let before: BoxSnapshot;
  let cid: string;

  const nameStatus = async (): Promise<string> =>
    (await master.run("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:3001/api/v1/nodes/one"))
      .stdout;

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
    before = await node.snapshot(WATCHED);
    const invited = await invite(master, "one");
    expectExit(await join(node, [...by(invited), ...PRIVATE_NETWORK]), 0);
    cid = await addContent(master);
    expect((await askCluster(master, "POST", `/pins/${cid}`)).status).toBe(200);
    await untilStored([node], [cid]);
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("while the master can't be reached it stays, and says how to leave anyway", async () => {
    await closeStorageApi(master);
    const joined = await watchNode(node);
    const result = await leave(node);
    expectExit(result, 29);
    expect(stderrOf(result)).toContain("--no-release");
    expect(await watchNode(node)).toEqual(joined);
    await openStorageApi(master);
  });

  test("its name is free again, its volumes and settings are kept, and it comes back as the same peer", async () => {
    const id = await peerId(node);
    expect(await nameStatus()).toBe("200");
    expectExit(await leave(node), 0);
    expect(await nameStatus()).toBe("404");
    expect(difference(before, await node.snapshot(WATCHED))).toEqual({
      more: [
        "/opt/fula-storage",
        "/opt/fula-storage/.env",
        "/opt/fula-storage/journal.ndjson",
        "volume fula-storage_cluster-data",
        "volume fula-storage_kubo-data",
      ],
      less: [],
      changed: [],
    });
    expectExit(await join(node, []), 0);
    expect(await nameStatus()).toBe("200");
    expect(await peerId(node)).toBe(id);
    await untilStored([node], [cid]);
  });

  test("with everything purged the box is as it was, and another key may have the name", async () => {
    const id = await peerId(node);
    expectExit(await leave(node, purgeAll(node)), 0);
    expect(difference(before, await node.snapshot(WATCHED))).toEqual(NO_DIFFERENCE);
    const invited = await invite(master, "one");
    expectExit(await join(node, [...by(invited), ...PRIVATE_NETWORK]), 0);
    expect(await peerId(node)).not.toBe(id);
    expect(await nameStatus()).toBe("200");
  });
});
