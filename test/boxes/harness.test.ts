import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Box, requireBoxes } from "../support/box.ts";

const reason = await requireBoxes();
if (reason !== undefined) console.warn(`skipped: boxes cannot run here: ${reason}`);

const POSTGRES = "postgres:16-alpine";
const KUBO = "ipfs/kubo:v0.42.0";
const CLUSTER = "ipfs/ipfs-cluster:v1.1.6";
const NODE = "node:26-trixie-slim";

describe.skipIf(reason !== undefined)("a box with its own engine", () => {
  let box: Box;

  beforeAll(async () => {
    box = await Box.boot({ name: "harness", image: "docker", dockerVolume: "fresh" });
  });
  afterAll(() => box?.destroy());

  test("commands get input, environment, user and terminal, and report how they ended", async () => {
    expect(await box.exec("cat; echo $WHAT >&2; exit 3", { input: "in", env: { WHAT: "it's" } })).toEqual({
      exitCode: 3,
      stdout: "in",
      stderr: "it's",
    });
    expect((await box.run(["id", "-un"], { user: "nobody" })).stdout).toBe("nobody");
    expect(
      (await box.run("test -t 1 && read -r line && echo got:$line", { tty: true, input: "yes\n" })).stdout,
    ).toContain("got:yes");
    expect((await box.exec("sleep 60", { timeoutMs: 200 })).exitCode).toBe(124);
    await expect(box.run("echo out; echo err >&2; exit 4")).rejects.toThrow(/exit code 4[^]*out[^]*err/);
  });

  test("files arrive byte for byte, with their mode", async () => {
    await box.writeFile("/etc/harness/secret", "a\n$b 'c'\n\n", 0o600);
    expect(await box.readFile("/etc/harness/secret")).toBe("a\n$b 'c'\n\n");
    expect((await box.run("stat -c '%a %U' /etc/harness/secret")).stdout).toBe("600 root");
    await box.copyIn(import.meta.filename, "/opt/harness/test.ts");
    expect(await box.readFile("/opt/harness/test.ts")).toContain("byte for byte");
  });

  test("pulls the images by their official names", async () => {
    expect((await box.run("docker image ls --quiet")).stdout).toBe("");
    await box.preloadImages([POSTGRES, KUBO, CLUSTER, NODE]);
    expect((await box.run(["docker", "run", "--rm", NODE, "--version"])).stdout).toMatch(/^v26\./);
  });

  test("postgres takes its password from the network and refuses another", async () => {
    await box.run(
      `docker run --detach --name database --publish 5432:5432 --env POSTGRES_PASSWORD=right ${POSTGRES}`,
    );
    const host = await box.address();
    await expect
      .poll(() => connect(host, "right"), { timeout: 60_000, interval: 100 })
      .toMatch(/^PostgreSQL 16\./);
    expect(await connect(host, "wrong")).toMatch(/password authentication failed/);
    expect((await box.run("docker exec database psql -U postgres -tAc 'select 1'")).stdout).toBe("1");
  });

  test("kubo and ipfs-cluster pin a block that was added", async () => {
    await box.run(`docker run --detach --name ipfs_host --network host --env IPFS_PROFILE=server ${KUBO}`);
    await box.run(
      `docker run --detach --name ipfs_cluster --network host --env CLUSTER_SECRET=${"ab".repeat(32)} ` +
        `--env CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS=/ip4/0.0.0.0/tcp/9094 ${CLUSTER}`,
    );
    const host = await box.address();
    await expect
      .poll(() => getJson(`http://${host}:9094/id`), { timeout: 60_000, interval: 100 })
      .toMatchObject({ version: "1.1.6", ipfs: { error: "" } });

    const body = new FormData();
    body.set("data", new Blob(["a small block"]));
    const added = await fetch(`http://${host}:5001/api/v0/block/put`, { method: "POST", body });
    const { Key: cid } = (await added.json()) as { Key: string };
    expect(await fetch(`http://${host}:9094/pins/${cid}`, { method: "POST" })).toMatchObject({ status: 200 });
    await expect.poll(() => statusOf(host, cid), { timeout: 60_000, interval: 100 }).toEqual(["pinned"]);
  });

  test("a snapshot changes when and only when the box did", async () => {
    const before = await box.snapshot();
    expect(before.docker?.containers).toHaveProperty("/ipfs_cluster");
    expect(await box.snapshot()).toEqual(before);
    await box.run("touch -d '2001-02-03' /opt/harness/test.ts");
    expect(await box.snapshot()).not.toEqual(before);
    const touched = await box.snapshot();
    await box.run(["docker", "volume", "create", "another"]);
    expect(await box.snapshot()).not.toEqual(touched);
  });

  test("cron is held from the boot on; started anew, a snapshot waits for what it runs, and holds it", async () => {
    expect((await box.run("ps -o stat= -C cron; systemctl is-active cron")).stdout).toMatch(/^T\S*\nactive$/);
    // Started by the daemon itself, as its runs are.
    await box.writeFile("/etc/cron.d/harness", "@reboot root sleep 3; touch /opt/harness/by-cron\n");
    await box.run("rm -f /run/crond.reboot /opt/harness/by-cron && systemctl restart cron");
    await expect
      .poll(async () => (await box.exec("pgrep -f '[s]leep 3'")).exitCode, { interval: 20 })
      .toBe(0);
    const before = await box.snapshot();
    expect(before.files).toHaveProperty("/opt/harness/by-cron");
    expect((await box.run("ps -o stat= -C cron")).stdout).toMatch(/^T/);
    await box.run("rm /etc/cron.d/harness && systemctl restart cron");
    expect((await box.run("ps -o stat= -C cron")).stdout).toMatch(/^S/);
  });

  test.each([
    ["a power cut", () => box.kill()],
    ["a shutdown", () => box.shutdown()],
  ])("%s ends everything, and the same disk boots again", async (_, end) => {
    await box.run("docker update --restart always database");
    await end();
    expect((await box.exec("true")).stderr).toContain("is not running");
    await box.start();
    expect(await box.readFile("/opt/harness/test.ts")).toContain("a power cut");
    const host = await box.address();
    await expect
      .poll(() => connect(host, "right"), { timeout: 60_000, interval: 100 })
      .toMatch(/^PostgreSQL 16\./);
  });

  test("a hang answers nothing until it is over", async () => {
    await box.pause();
    expect((await box.exec("true")).exitCode).not.toBe(0);
    await box.unpause();
    await box.run("true");
  });
});

