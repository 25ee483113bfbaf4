import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import {
  ALL_HEALTHY,
  expectExit,
  health,
  journaledChanges,
  plannedChanges,
  readEnv,
  rejoin,
  skipped,
  watch,
} from "../support/master-box.ts";

describe.skipIf(skipped !== undefined)("a bare Debian 13", () => {
  let box: Box;
  let dryRun: string;

  beforeAll(async () => {
    box = await Box.boot({ name: "bare", image: "plain" });
    await installArtifact(box);
  });
  afterAll(() => box?.destroy());

  test("has neither Docker nor cron, and a dry run changes nothing", async () => {
    expect((await box.exec("command -v dockerd cron")).stdout).toBe("");
    const before = await box.snapshot(["/opt", "/etc", "/var/lib", "/usr/local"]);
    const result = await box.exec(
      `cd /root && npx --yes ./fula-node.tgz ${FIRST_JOIN.join(" ")} --dry-run --json`,
    );
    expectExit(result, 20);
    dryRun = result.stdout;
    expect(await box.snapshot(["/opt", "/etc", "/var/lib", "/usr/local"])).toEqual(before);
  });

  test("without consent it halts and names both ways out", async () => {
    const before = await box.snapshot(["/opt", "/etc", "/var/lib"]);
    const result = await fulaNode(box, ["join-as-master", "--set", "CLUSTERNAME=test-pool"]);
    expectExit(result, 22);
    expect(result.stderr).toContain("--yes");
    expect(result.stderr).toContain("--provision-writer");
    expect(result.stderr).toContain("IPFS_CLUSTER_API_ADDR");
    expect(await box.snapshot(["/opt", "/etc", "/var/lib"])).toEqual(before);
  });

  test("one command makes it a master: everything healthy, a signed snapshot exists", async () => {
    const result = await box.exec(`cd /root && npx --yes ./fula-node.tgz ${FIRST_JOIN.join(" ")}`);
    expectExit(result, 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect((await box.run("systemctl is-active docker cron")).stdout).toBe("active\nactive");
    expect((await box.run("curl -sf http://127.0.0.1:6000/health")).stdout).toContain('"status":"ok"');
    expect((await box.run("curl -sf http://127.0.0.1:3001/health")).stdout).toContain('"status":"ok"');
    await box.run(
      "cd /opt/fula-master/snapshots && for m in *.manifest.json; do openssl pkeyutl -verify -rawin -pubin" +
        ' -inkey ../snapshot-ed25519.pub.pem -sigfile "${m%.json}.sig" -in "$m"; done',
    );
  });

  test("its secrets are its own, and nobody else can read them", async () => {
    expect(
      (await box.run("stat -c '%a %U' /opt/fula-master/.env /opt/fula-master/snapshot-ed25519.pem")).stdout,
    ).toBe("600 root\n600 root");
    const env = await readEnv(box);
    const secrets = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"].map(
      (key) => env[key] ?? "",
    );
    expect(new Set(secrets.filter((secret) => /^[A-Za-z0-9_-]{32,}$/.test(secret))).size).toBe(5);
    const stderrOf = await box.readFile("/opt/fula-master/journal.ndjson");
    for (const secret of secrets) expect(stderrOf).not.toContain(secret);
    for (const secret of secrets)
      expect((await box.exec(["grep", "-rlF", secret, "/var/log", "/tmp"])).stdout).toBe("");
  });

  test("the dry run had named every change that the run then made", async () => {
    expect(await journaledChanges(box)).toEqual(plannedChanges(dryRun));
  });

  test("again: exit 0, nothing to do, nothing restarted, no file rewritten", async () => {
    const before = await watch(box);
    const result = await rejoin(box);
    expectExit(result, 0);
    expect(result.stdout).toContain("Nothing to do");
    expect(await watch(box)).toEqual(before);
    expectExit(await rejoin(box, ["--dry-run"]), 0);
  });

  test("only the swarm ports are open to the world", async () => {
    const { stdout } = await box.run(
      "ss -Hltn | awk '{print $4}' | grep -v '^127\\.\\|^\\[::1\\]' | sed 's/.*://' | sort -un",
    );
    expect(stdout.split("\n")).toEqual(["4001", "9096"]);
    expect((await box.exec("ss -Hltn | grep -E ':(9095|9097)\\b'")).stdout).toBe("");
  });

  test("cron runs the snapshot by the very line that was written", async () => {
    const line = (await box.readFile("/etc/cron.d/fula-pinset-snapshot"))
      .split("\n")
      .find((each) => each.startsWith("0 "));
    const command = line?.replace(/^(\S+ ){5}root /, "") ?? "false";
    await box.run(["env", "-i", "PATH=/usr/bin:/bin", "sh", "-c", command]);
    expect((await box.run("ls /opt/fula-master/snapshots/*.manifest.json | wc -l")).stdout).toBe("2");
    const sweep = (await box.readFile("/etc/cron.d/fula-replication-sweep"))
      .split("\n")
      .find((each) => each.startsWith("*/30"));
    await box.run([
      "env",
      "-i",
      "PATH=/usr/bin:/bin",
      "sh",
      "-c",
      sweep?.replace(/^(\S+ ){5}root /, "") ?? "false",
    ]);
    expectExit(await fulaNode(box, ["status"]), 0);
  });
});
