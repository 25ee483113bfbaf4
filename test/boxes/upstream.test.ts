import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { withoutData } from "../support/box-snapshot.ts";
import {
  expectExit,
  health,
  psql,
  readEnv,
  rejoin,
  skipped,
  stderrOf,
  watch,
} from "../support/master-box.ts";
import { SHIPPED_VERSIONS } from "../support/migrations.ts";
import {
  addPin,
  digestTables,
  installUpstreamMaster,
  listPins,
  tablesOf,
  UPSTREAM_ENV,
  UPSTREAM_THINGS,
} from "../support/upstream-master.ts";
import { FULA_WRITER, pinThroughWriter, startWriterUnits, writerState } from "../support/upstream-writer.ts";

const JOIN = ["join-as-master", "--yes"] as const;
const EVERYTHING = ["/opt", "/etc/cron.d", "/etc/systemd/system", "/root"] as const;
const ADOPT_ALL = UPSTREAM_THINGS.flatMap((step) => ["--adopt", step]);
const KEY = "ab".repeat(32);
const VOLUME =
  "docker volume inspect --format '{{.CreatedAt}} {{.Mountpoint}} {{json .Labels}}' fula-master_pgdata";
const CONTAINER_IDS =
  "docker inspect --format '{{.Id}} {{.State.StartedAt}}' postgres-pinning fula-pinning-api fula-pinning-webui";
const IDENTIFIER = "SELECT system_identifier FROM pg_control_system();";

