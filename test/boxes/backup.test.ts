import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { clusterUrl, expectExit, readEnv, skipped, stderrOf } from "../support/master-box.ts";

const PASSPHRASE = "correct horse battery staple canary";
const KEY = "/root/backup-passphrase.txt";
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
  let box: Box;
  let archive = "";
  let before: Identity;
  const fula = (...args: string[]): Promise<ExecResult> => fulaNode(box, args);
  const boot = async (name: string): Promise<Box> => {
    const made = await Box.boot({ name, image: "docker" });
    await installArtifact(made);
    await made.writeFile(KEY, PASSPHRASE, 0o600);
    return made;
  };

  beforeAll(async () => {
    box = await boot("backed-up");
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    expectExit(await fula("user", "create", "--email", "canary@example.org"), 0);
    await box.run(`curl -sf -X POST ${await clusterUrl(box)}/pins/${CID}`);
    expectExit(await fula("snapshot", "take"), 0);
  });
  afterAll(() => Box.destroyAll());

  test("is backed up while everything runs, and nothing of it is stopped", async () => {
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
    expect(status.stdout).toMatch(/2 good in \/mnt\/nightly/);
  });

  test("a new machine becomes that master again by docs/backup.md", async () => {
    const bytes = (await box.run(`base64 -w0 ${archive}`)).stdout;
    await box.destroy();
    box = await boot("restored");
    const name = archive.replace("/mnt/backup", "/root");
    await box.run(`base64 -d >${name}`, { input: bytes });
    expectExit(
      await fula(
        "backup",
        "unpack",
        name,
        "--to",
        "/root/unpacked",
        "--set-file",
        `BACKUP_PASSPHRASE=${KEY}`,
      ),
      0,
    );
    await box.run("mkdir -p /opt/fula-master /opt/fula-writer");
    await box.run("cp -a /root/unpacked/base/. /opt/fula-master/");
    await box.run("cp -a /root/unpacked/writer/. /opt/fula-writer/");
    expectExit(await fula("join-as-master", "--yes", "--provision-writer", "--adopt", "writer"), 0);
    await box.run("docker stop fula-pinning-api fula-pinning-webui");
    await box.run("docker exec postgres-pinning dropdb -U pinning_user --force pinning_service");
    await box.run("docker exec postgres-pinning createdb -U pinning_user pinning_service");
    await box.run(
      "docker exec -i postgres-pinning pg_restore -U pinning_user -d pinning_service --exit-on-error </root/unpacked/database.dump",
    );
    expectExit(await fula("join-as-master", "--yes"), 0);
    const snapshots = (await box.run("ls /root/unpacked/base/snapshots/*.manifest.json")).stdout
      .trim()
      .split("\n");
    expectExit(await fula("snapshot", "restore", snapshots.at(-1) ?? ""), 0);
    expect(await identityOf(box)).toEqual(before);
    expect((await box.run(`curl -sf ${await clusterUrl(box)}/allocations`)).stdout).toContain(CID);
  });
});
