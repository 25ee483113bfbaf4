import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { docker as outer } from "../support/box-engine.ts";
import {
  ALL_HEALTHY,
  expectExit,
  health,
  journaledChanges,
  plannedChanges,
  psql,
  readEnv,
  rejoin,
  skipped,
  stderrOf,
} from "../support/master-box.ts";
import { SHIPPED_VERSIONS, until } from "../support/migrations.ts";

const IMAGES = [
  "postgres:16-alpine",
  "node:26-trixie-slim",
  "ipfs/kubo:v0.42.0",
  "ipfs/ipfs-cluster:v1.1.6",
] as const;
const LACKING = "/root/lacking.tar";
const ARCHIVE = "/root/images.tar";
const CUT = "/root/cut.tar";

describe.skipIf(skipped !== undefined)("a box that reaches no registry", () => {
  let network: string;
  let box: Box;

  beforeAll(async () => {
    const brought = mkdtempSync(join(tmpdir(), "fula-node-images-"));
    const connected = await Box.boot({ name: "connected", image: "docker" });
    try {
      await installArtifact(connected);
      await connected.run(`docker image rm ${IMAGES[1]}`);
      expectExit(await fulaNode(connected, ["images", "save", ARCHIVE]), 0);
      await outer("cp", `${connected.container}:${ARCHIVE}`, `${brought}/images.tar`);
    } finally {
      await connected.destroy();
    }
    network = await Box.network();
    box = await Box.boot({ name: "offline", image: "docker", network });
    await installArtifact(box);
    const lacking = IMAGES.filter((image) => !image.startsWith("postgres"));
    await box.run(`docker save -o ${LACKING} ${lacking.join(" ")}`);
    await box.copyIn(`${brought}/images.tar`, ARCHIVE);
    rmSync(brought, { recursive: true });
    await box.run(`head -c 100000000 ${ARCHIVE} > ${CUT}`);
    await box.run('docker image rm -f $(docker image ls -q) && test -z "$(docker image ls -q)"');
    await box.disconnect(network);
  });
  afterAll(async () => {
    await box?.destroy();
    await Box.removeNetwork(network);
  });

  test("it has no way out", async () => {
    expect((await box.run("ip -o route show default")).stdout).toBe("");
    expect((await box.exec("timeout 5 docker pull -q postgres:16-alpine")).exitCode).not.toBe(0);
  });

  test("a pull that fails: exit 29, which image, and --images as a way out", async () => {
    const result = await fulaNode(box, FIRST_JOIN);
    expectExit(result, 29);
    expect(stderrOf(result)).toMatch(
      /The image (ipfs\/kubo|ipfs\/ipfs-cluster|postgres|node)\S+ could not be pulled/,
    );
    expect(stderrOf(result)).toContain("--images ARCHIVE");
    expect(stderrOf(result)).toContain("Running again is safe");
    expect((await box.run("docker ps -aq")).stdout).toBe("");
  });

  test.each([
    ["an archive that lacks an image", LACKING, 29, `${LACKING} does not contain postgres:16-alpine.`],
    ["an archive that was cut off", CUT, 28, `${CUT} was cut off.`],
    ["no such file", "/root/none.tar", 2, "The file /root/none.tar does not exist"],
    ["no archive at all", "/root/fula-node.tgz", 2, "/root/fula-node.tgz is not an archive of images"],
  ])("%s: what is wrong, and nothing is loaded or changed", async (_name, path, exitCode, word) => {
    const before = await box.snapshot(["/opt", "/etc/cron.d"]);
    const result = await fulaNode(box, [...FIRST_JOIN, "--images", path]);
    expectExit(result, exitCode);
    expect(stderrOf(result)).toContain(word);
    expect(stderrOf(result)).toContain("Changed: nothing");
    expect((await box.run("docker image ls -q")).stdout).toBe("");
    expect(await box.snapshot(["/opt", "/etc/cron.d"])).toEqual(before);
  });

  test("npx from the tarball and the whole archive: a master, without any network", async () => {
    // Without --offline npm waits 20 s for the audit that it can't have.
    const npx = `cd /root && npx --yes --offline ./fula-node.tgz ${FIRST_JOIN.join(" ")} --images ${ARCHIVE}`;
    const journaled = await journaledChanges(box);
    // All that root sends goes there and is counted, questions for names too: kubo has another user.
    await box.run("echo nameserver 192.0.2.53 > /etc/resolv.conf");
    await box.run(
      "ip link add nowhere type veth peer name nobody && ip link set nobody up && ip address add 192.0.2.2/24 dev nowhere && ip link set nowhere up && ip route add default dev nowhere",
    );
    await box.run("iptables -I OUTPUT -o nowhere -m owner --uid-owner 0 -j ACCEPT");
    const sent = async () =>
      (await box.run("iptables -nvxL OUTPUT | awk '$NF == 0 && /nowhere/ { print $1 }'")).stdout;
    const planned = await box.exec(`${npx} --dry-run --json`);
    expectExit(planned, 20);
    expectExit(await box.exec(npx), 0);
    expect(await sent()).toBe("0");
    await box.exec("timeout 5 docker pull -q postgres:15-alpine");
    expect(Number(await sent())).toBeGreaterThan(0);
    await box.run("ip link delete nowhere");
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect((await journaledChanges(box)).slice(journaled.length)).toEqual(plannedChanges(planned.stdout));
  });

  test("again, with the archive and without: nothing to do", async () => {
    for (const flags of [["--images", ARCHIVE], []]) {
      const result = await rejoin(box, flags);
      expectExit(result, 0);
      expect(result.stdout).toContain("Nothing to do");
    }
  });
});

