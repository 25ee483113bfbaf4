import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, installArtifact, PROGRAM } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { clusterUrl, expectExit, readEnv, skipped, stderrOf } from "../support/master-box.ts";
import {
  askCluster,
  bootFederation,
  bootNode,
  by,
  invite,
  join,
  members,
  openStorageApi,
  pinContent,
  pinset,
  PRIVATE_NETWORK,
  untilStored,
} from "../support/storage-boxes.ts";

const PASSPHRASE = "correct horse battery staple canary";
const KEY = "/root/backup-passphrase.txt";
const OPEN = ["--set-file", `BACKUP_PASSPHRASE=${KEY}`] as const;
const CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

/** Who a master is, and what only it knows. */
interface Identity {
  readonly kubo: string;
  readonly cluster: string;
  readonly secrets: Readonly<Record<string, string | undefined>>;
  readonly users: string;
}

async function identityOf(box: Box): Promise<Identity> {
  const cluster = await box.run(`curl -sf ${await clusterUrl(box)}/id`);
  const kubo = await box.run("curl -sf -X POST http://127.0.0.1:5001/api/v0/id");
  const env = await readEnv(box);
  const keys = [
    "MASTER_ID",
    "POSTGRES_PASSWORD",
    "ENCRYPTION_KEY",
    "JWT_SECRET",
    "SYSTEM_KEY",
    "CLUSTER_SECRET",
  ];
  const users = await fulaNode(box, ["user", "list", "--json"]);
  return {
    kubo: (JSON.parse(kubo.stdout) as { ID: string }).ID,
    cluster: (JSON.parse(cluster.stdout) as { id: string }).id,
    secrets: Object.fromEntries(keys.map((key) => [key, env[key]])),
    users: users.stdout.replaceAll(/"version":"[^"]*"/g, ""),
  };
}

