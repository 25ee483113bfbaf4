import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { FIRST_JOIN, fulaNode, installArtifact, PROGRAM } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { FORMER_PROGRAM, installFormerRelease } from "../support/former-release.ts";
import { ALL_HEALTHY, expectExit, health, psql, readEnv, rejoin, skipped } from "../support/master-box.ts";
import { peerId, pinContent, pinset } from "../support/storage-boxes.ts";

const LINK = "/opt/fula-master/cli/current";
const BACKUP = [
  "--set",
  "BACKUP_DIR=/mnt/backup",
  "--set",
  "BACKUP_RECIPIENT=age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
] as const;
const BACK = ["join-as-master", "--rollback", "--yes"] as const;
const SECRETS = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "ENCRYPTION_KEY", "MASTER_ID"] as const;
const SERVICE_IMAGES = "docker inspect --format '{{.Config.Image}}' fula-pinning-api fula-pinning-webui";

describe.skipIf(skipped !== undefined)("a master that was upgraded goes back to the version before", () => {
  let box: Box;
  let former: string;
  let known: unknown;

  /** What no rollback may change: identities, secrets, pins, rows. */
  const know = async (): Promise<unknown> => {
    const env = await readEnv(box);
    return {
      peers: [await peerId(box), (await box.run("docker exec ipfs_host ipfs id -f '<id>'")).stdout],
      secrets: SECRETS.map((key) => env[key]),
      pins: [...(await pinset(box))].toSorted(),
      users: await psql(box, "SELECT user_id, balance_fula FROM user_credits ORDER BY 1"),
      database: (await box.run("docker inspect --format '{{.Id}}' postgres-pinning")).stdout,
    };
  };
  const linked = async (): Promise<string> => (await box.run(`readlink ${LINK}`)).stdout.trim();
  const migrations = (): Promise<string> =>
    psql(box, "SELECT max(version) FROM fula_node.migrations WHERE state = 'applied'");

  beforeAll(async () => {
    box = await Box.boot({ name: "back", image: "docker" });
    await installArtifact(box);
    await installFormerRelease(box);
    expectExit(await box.exec(["node", FORMER_PROGRAM, ...FIRST_JOIN]), 0);
    former = await linked();
    for (let count = 0; count < 3; count += 1) await pinContent(box);
    expectExit(await box.exec(["node", FORMER_PROGRAM, "user", "create", "--email", "a@example.org"]), 0);
    expectExit(await rejoin(box, ["--without-backup"]), 0);
    expectExit(await rejoin(box, BACKUP), 0);
    known = await know();
  });
  afterAll(() => box?.destroy());

  test("a dry run says what is reverted and what stays, and changes nothing", async () => {
    expect(await linked()).toBe(manifest.version);
    const before = [await box.snapshot(["/opt/fula-master"]), await migrations()];
    const result = await fulaNode(box, ["join-as-master", "--rollback", "--dry-run"]);
    expectExit(result, 20);
    const text = result.stdout.replaceAll(/\s+/g, " ");
    expect(text).toContain(`join-as-master --rollback to ${former}`);
    expect(text).toMatch(/revert \d+ migrations? that/);
    expect(text).toContain("The repository of kubo, the data of ipfs-cluster and of Postgres");
    expect([await box.snapshot(["/opt/fula-master"]), await migrations()]).toEqual(before);
  });

  test("while a migration can't be reverted, it is refused, also by a dry run: nothing is changed, the services run", async () => {
    const services =
      "docker inspect --format '{{.State.Status}} {{.State.StartedAt}}' fula-pinning-api fula-pinning-webui";
    const look = async () => [
      (await box.run(services)).stdout,
      await box.snapshot(["/opt/fula-master"]),
      await migrations(),
    ];
    await psql(
      box,
      "INSERT INTO removed_masters (pool, id, name, removed_at, removed_by) VALUES ('test-pool', repeat('a', 32), 'lost', now(), 'other')",
    );
    const before = await look();
    expect(before[0]).toMatch(/^running .*\nrunning /);
    for (const argv of [["join-as-master", "--rollback", "--dry-run"], BACK]) {
      const refused = await fulaNode(box, argv);
      expectExit(refused, 24);
      const text = refused.stderr.replaceAll(/\s+/g, " ");
      expect(text).toContain("038_trust.down.sql refuses: removed masters are recorded: lost");
      expect(text).toContain("delete its row from removed_masters.");
      expect(text).toContain("Changed: nothing.");
    }
    expect(await look()).toEqual(before);
    await psql(box, "DELETE FROM removed_masters");
  });

  test("with other settings it is refused", async () => {
    expectExit(await fulaNode(box, [...BACK, "--set", "REPL_MIN=1"]), 2);
  });

  test("killed in the middle, another run ends it: services, schema and program are the former ones, the rest is as it was", async () => {
    const running = box.exec(["node", PROGRAM, ...BACK]);
    await box.run(
      `until [ "$(readlink ${LINK})" = ${former} ]; do sleep 0.05; done; pkill -9 -f '[p]ackage/bin/fula-node.js join-as-master --rollback'; pkill -9 -f '[j]oin-as-master --yes' || true`,
    );
    expect((await running).exitCode).toBe(137);
    const result = await fulaNode(box, BACK);
    expectExit(result, 0);
    expect(await linked()).toBe(former);
    expect((await box.run(SERVICE_IMAGES)).stdout).toBe(`fula-node:${former}\nfula-node:${former}`);
    await expect.poll(() => health(box), { timeout: 120_000 }).toEqual(ALL_HEALTHY);
    expect(await know()).toEqual(known);
    expectExit(await box.exec(["node", `${LINK}/bin/fula-node.js`, "join-as-master", "--yes"]), 0);
    const again = await fulaNode(box, BACK);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
  });

  test("an upgrade makes a backup, and brings this version again", async () => {
    const before = await migrations();
    const upgraded = await rejoin(box);
    expectExit(upgraded, 0);
    expect(upgraded.stdout).toContain(`back up to /mnt/backup, before the upgrade from ${former}`);
    expect((await box.run("ls /mnt/backup")).stdout).toMatch(/^backup-test-pool-\S+\.age$/);
    expect(Number(await migrations())).toBeGreaterThan(Number(before));
    expect(await linked()).toBe(manifest.version);
    expect(await know()).toEqual(known);
  });
});