describe.skipIf(skipped !== undefined)("a database on another box", () => {
  let network: string;
  let far: Box;
  let box: Box;
  const PASSWORD = "far-database-password";
  const named = [...FIRST_JOIN, "--set", "POSTGRES_HOST=far-database"];
  const withPassword = (password: string) => ({ env: { POSTGRES_PASSWORD: password } });

  beforeAll(async () => {
    network = await Box.network();
    [far, box] = await Promise.all([
      Box.boot({ name: "far-database", image: "docker", network }),
      Box.boot({ name: "near", image: "docker", network }),
    ]);
    await installArtifact(box);
    await far.run(
      `docker run -d --name database -p 5432:5432 -e POSTGRES_DB=pinning_service -e POSTGRES_USER=pinning_user -e POSTGRES_PASSWORD=${PASSWORD} postgres:16-alpine`,
    );
    await until(
      "the far database answers",
      async () => (await far.exec("docker exec database pg_isready -h 127.0.0.1")).exitCode === 0,
      60_000,
    );
  });
  afterAll(async () => {
    await Promise.all([box?.destroy(), far?.destroy()]);
    await Box.removeNetwork(network);
  });

  const askFar = (sql: string) => psql(far, sql, "database");
  const countTables = () =>
    askFar("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'fula_node')");

  describe("before the master is made", () => {
    let before: unknown;
    beforeEach(async () => {
      before = await box.snapshot(["/opt", "/etc/cron.d", "/root"]);
    });

    async function expectHalt(
      run: () => ReturnType<typeof fulaNode>,
      exitCode: number,
      word: string,
    ): Promise<void> {
      const result = await run();
      expectExit(result, exitCode);
      expect(stderrOf(result)).toContain(word);
      expect(stderrOf(result)).toContain("Changed: nothing");
      expect(stderrOf(result)).not.toContain("not-that-one");
      expect(await box.snapshot(["/opt", "/etc/cron.d", "/root"])).toEqual(before);
      expect(await countTables()).toBe("0");
    }

    test("no password: exit 21", async () => {
      await expectHalt(() => fulaNode(box, named), 21, "POSTGRES_PASSWORD is missing");
    });

    test("a wrong password: exit 21", async () => {
      await expectHalt(() => fulaNode(box, named, withPassword("not-that-one")), 21, "far-database:5432");
    });

    test("a database that is not there: exit 21", async () => {
      const elsewhere = [...named, "--set", "POSTGRES_DB=no_such_database"];
      await expectHalt(() => fulaNode(box, elsewhere, withPassword(PASSWORD)), 21, "far-database:5432");
    });

    test("a host that does not answer: exit 29", async () => {
      const nowhere = [...FIRST_JOIN, "--set", "POSTGRES_HOST=far-database", "--set", "POSTGRES_PORT=5433"];
      await expectHalt(() => fulaNode(box, nowhere, withPassword(PASSWORD)), 29, "far-database:5433");
    });
  });

  test("it is used: no Postgres here, the schema there", async () => {
    expectExit(await fulaNode(box, named, withPassword(PASSWORD)), 0);
    const { "postgres-pinning": _none, ...rest } = ALL_HEALTHY;
    expect(await health(box)).toEqual(rest);
    expect((await box.run("docker volume ls -q")).stdout).toBe("");
    expect(
      await askFar(
        "SELECT string_agg(version || ' ' || state, ', ' ORDER BY version) FROM fula_node.migrations",
      ),
    ).toBe(SHIPPED_VERSIONS.map((version) => `${version} applied`).join(", "));
    expect((await box.run("curl -sf http://127.0.0.1:6000/health")).stdout).toContain('"status":"ok"');
    expect(await readEnv(box)).toMatchObject({ POSTGRES_HOST: "far-database", POSTGRES_PASSWORD: PASSWORD });
  });

  test("again, with nothing given: nothing to do", async () => {
    const result = await rejoin(box);
    expectExit(result, 0);
    expect(result.stdout).toContain("Nothing to do");
  });

  test("it goes away: exit 29, nothing is changed, and the services say so", async () => {
    await far.run("docker stop database");
    const before = await box.snapshot(["/opt/fula-master", "/etc/cron.d"]);
    const result = await rejoin(box);
    expectExit(result, 29);
    expect(stderrOf(result)).toContain("far-database:5432");
    expect(await box.snapshot(["/opt/fula-master", "/etc/cron.d"])).toEqual(before);
    expect(
      (await box.exec("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:6000/health")).stdout,
    ).toBe("503");
    await far.run("docker start database");
    await expect.poll(async () => (await rejoin(box)).exitCode, { timeout: 60_000, interval: 500 }).toBe(0);
  });
});