describe.skipIf(skipped !== undefined)("a master that is backed up", () => {
  let network: string;
  let box: Box;
  let node: Box;
  let content = "";
  let contentSum = "";
  let archive = "";
  let before: Identity;
  const fula = (...args: string[]): Promise<ExecResult> => fulaNode(box, args);

  beforeAll(async () => {
    network = await Box.network();
    [box, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
    await box.writeFile(KEY, PASSPHRASE, 0o600);
    expectExit(await join(node, [...by(await invite(box, "one")), ...PRIVATE_NETWORK]), 0);
    content = await pinContent(box);
    contentSum = (await box.run(`docker exec ipfs_host ipfs cat ${content} | sha256sum`)).stdout;
    await untilStored([node], [content]);
    expectExit(await fula("user", "create", "--email", "canary@example.org"), 0);
    // It wants more copies than a master alone can have. No snapshot has these pins yet.
    const twice = `/pins/${CID}?replication-min=2&replication-max=2`;
    // The node counts once its free space is known.
    await eventually(
      "two nodes can have a pin",
      async () => (await askCluster(box, "POST", twice)).status === 200,
    );
  });
  afterAll(async () => {
    await Promise.all([box?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("is backed up while everything runs, and nothing of it is stopped", async () => {
    // A backup has the newest three.
    for (let taken = 0; taken < 4; taken += 1) expectExit(await fula("snapshot", "take"), 0);
    before = await identityOf(box);
    const running = async (): Promise<string> =>
      (await box.run("docker ps --all --format '{{.ID}} {{.Names}}' | sort")).stdout;
    const containers = await running();
    const made = await fula(
      "backup",
      "create",
      "--to",
      "/mnt/backup",
      "--set-file",
      `BACKUP_PASSPHRASE=${KEY}`,
    );
    expectExit(made, 0);
    expect(await running()).toBe(containers);
    archive = /Done: (\S+)/.exec(made.stdout)?.[1] ?? "";
    expect((await box.run("ls -A /mnt/backup")).stdout.trim()).toBe(archive.replace("/mnt/backup/", ""));
    expect((await box.run(`stat -c '%a %U' /mnt/backup ${archive}`)).stdout).toBe("700 root\n600 root");
    expect(made.stdout + made.stderr).not.toContain("canary");
    const verified = await fula("backup", "verify", archive, "--set-file", `BACKUP_PASSPHRASE=${KEY}`);
    expectExit(verified, 0);
    expect(verified.stdout).toContain(before.cluster);
    expect(verified.stdout).toContain(before.kubo);
  });

  test("one byte of it is changed: 28, and with a wrong passphrase 21", async () => {
    const copy = archive.replace("/mnt/backup", "/root");
    await box.run(`cp ${archive} ${copy}; printf x | dd of=${copy} bs=1 seek=5000 conv=notrunc status=none`);
    const damaged = await fula(
      "backup",
      "unpack",
      copy,
      "--to",
      "/root/x",
      "--set-file",
      `BACKUP_PASSPHRASE=${KEY}`,
    );
    expectExit(damaged, 28);
    await box.writeFile("/root/wrong.txt", "another passphrase than that", 0o600);
    const wrong = await fula("backup", "verify", archive, "--set-file", "BACKUP_PASSPHRASE=/root/wrong.txt");
    expectExit(wrong, 21);
    expect(stderrOf(wrong)).toContain("does not open this backup");
    expect((await box.exec("ls -A /root | grep -x -e x -e .x.backup-partial")).stdout).toBe("");
  });

  test("without the identity of the writer, whose disk is not mounted, there is no backup that looks good", async () => {
    await box.run("mv /opt/fula-writer/ipfs-cluster/identity.json /root/identity.json");
    const lacking = await fula(
      "backup",
      "create",
      "--to",
      "/mnt/lacking",
      "--set-file",
      `BACKUP_PASSPHRASE=${KEY}`,
    );
    await box.run("mv /root/identity.json /opt/fula-writer/ipfs-cluster/identity.json");
    expectExit(lacking, 24);
    expect(stderrOf(lacking)).toContain("identity.json is missing");
    expect((await box.exec("ls -A /mnt/lacking")).stdout).toBe("");
  });

  test("stopped by a signal, it takes back what it made, and leaves no pg_dump", async () => {
    const command = `node ${PROGRAM} backup create --to /mnt/stopped --set-file BACKUP_PASSPHRASE=${KEY}`;
    const stopped = await box.exec(
      `${command} >/root/stopped.log 2>&1 & pid=$!
       until [ -e /mnt/stopped/.backup-*.partial ]; do kill -0 $pid || exit 3; sleep 0.02; done
       docker pause postgres-pinning >/dev/null; kill -INT $pid; wait $pid; code=$?
       docker unpause postgres-pinning >/dev/null; cat /root/stopped.log; exit $code`,
    );
    expect(stopped.exitCode, stopped.stdout).toBe(26);
    expect(stopped.stdout).toContain("The backup was stopped.");
    expect(
      (await box.run("ls -A /mnt/stopped; docker ps -aq --filter label=land.fx.fula-node.backup")).stdout,
    ).toBe("");
  });

  test("cron backs it up every night once it is told where and for whom, and keeps the newest", async () => {
    const recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const set = ["BACKUP_DIR=/mnt/nightly", `BACKUP_RECIPIENT=${recipient}`, "BACKUP_KEEP=2"];
    expectExit(await fula("join-as-master", "--yes", ...set.flatMap((one) => ["--set", one])), 0);
    const line =
      (await box.readFile("/etc/cron.d/fula-backup")).split("\n").find((one) => / root /.test(one)) ?? "";
    const command = line.replace(/^.*? root /, "");
    for (let run = 0; run < 3; run += 1) await box.run(command);
    expect((await box.run("ls /mnt/nightly | wc -l")).stdout.trim()).toBe("2");
    const status = await fula("status", "--json");
    expect(status.stdout).toMatch(/2 good in \/mnt\/nightly, on this machine's own disk/);
    // The same directory as the shell completes it.
    expectExit(await fula("backup", "create", "--to", "/mnt/nightly/"), 0);
    expect((await box.run("ls /mnt/nightly | wc -l")).stdout.trim()).toBe("2");
    // On another disk from now on; then that disk is not mounted.
    await box.run("mount -t tmpfs tmpfs /mnt/nightly");
    expect((await fula("backup", "create")).stdout).not.toContain("own disk");
    await box.run("umount /mnt/nightly");
    const unmounted = await fula("backup", "create");
    expectExit(unmounted, 22);
    expect(stderrOf(unmounted)).toContain("Its own disk is probably not mounted");
    expect((await box.run("ls /mnt/nightly | wc -l")).stdout.trim()).toBe("2");
  });

  test("it is not restored over a master, nor where another pool is named", async () => {
    const args = ["join-as-master", "--yes", "--from-backup", archive, ...OPEN];
    const filled = await fula(...args);
    expectExit(filled, 23);
    expect(stderrOf(filled)).toContain("This machine is the master of this backup already");
    const other = await fula(...args, "--set", "CLUSTERNAME=another");
    expectExit(other, 23);
    expect(stderrOf(other)).toContain("not of another");
  });

  test("the machine is lost: an empty one needs the word that it is off, and is left as it was without", async () => {
    const bytes = (await box.run(`base64 -w0 ${archive}`)).stdout;
    const lost = box;
    // Booted first, so that it has another address.
    box = await Box.boot({ name: "master", image: "docker", network });
    await lost.destroy();
    await installArtifact(box);
    await box.writeFile(KEY, PASSPHRASE, 0o600);
    archive = archive.replace("/mnt/backup", "/root");
    await box.run(`base64 -d >${archive}`, { input: bytes });
    const args = ["join-as-master", "--yes", "--from-backup", archive, ...OPEN];
    const planned = await fula(...args, "--dry-run");
    expectExit(planned, 20);
    expect(planned.stdout).toContain("unpack the backup of");
    const unsaid = await fula(...args);
    expectExit(unsaid, 22);
    expect(stderrOf(unsaid)).toContain("--old-machine-is-off master");
    expectExit(await fula(...args, "--old-machine-is-off", "another"), 22);
    expect((await box.run("ls -A /opt")).stdout).not.toMatch(/fula-(?:master|writer)/);
  });

  test("it becomes that master again, killed in the middle, and its content comes back from the storage node", async () => {
    const args = [
      "join-as-master",
      "--yes",
      "--from-backup",
      archive,
      ...OPEN,
      "--old-machine-is-off",
      "master",
    ];
    const killed = await box.exec(
      `node ${PROGRAM} ${args.join(" ")} >/root/killed.log 2>&1 & pid=$!
       until [ -e /opt/fula-master/from-backup/placed.txt ]; do kill -0 $pid || exit 3; sleep 0.05; done
       kill -KILL $pid; wait $pid`,
    );
    expect(killed.exitCode, killed.stderr).toBe(137);
    expect((await box.exec("ls /opt/fula-master/from-backup")).stdout).toContain("database.dump");
    // A new schema would be taken for the restored one.
    expectExit(await fula("migrate", "up"), 22);
    // Without the flag: running again is the repair.
    const again = await fula("join-as-master", "--yes");
    expectExit(again, 0);
    expect(again.stdout).toContain("restore the database of the backup");
    expect(again.stdout).toContain("See how it stands:");
    expect(again.stdout).not.toContain("No backup has");
    expect(again.stdout + again.stderr).not.toContain("canary");
    expect(again.stdout).toContain("Left to do: not all pins came back.");
    expect((await box.run("find /opt/fula-master/from-backup -type f | sort")).stdout).toMatch(
      /^\S*archive\.txt\n(?:\S*\/base\/snapshots\/\S+\n)+\S*database\.txt\n\S*manifest\.json\n\S*placed\.txt$/,
    );
    expect(await identityOf(box)).toEqual(before);
    expect([...(await pinset(box))]).toEqual([content]);
    const pending = await fula("status");
    expectExit(pending, 20);
    expect(pending.stdout.replaceAll(/\s+/g, " ")).toMatch(/1 change pending: .*pin again what the snapshot/);
    // A machine with another address needs new invites.
    await openStorageApi(box);
    const invited = by(await invite(box, "one"));
    expectExit(await join(node, [...invited, "--accept-pool-change", ...PRIVATE_NETWORK]), 0);
    await eventually(
      "the storage node is a member again",
      async () => (await members(box)).includes("one"),
      180_000,
    );
    await untilStored([node], [content]);
    await eventually(
      "the content comes back from the storage node",
      async () => {
        const read = await box.exec(`docker exec ipfs_host timeout 20 ipfs cat ${content} | sha256sum`);
        return read.stdout === contentSum;
      },
      180_000,
    );
    // Now there are two nodes for the pin that wants them.
    const rest = await fula("join-as-master", "--yes");
    expectExit(rest, 0);
    expect(rest.stdout).toContain("pin again what the snapshot");
    expect([...(await pinset(box))].toSorted()).toEqual([CID, content].toSorted());
    expect((await box.run("ls -A /opt/fula-master")).stdout).not.toContain("from-backup");
    expectExit(await fula("snapshot", "list"), 0);
    // The newest snapshot lacks that pin.
    expectExit(await fula("snapshot", "take"), 0);
    expectExit(await fula("status"), 0);
    const nothing = await fula("join-as-master", "--yes");
    expectExit(nothing, 0);
    expect(nothing.stdout).toContain("Nothing to do");
  });
});