describe.skipIf(reason !== undefined)("boxes on a network", () => {
  let network: string;
  let first: Box;
  let second: Box;

  beforeAll(async () => {
    network = await Box.network();
    first = await Box.boot({ name: "first", image: "docker", network });
    second = await Box.boot({ name: "second", image: "plain", network });
  });
  afterAll(async () => {
    await first?.destroy();
    await second?.destroy();
    await Box.removeNetwork(network);
  });

  test("see each other by name until they are parted", async () => {
    await second.run(
      "! command -v docker && ! command -v cron && node --version && systemctl is-system-running",
    );
    const reach = `getent hosts first && ip route get ${await first.address()}`;
    await second.run(reach);
    await second.disconnect(network);
    expect((await second.exec(`ip route get ${await first.address()}`)).stderr).toContain("unreachable");
    await second.connect(network);
    await second.run(reach);
  });

  test("are bare when plain, and have the images and the registry when seeded", async () => {
    await second.run(
      "! command -v docker && ! command -v cron && node --version && systemctl is-system-running",
    );
    await first.run(`docker image inspect ${POSTGRES} ${KUBO} ${CLUSTER} ${NODE}`);
    await first.run(`docker image rm ${NODE} && docker pull ${NODE}`);
  });
});

/** The server's version, or why it let nobody in. */
async function connect(host: string, password: string): Promise<string> {
  const client = new Client({ host, user: "postgres", password, connectionTimeoutMillis: 5_000 });
  try {
    await client.connect();
    const { rows } = await client.query<{ version: string }>("select version()");
    return rows[0]?.version ?? "";
  } catch (error) {
    return String(error);
  } finally {
    await client.end();
  }
}

/** The answer, or why there was none. */
async function getJson(url: string): Promise<unknown> {
  try {
    return await (await fetch(url)).json();
  } catch (error) {
    return String(error);
  }
}

async function statusOf(host: string, cid: string): Promise<string[]> {
  const info = (await getJson(`http://${host}:9094/pins/${cid}`)) as {
    peer_map: Record<string, { status: string }>;
  };
  return Object.values(info.peer_map).map(({ status }) => status);
}