describe.skipIf(skipped !== undefined)("a box as the bash installer left it", () => {
  let box: Box;
  let tables: readonly string[];
  let rows: readonly string[];
  let writer: Readonly<Record<string, string>>;
  let volume: string;
  let database: string;
  let upstreamCompose: string;
  let ids: string;

  beforeAll(async () => {
    box = await Box.boot({ name: "upstream", image: "docker" });
    await installArtifact(box);
    await startWriterUnits(box, FULA_WRITER);
    await pinThroughWriter(box, 3);
    await installUpstreamMaster(box);
    tables = await tablesOf(box);
    rows = await digestTables(box, tables);
    writer = await writerState(box, FULA_WRITER);
    volume = (await box.run(VOLUME)).stdout;
    database = await psql(box, IDENTIFIER);
    for (const port of [6000, 3001]) await addPin(box, port, "bafy-of-a-client");
    ids = (await box.run(CONTAINER_IDS)).stdout;
    upstreamCompose = await box.readFile("/opt/fula-master/docker-compose.yml");
  });
  afterAll(() => box?.destroy());

  // The writer runs all the time: kubo writes to its datastore without being asked.
  const look = async () => withoutData(await box.snapshot(EVERYTHING));

  async function expectHalt(args: readonly string[], ...words: readonly string[]): Promise<string> {
    const before = await look();
    const result = await fulaNode(box, [...JOIN, ...args]);
    expectExit(result, 23);
    for (const word of words) expect(stderrOf(result)).toContain(word);
    expect(stderrOf(result)).toContain("Changed: nothing");
    expect(await look()).toEqual(before);
    return stderrOf(result);
  }

  test("a first run halts and names every foreign thing with its --adopt", async () => {
    const says = await expectHalt(
      [],
      ...UPSTREAM_THINGS.map((step) => `--adopt ${step}`),
      "fula-master-updater",
    );
    expect(says).not.toContain(UPSTREAM_ENV["POSTGRES_PASSWORD"]);
  });

  test("encrypted rows without their key: not even --adopt goes on, and no key is generated", async () => {
    await expectHalt(ADOPT_ALL, "ENCRYPTION_KEY", "is missing, but data");
  });

  test("naming some of them is not enough: the run halts at the others", async () => {
    const some = ["--adopt", "postgres", "--adopt", "services", "--set", `ENCRYPTION_KEY=${KEY}`];
    const says = await expectHalt(some, "--adopt compose-file", "--adopt sweep-cron");
    expect(says).not.toContain("--adopt postgres");
    expect(says).not.toContain("--adopt services");
  });

  test("a dry run names what adoption changes, and changes nothing", async () => {
    const before = await look();
    const result = await fulaNode(box, [
      ...JOIN,
      ...ADOPT_ALL,
      "--set",
      `ENCRYPTION_KEY=${KEY}`,
      "--dry-run",
      "--json",
    ]);
    expectExit(result, 20);
    expect(result.stdout).toContain("001_schema.sql: adopt");
    expect(result.stdout).toContain("018_deduction_idempotency.sql: adopt");
    expect(result.stdout).toContain("019_user_wallets_nullable_address.sql: apply");
    expect(result.stdout).toContain("020_bucket_roots.sql: apply");
    expect(await look()).toEqual(before);
  });

  test("with all of them named it becomes a master of ours", async () => {
    expectExit(await fulaNode(box, [...JOIN, ...ADOPT_ALL, "--set", `ENCRYPTION_KEY=${KEY}`]), 0);
    expect(await health(box)).toMatchObject({
      "postgres-pinning": "running",
      "fula-pinning-api": "running",
      "fula-pinning-webui": "running",
      "fula-master-updater": "running",
    });
  });

  test("its services are the same containers, and do what they did", async () => {
    expect((await box.run(CONTAINER_IDS)).stdout).toBe(ids);
    expect(await listPins(box, 6000)).toEqual({ pins: ["bafy-of-a-client"], admins: null });
    expect(await listPins(box, 3001)).toEqual({ pins: ["bafy-of-a-client"], admins: "a@example.org" });
    expect(await readEnv(box)).toMatchObject({
      PINNING_API_IMAGE: "fula-pinning-api:master",
      WEBUI_IMAGE: "fula-pinning-webui:master",
      POSTGRES_IMAGE: "postgres:16-alpine",
      ADMIN_EMAILS: "a@example.org",
    });
  });

  test("018 and before are adopted, what comes after is applied, and each once", async () => {
    const ledger = await psql(
      box,
      "SELECT version || ' ' || origin || ' ' || state FROM fula_node.migrations ORDER BY version;",
    );
    const later = SHIPPED_VERSIONS.filter((version) => version > 18);
    expect(later).toContain(20);
    expect(ledger.split("\n")).toEqual([
      "1 adopted applied",
      "18 adopted applied",
      ...later.map((version) => `${version} applied applied`),
    ]);
    expect(await psql(box, "SELECT count(*) FROM bucket_roots;")).toBe("0");
    await psql(
      box,
      "INSERT INTO user_wallets (user_id, wallet_address, chain_id) VALUES (repeat('c', 64), NULL, 1); DELETE FROM user_wallets WHERE user_id = repeat('c', 64);",
    );
  });

  test("the data, its volume and its cluster are the same", async () => {
    expect(await digestTables(box, tables)).toEqual(rows);
    expect((await box.run(VOLUME)).stdout).toBe(volume);
    expect(await psql(box, IDENTIFIER)).toBe(database);
    const { stdout } = await box.run("docker volume ls -q");
    expect(stdout.split("\n").filter((name) => name.includes("pgdata"))).toEqual(["fula-master_pgdata"]);
  });

  test("upstream's settings and secrets stand as they were, in their lines", async () => {
    expect(await readEnv(box)).toMatchObject(
      Object.fromEntries(Object.entries(UPSTREAM_ENV).filter(([, value]) => value !== "")),
    );
    const text = await box.readFile("/opt/fula-master/.env");
    expect(text.startsWith("# saved by the installer\nPOSTGRES_PASSWORD=Upstream-Password-1\n")).toBe(true);
    expect((await box.run("stat -c %a /opt/fula-master/.env")).stdout).toBe("600");
    expect((await box.run("cat /opt/fula-master/docker-compose.yml.*.old")).stdout).toBe(
      upstreamCompose.trimEnd(),
    );
  });

  test("upstream's key signs on: openssl verifies both its snapshots and ours", async () => {
    await box.run(
      "cd /opt/fula-master/snapshots && for f in *.manifest.json; do openssl pkeyutl -verify -rawin -pubin" +
        ' -inkey ../snapshot-ed25519.pub.pem -sigfile "${f%.json}.sig" -in "$f" || exit 1; done' +
        " && openssl pkeyutl -verify -rawin -pubin -inkey ../snapshot-ed25519.pub.pem" +
        " -sigfile pinset-20260620T120000Z.json.sig -in pinset-20260620T120000Z.json",
    );
    expect((await box.run("ls /opt/fula-master/snapshots/*.manifest.json | wc -l")).stdout).toBe("1");
  });

  test("cron runs ours only, and the writer is as it was", async () => {
    expect((await box.run("ls /etc/cron.d | grep fula")).stdout).toBe(
      "fula-pinset-snapshot\nfula-replication-sweep",
    );
    expect((await box.run("cat /etc/cron.d/fula-*")).stdout).not.toContain("pinning-service");
    expect(await writerState(box, FULA_WRITER)).toEqual(writer);
    expect((await box.run("ls /opt/fula-writer")).stdout).toBe("ipfs-cluster\nkubo");
  });

  test("a third run, without any --adopt: nothing to do", async () => {
    const before = await watch(box);
    const result = await rejoin(box);
    expectExit(result, 0);
    expect(result.stdout).toContain("Nothing to do");
    expect(await watch(box)).toEqual(before);
    expect((await box.run(CONTAINER_IDS)).stdout).toBe(ids);
    expect(await listPins(box, 6000)).toEqual({ pins: ["bafy-of-a-client"], admins: null });
  });

  test("a service that was lost comes back with its own image and command", async () => {
    await box.run("docker rm -f fula-pinning-webui");
    expectExit(await rejoin(box), 0);
    expect(await listPins(box, 3001)).toEqual({ pins: [], admins: "a@example.org" });
    expect((await box.run("docker inspect -f '{{.Config.Image}}' fula-pinning-webui")).stdout).toBe(
      "fula-pinning-webui:master",
    );
    const before = await watch(box);
    expectExit(await rejoin(box), 0);
    expect(await watch(box)).toEqual(before);
  });

  test("ours takes its place only by name, and says what is lost", async () => {
    const own = ["--set", "PINNING_API_IMAGE=fula-node"];
    const before = await look();
    const refused = await rejoin(box, own);
    expectExit(refused, 22);
    expect(stderrOf(refused)).toContain("--replace pinning-api");
    expect(stderrOf(refused)).toContain("no passwords (/auth)");
    expect(await look()).toEqual(before);
    expectExit(await rejoin(box, [...own, "--replace", "pinning-api"]), 0);
    expect(await health(box)).toMatchObject({ "fula-pinning-api": "running healthy" });
    const result = await rejoin(box);
    expectExit(result, 0);
    expect(result.stdout).toContain("Nothing to do");
  });
});
