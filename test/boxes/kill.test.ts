import { afterEach, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { ALL_HEALTHY, expectExit, health, readEnv, rejoin, skipped } from "../support/master-box.ts";

const HOOK = "/root/kill-hook.cjs";
const SECRETS = [
  "POSTGRES_PASSWORD",
  "SYSTEM_KEY",
  "JWT_SECRET",
  "SESSION_SECRET",
  "ENCRYPTION_KEY",
] as const;

describe.skipIf(skipped !== undefined)("a run that is killed: running again goes on and ends well", () => {
  let box: Box;
  afterEach(() => box?.destroy());

  async function boot(image: "docker" | "plain"): Promise<void> {
    box = await Box.boot({ name: "kill", image });
    await installArtifact(box);
    await box.copyIn(`${import.meta.dirname}/../support/kill-hook.cjs`, HOOK);
  }

  function joinKilledAt(moment: string): Promise<ExecResult> {
    return fulaNode(box, FIRST_JOIN, { env: { NODE_OPTIONS: `--require ${HOOK}`, KILL_AT: moment } });
  }

  async function lastJournalLine(): Promise<{
    readonly phase: string;
    readonly change: { readonly kind: string };
  }> {
    const lines = (await box.readFile("/opt/fula-master/journal.ndjson")).trim().split("\n");
    return JSON.parse(lines.at(-1) ?? "{}") as { phase: string; change: { kind: string } };
  }

  async function expectMaster(): Promise<void> {
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expectExit(await rejoin(box, ["--dry-run"]), 0);
    expect((await box.run("docker volume ls -q")).stdout).toBe("fula-master_pgdata");
    expect((await box.run("find /opt -name '*.tmp*' -o -name '.*.fula*'")).stdout).toBe("");
  }

  test("between any two changes: each run makes one change and dies", async () => {
    await boot("docker");
    const first: Record<string, string> = {};
    let kills = 0;
    for (;;) {
      const result = await joinKilledAt("journal|done|1");
      if (result.exitCode === 0) break;
      expectExit(result, 137);
      expect((await lastJournalLine()).phase).toBe("done");
      kills += 1;
      expect(kills).toBeLessThan(60);
      const env: Readonly<Record<string, string>> = await readEnv(box).catch(() => ({}));
      for (const key of SECRETS) if (env[key] !== undefined) first[key] ??= env[key];
    }
    expect(kills).toBeGreaterThan(12);
    const env = await readEnv(box);
    for (const key of SECRETS) expect(env[key], key).toBe(first[key]);
    await expectMaster();
  });

  test("before any effect has begun, with its intent on disk: each run makes one change and dies at the next", async () => {
    await boot("docker");
    let kills = 0;
    for (;;) {
      const result = await joinKilledAt("journal|intent|2");
      if (result.exitCode === 0) break;
      expectExit(result, 137);
      expect((await lastJournalLine()).phase).toBe("intent");
      kills += 1;
      expect(kills).toBeLessThan(60);
    }
    expect(kills).toBeGreaterThan(12);
    await expectMaster();
  });

  test("during the image build", async () => {
    await boot("docker");
    expectExit(await joinKilledAt("child|build|Step 3"), 137);
    expect((await lastJournalLine()).change.kind).toBe("build-image");
    expect((await box.exec("docker image inspect fula-node:0.1.0")).exitCode).toBe(1);
    expectExit(await rejoin(box), 0);
    await expectMaster();
  });

  test("during compose up", async () => {
    await boot("docker");
    expectExit(await joinKilledAt("child|up|Creat"), 137);
    expect((await lastJournalLine()).change.kind).toBe("up");
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    await expectMaster();
  });

  test("during the migrations, while an index is built concurrently", async () => {
    await boot("docker");
    expectExit(await joinKilledAt("socket|CREATE UNIQUE INDEX CONCURRENTLY"), 137);
    expect((await lastJournalLine()).change.kind).toBe("migrate");
    const ledger =
      "SELECT string_agg(version || ' ' || state, ', ' ORDER BY version) FROM fula_node.migrations";
    const psql = [
      "docker",
      "exec",
      "postgres-pinning",
      "psql",
      "-U",
      "pinning_user",
      "-d",
      "pinning_service",
      "-tAc",
    ];
    expect((await box.run([...psql, ledger])).stdout).toBe("1 applied, 18 applying");
    expectExit(await rejoin(box), 0);
    expect((await box.run([...psql, ledger])).stdout).toMatch(
      /^1 applied, 18 applied, 19 applied, 20 applied(, \d+ applied)*$/,
    );
    const invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    expect((await box.run([...psql, invalid])).stdout).toBe("0");
    await expectMaster();
  });

  test("while apt unpacks the engine on a bare box", async () => {
    await boot("plain");
    expectExit(await joinKilledAt("child|install|Unpacking docker.io"), 137);
    expect((await lastJournalLine()).change.kind).toBe("install-packages");
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    await expectMaster();
  });
});
