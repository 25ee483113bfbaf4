import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { PUBLIC_HOST } from "../support/edge-boxes.ts";
import { expectExit, skipped } from "../support/master-box.ts";
import { fencesOf, readPages } from "../support/pages.ts";
import { PinClient, type Request, trustedHeader } from "../support/pin-client.ts";
import { bootNode, by, type CreatedInvite, PRIVATE_NETWORK, stored } from "../support/storage-boxes.ts";

const ROOT = "/var/lib/docker/volumes/fula-master_edge-data/_data/caddy/pki/authorities/local/root.crt";
const SECRET = "a secret of services on this machine";
const EMAIL = "you@example.org";

describe.skipIf(skipped !== undefined)("real clients of the pinning API, through the edge", () => {
  let network: string;
  let boxes: readonly Box[] = [];
  let [master, node]: Box[] = [];
  let client: PinClient;
  let key: string;

  const authorized = () => [`Authorization: Bearer ${key}`];
  const api = async <T>(method: string, path: string, status: number, body?: unknown): Promise<T> => {
    const got = await client.send(method, path, { headers: authorized(), body });
    expect([method, path, got.status], got.body).toEqual([method, path, status]);
    return (got.body === "" ? null : JSON.parse(got.body)) as T;
  };
  const pin = (cid: string, name: string) => api<Request>("POST", "/pins", 202, { cid, name });
  const untilPinned = (requestid: string) =>
    eventually(
      `${requestid} is pinned`,
      async () => (await api<Request>("GET", `/pins/${requestid}`, 200)).status === "pinned",
      120_000,
    );
  const usage = async () =>
    (await api<{ currentStorageBytes: number }>("GET", "/api/v1/storage", 200)).currentStorageBytes;
  const apiPid = async () => {
    const { stdout } = await master!.run("docker inspect --format '{{.State.Pid}}' fula-pinning-api");
    return Number(stdout);
  };
  const untilHealthy = (container: string) =>
    eventually(
      `${container} is healthy`,
      async () => {
        const format = "{{.State.Health.Status}}";
        return (await master!.run(["docker", "inspect", "--format", format, container])).stdout === "healthy";
      },
      120_000,
    );

  beforeAll(async () => {
    network = await Box.network();
    boxes = await Promise.all([
      Box.boot({ name: PUBLIC_HOST, image: "docker", network }),
      bootNode("node-1", network),
      Box.boot({ name: "client", image: "plain", network }),
    ]);
    [master, node] = boxes as Box[];
    await installArtifact(master!);
    const env = `KUBO_PRIVATE_NETWORK=true\nFULA_PIN_SERVICE_SECRET='${SECRET}'\nEDGE_TLS=internal\nDAG_IMPORT_ENABLED=true\n`;
    await master!.writeFile("/opt/fula-master/.env", env, 0o600);
    expectExit(await fulaNode(master!, FIRST_JOIN), 0);
  });

  afterAll(async () => {
    await Promise.all(boxes.map((box) => box.destroy()));
    await Box.removeNetwork(network);
  });

  test("the first pin, by the commands of the README, is on the storage node and is counted", async () => {
    const [onMaster, onClient] = await firstPin();
    const typed = await master!.run(`shopt -s expand_aliases
      npx() { [ "$1" = fula-node ] && shift && node /root/package/bin/fula-node.js "$@" --yes; }
      alias fula-node='node /opt/fula-master/cli/current/bin/fula-node.js'
      set -e
      ${onMaster}`);
    key = typed.stdout.trim().split("\n").at(-1) ?? "";
    expect(key).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
    const created = await fulaNode(master!, ["invite", "create", "--json", "--name", "node-1"]);
    expectExit(created, 0);
    const invited = by(JSON.parse(created.stdout) as CreatedInvite);
    expectExit(await fulaNode(node!, ["join-as-storage-node", "--yes", ...invited, ...PRIVATE_NETWORK]), 0);

    client = await PinClient.on(boxes[2]!, `https://${PUBLIC_HOST}`, await master!.readFile(ROOT));
    expect(await usage()).toBe(0);
    await client.run("head -c 300000 /dev/urandom >my-file");
    const began = performance.now();
    const { stdout } = await client.run(onClient, { KEY: key });
    console.log(`the commands of the README took ${Math.round(performance.now() - began)} ms`);
    const cid = /CID: +(\S+)\nName: +my-file\nStatus: +pinned\n/.exec(stdout)?.[1] ?? "";
    expect(stdout).toContain(`${cid}\tpinned\tmy-file\n`);
    expect(await stored(node!)).toContain(cid);
    const { results } = await api<{ results: Request[] }>(
      "GET",
      "/pins?status=queued,pinning,pinned,failed",
      200,
    );
    expect(results.map(({ pin: { name } }) => name).toSorted()).toEqual(["by-curl", "my-file"]);
    // Each that a client can't reach makes it wait: none is in a network of the master's own containers.
    const own = `/${await master!.address()}/`;
    const delegates = new Set(results.flatMap((request) => request.delegates));
    expect([...delegates].filter((address) => !address.includes(own))).toEqual([]);
    expect(delegates.size).toBeGreaterThan(0);
    for (const { requestid } of results) await untilPinned(requestid);
    // The same content twice: it is counted once. kubo's sizes contain the blocks' own bytes.
    await eventually("the pin is counted", async () => (await usage()) >= 300_000);
    expect(await usage()).toBeLessThan(301_000);
  });

  test("a CAR file of 3 MB goes in by curl, and is pinned on the storage node", async () => {
    const cid = await client.add(3_000_000);
    await client.run(
      `ipfs dag export ${cid} >content.car && ipfs pin rm ${cid} && ipfs repo gc -q && head -c 2999000 content.car >cut.car`,
    );
    const send = (file: string) =>
      client.run(
        `curl -s -w '\\n%{http_code}' -H "Authorization: Bearer $KEY" -F name=from-car -F file=@${file} https://${PUBLIC_HOST}/pins/import/car`,
        { KEY: key },
      );
    expect((await send("cut.car")).stdout).toMatch(/cut off[^\n]*\n+400$/);
    const { stdout } = await send("content.car");
    expect(stdout).toMatch(/\n202$/);
    const request = JSON.parse(stdout.split("\n")[0] ?? "") as Request;
    expect(request.pin).toMatchObject({ cid, name: "from-car" });
    await untilPinned(request.requestid);
    expect(await stored(node!)).toContain(cid);
    await api("DELETE", `/pins/${request.requestid}`, 202);
    await eventually("it is unpinned there", async () => !(await stored(node!)).has(cid));
  });

  test("ipfs pin remote rm, and DELETE of the last request, unpin it on the storage node", async () => {
    const { results } = await api<{ results: Request[] }>("GET", "/pins", 200);
    const [{ pin: content }] = results as [Request];
    await client.run("ipfs pin remote rm --service=my-pool --name=my-file");
    expect((await client.run("ipfs pin remote ls --service=my-pool")).stdout).toBe(
      `${content.cid}\tpinned\tby-curl`,
    );
    expect(await usage()).toBeGreaterThan(300_000);
    expect(await stored(node!)).toContain(content.cid);
    const [last] = (await api<{ results: Request[] }>("GET", "/pins", 200)).results;
    await api("DELETE", `/pins/${last?.requestid}`, 202);
    await eventually("it is unpinned there", async () => !(await stored(node!)).has(content.cid));
    expect(await usage()).toBe(0);
    expect((await client.run("ipfs pin remote ls --service=my-pool")).stdout).toBe("");
  });

  test("from outside there is no /admin, no /metrics, and no trusted header", async () => {
    const userId = createHash("sha256").update(EMAIL).digest("hex");
    const trusted = trustedHeader(SECRET, userId);
    const local = (port: number) =>
      master!.run(`curl -s -o /dev/null -w '%{http_code}' -H '${trusted}' http://127.0.0.1:${port}/pins`);
    expect((await local(6000)).stdout).toBe("200");
    expect((await local(6001)).stdout).toBe("401");
    expect((await client.send("GET", "/pins", { headers: [trusted] })).status).toBe(401);
    const systemKey = (await master!.run("sed -n 's/^SYSTEM_KEY=//p' /opt/fula-master/.env")).stdout;
    const admin = ["X-System-Key", "Authorization: Bearer"].map((name) =>
      name.includes(":") ? `${name} ${systemKey}` : `${name}: ${systemKey}`,
    );
    for (const header of admin) {
      const inside = `curl -s -o /dev/null -w '%{http_code}' -H '${header}' http://127.0.0.1:6000/admin/stats`;
      expect((await master!.run(inside)).stdout).toBe("200");
      for (const path of ["/admin/stats", "/metrics", "/health"])
        expect((await client.send("GET", path, { headers: [header] })).status).toBe(404);
    }
  });

  test("kill -9 of the API between accepting and pinning: pinned after the restart", async () => {
    const cid = await client.add(100_000);
    await master!.run("docker pause ipfs_cluster");
    const before = await apiPid();
    const { requestid, status } = await pin(cid, "killed");
    expect(status).toBe("queued");
    await master!.run(["kill", "-KILL", String(before)]);
    await eventually("another process serves", async () => {
      const now = await apiPid();
      return now > 0 && now !== before && (await client.send("GET", "/pins")).status === 401;
    });
    expect((await api<Request>("GET", `/pins/${requestid}`, 200)).status).not.toBe("pinned");
    await master!.run("docker unpause ipfs_cluster");
    await untilPinned(requestid);
    await eventually("it is on the storage node", async () => (await stored(node!)).has(cid));
  });

  test("Postgres and ipfs_cluster restart under load: nothing accepted is lost, the API goes on", async () => {
    const credit = ["user", "credit", "25", "--email", EMAIL, "--reason", "a test", "--key", "test-1"];
    expectExit(await fulaNode(master!, credit), 0);
    const { stdout } = await client.run(
      "for i in $(seq 40); do head -c 5000 /dev/urandom | ipfs add -Q --cid-version=1; done",
    );
    const cids = stdout.trim().split("\n");
    const before = await apiPid();
    const accepted = new Map<string, string>();
    const refused = new Set<number>();
    const restarts = { over: false };
    let afterwards = 0;
    const post = async (first: number): Promise<void> => {
      for (let next = first; !restarts.over || accepted.size < 40; next += 2) {
        const cid = cids[next % cids.length] ?? "";
        const body = { cid, name: "under load" };
        const answer = await client.send("POST", "/pins", { headers: authorized(), body });
        if (answer.status !== 202) refused.add(answer.status);
        else accepted.set((JSON.parse(answer.body) as Request).requestid, cid);
        if (restarts.over && answer.status === 202) afterwards += 1;
      }
    };
    const load = Promise.all([post(0), post(1)]);
    await eventually("the load runs", async () => accepted.size >= 4);
    await master!.run("docker restart postgres-pinning & docker restart ipfs_cluster & wait");
    await Promise.all([untilHealthy("postgres-pinning"), untilHealthy("ipfs_cluster")]);
    await eventually("it is accepted again", async () => {
      const { requestid } = await pin(cids[0] ?? "", "under load");
      accepted.set(requestid, cids[0] ?? "");
      return true;
    });
    restarts.over = true;
    await load;
    expect(accepted.size).toBeGreaterThanOrEqual(40);
    // It is how the API refuses while Postgres is away; that it did shows that the load went on meanwhile.
    expect([...refused]).toEqual([503]);
    console.log(`accepted ${accepted.size}, ${afterwards} of them after the restarts`);
    for (const requestid of accepted.keys()) await untilPinned(requestid);
    // A request is pinned once one peer has its content; the other peers follow.
    await eventually("the storage node has all of them", async () => {
      const held = await stored(node!);
      return [...accepted.values()].every((cid) => held.has(cid));
    });
    expect(await apiPid()).toBe(before);
  });
});

/** What the README's section says to type, on the master and on another machine, with the names of these boxes. */
async function firstPin(): Promise<readonly [string, string]> {
  const readme = (await readPages()).get("README.md") ?? "";
  const [, section = ""] = readme.split(/^## The first pin$/m);
  const blocks = fencesOf(section.split(/^## /m)[0] ?? "").map(({ text }) =>
    text.replaceAll("master.example.org", PUBLIC_HOST),
  );
  expect(blocks).toHaveLength(2);
  return blocks as [string, string];
}
