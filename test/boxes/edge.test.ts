import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import {
  ACME_SETTINGS,
  AcmeCa,
  curl,
  PUBLIC_HOST,
  sendRaw,
  statusOf,
  withEcho,
} from "../support/edge-boxes.ts";
import { createAccount, Ingest, someBlock } from "../support/ingress-boxes.ts";
import { expectExit, rejoin, skipped, stderrOf, watch } from "../support/master-box.ts";
import { by, bootNode, type CreatedInvite, PRIVATE_NETWORK } from "../support/storage-boxes.ts";

const ENV_FILE = "/opt/fula-master/.env";
const VOLUME = "/var/lib/docker/volumes/fula-master_edge-data/_data/caddy";
/** A request with what only this machine may say in its trailer. */
const TRAILED = String.raw`printf 'POST /pins HTTP/1.1\r\nHost: master\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Fula-Service-Auth\r\n\r\n1\r\nx\r\n0\r\nX-Fula-Service-Auth: t\r\n\r\n' |
  openssl s_client -quiet -connect master:443 -servername master 2>/dev/null`;
const FROM_OUTSIDE = "X-Fula-Service-Auth: 1795689342.user.signature";

describe.skipIf(skipped !== undefined)("the edge of a master", () => {
  let network: string;
  let master: Box;
  let node: Box;
  let ca: AcmeCa;

  const joinMaster = (args: readonly string[] = []) =>
    fulaNode(master, [...FIRST_JOIN, ...ACME_SETTINGS, ...args]);
  const edgeId = async () => (await master.run("docker inspect --format '{{.Id}}' fula-edge")).stdout;
  const account = async () =>
    (await master.run(`set -o pipefail; cat ${VOLUME}/acme/*/users/*/*.json | sha256sum`)).stdout;
  const edgePart = async () => {
    const { stdout } = await fulaNode(master, ["status", "--json"]);
    const { parts } = JSON.parse(stdout) as { parts: { name: string; state: string; summary: string }[] };
    return parts.find(({ name }) => name === "edge");
  };

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([
      Box.boot({ name: PUBLIC_HOST, image: "docker", network }),
      bootNode("node-1", network),
    ]);
    await installArtifact(master);
    await master.writeFile(ENV_FILE, "KUBO_PRIVATE_NETWORK=true\n", 0o600);
    ca = await AcmeCa.on(master);
  });

  afterAll(async () => {
    await ca?.authority.close();
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("H22: another web server, on one port and one family, halts the join before its first write", async () => {
    await master.run("apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy nginx-core", {
      timeoutMs: 300_000,
    });
    const before = await watch(master);
    await master.run("systemctl restart nginx");
    const both = await joinMaster();
    expectExit(both, 22);
    expect(stderrOf(both)).toMatch(
      /Port 80, which the edge needs, is in use: nginx \(process \d+, unit nginx\.service\)/,
    );
    const only6 = "events {}\nhttp { server { listen [::]:443 ipv6only=on; } }\n";
    await master.writeFile("/etc/nginx/nginx.conf", only6);
    await master.run("systemctl restart nginx");
    const six = await joinMaster();
    expectExit(six, 22);
    expect(stderrOf(six)).toMatch(
      /Port 443, which the edge needs, is in use: nginx [^.]*\.service\) listens on \[::\]:443/,
    );
    expect(await watch(master)).toEqual(before);
    await master.run("systemctl disable --now nginx");
  });

  test("H22: a certificate is ordered once, whatever happens to the container", async () => {
    expectExit(await joinMaster(), 0);
    expect(await ca.orders()).toBe(1);
    const first = { edge: await edgeId(), account: await account() };
    const again = await rejoin(master);
    expectExit(again, 0);
    expect(await edgeId()).toBe(first.edge);

    await master.run("docker rm -f fula-edge");
    expectExit(await rejoin(master), 0);
    expect(await edgeId()).not.toBe(first.edge);

    expectExit(await fulaNode(master, ["leave", "--yes"]), 0);
    expect((await master.exec("curl -sk -m 5 https://127.0.0.1/")).exitCode).toBe(7);
    expectExit(await joinMaster(), 0);
    expect(await account()).toBe(first.account);
    expect(await ca.orders()).toBe(1);
    expect(await edgePart()).toMatchObject({ state: "ok" });
  });

  test("a storage node joins through it in one command, and its ingest asks it for quotas", async () => {
    const created = await fulaNode(master, ["invite", "create", "--json", "--name", "node-1"]);
    expectExit(created, 0);
    expect(created.stderr).toBe("");
    const invite = JSON.parse(created.stdout) as CreatedInvite;
    const args = ["join-as-storage-node", "--yes", ...by(invite), ...PRIVATE_NETWORK];
    expectExit(await fulaNode(node, args), 0);
    const env = await node.readFile("/opt/fula-storage/.env");
    expect(env).toMatch(/^STORAGE_API_URL=["']?https:\/\/master["']?$/m);
    const user = await createAccount(master, "edge@example.org");
    const ingest = await Ingest.of(node);
    expect((await ingest.put(someBlock(), await user.token())).status).toBe(200);
    expect((await ingest.put(someBlock(), "not-a-token")).status).toBe(401);
    const status = await fulaNode(node, ["status", "--json"]);
    const { parts } = JSON.parse(status.stdout) as {
      parts: { name: string; state: string; summary: string }[];
    };
    expect(parts.filter(({ state }) => state !== "ok")).toEqual([]);
  });

  test("H10: no spelling of a path or a host reaches what is not for outside", async () => {
    expect(await statusOf(node, "/api/v1/pool")).toBe(200);
    expect(await statusOf(node, "/api/v1/storage")).toBe(401);
    expect(await statusOf(node, "/api/v1/openapi.json")).toBe(200);
    const paths = [
      "/",
      "/openapi.json",
      "/admin/openapi.json",
      "/admin",
      "/ADMIN",
      "//admin",
      "/%61dmin",
      "/admin/../pins",
      "/metrics",
      "/health",
      "/api/v1",

      "/pins/..%2fadmin",
      "/pins/../admin",
      "/pins/%2e%2e/admin",
      "/pins%2f..%2fadmin",
      "/api/v1/..;/admin",
      "/api/v1/../../admin",
      "/api/v1/admin",
      "/API/v1/pool",
      "/pins/admin",
      "//pins",
      "/pins\\\\..\\\\admin",
    ];
    for (const path of paths)
      for (const version of ["--http1.1", "--http2"])
        expect([path, await statusOf(node, path, version)]).toEqual([path, 404]);
    const raw = (line: string, host = PUBLIC_HOST) =>
      sendRaw(node, `${line}\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    expect(await raw("GET /api/v1/pool HTTP/1.1")).toBe(200);
    expect(await raw("GET https://master/api/v1/pool HTTP/1.1")).toBe(200);
    expect(await raw("GET https://master/admin HTTP/1.1")).toBe(404);
    expect(await raw("GET http://127.0.0.1:6000/admin HTTP/1.1")).toBe(404);
    expect(await raw("GET http://127.0.0.1:3001/api/v1/pool HTTP/1.1")).toBe(404);
    for (const host of ["127.0.0.1", "localhost", "127.0.0.1:6000", "other.example"])
      expect([host, await raw("GET /api/v1/pool HTTP/1.1", host)]).toEqual([host, 404]);
    const plain = "curl -s -o /dev/null -w '%{http_code} %{redirect_url}' --path-as-is";
    expect((await node.run(`${plain} 'http://master/pins?a=1'`)).stdout).toBe("308 https://master/pins?a=1");
    expect((await node.run(`${plain} -H 'Host: 127.0.0.1' http://master/admin`)).stdout).toBe("404 ");
    expect((await node.run(`${plain} -H 'Host: 127.0.0.1' http://master/fula-edge/health`)).stdout).toBe(
      "404 ",
    );
  });

  test("H10: what only this machine may say does not arrive, and the sender's address is the real one", async () => {
    const sent = [
      FROM_OUTSIDE,
      FROM_OUTSIDE,
      "x-fula-service-auth: lower",
      "X_Fula_Service_Auth: a",
      "X-Fula_Service-Auth: b",
      "X-System-Key: key",
      "X_System_Key: key",
      "x-system_key: key",
      "X-Fula-Other: c",
      "X-Forwarded-For: 6.6.6.6",
      "X-Forwarded-Proto: gopher",
      "X-Real-IP: 6.6.6.6",
      "Forwarded: for=6.6.6.6",
    ];
    const flags = sent.map((header) => `-H '${header}'`).join(" ");
    const address = await node.address();
    await withEcho(master, { container: "fula-pinning-api", port: 6001 }, async () => {
      for (const version of ["--http1.1", "--http2"]) {
        const { stdout } = await curl(node, "/pins?x=1", `${version} ${flags} -H 'Authorization: Bearer t'`);
        const { headers, url } = JSON.parse(stdout) as { headers: string[]; url: string };
        const pairs = headers.flatMap((name, index) =>
          index % 2 === 0 ? [`${name}: ${headers[index + 1]}`] : [],
        );
        expect(url).toBe("/pins?x=1");
        expect(pairs).toContain("Authorization: Bearer t");
        expect(pairs).toContain(`X-Forwarded-For: ${address}`);
        expect(pairs).toContain("X-Forwarded-Proto: https");
        expect(pairs.filter((pair) => /fula|system|6\.6\.6\.6|_/i.test(pair))).toEqual([]);
      }
      // A trailer stays one: it is no header for who reads the request.
      const trailed = await node.run(["bash", "-c", TRAILED]);
      expect(trailed.stdout).toContain('"trailers":{"x-fula-service-auth":"t"}');
      expect(trailed.stdout).not.toContain('"X-Fula-Service-Auth","t"');
    });
  });

  test("H22: a body of 10 MB ends as 413, with and without a length", async () => {
    await node.run("head -c 10000000 /dev/zero >/root/big");
    const big = "-X POST --data-binary @/root/big";
    for (const version of ["--http1.1", "--http2"])
      expect(await statusOf(node, "/pins", `${version} ${big}`)).toBe(413);
    const inChunks = async (version: string): Promise<string> => {
      const headers = "-H 'Transfer-Encoding: chunked' -H 'Content-Type: application/json'";
      const options = `-o /dev/null -w '%{http_code}' ${version} ${big} ${headers}`;
      const { stdout, exitCode } = await curl(node, "/api/v1/nodes", options);
      return exitCode === 0 ? stdout : `curl ends with ${exitCode}`;
    };
    // Over HTTP/1.1 the connection closes with the answer: curl can fail to send (55) before it reads that.
    expect(["413", "curl ends with 55"]).toContain(await inChunks("--http1.1"));
    expect(await inChunks("--http2")).toBe("413");
    const { stdout } = await curl(node, "/pins", big);
    expect(JSON.parse(stdout)).toMatchObject({ error: { reason: "PAYLOAD_TOO_LARGE" } });
  });

  test("H22: a CA that does not answer leaves the old certificate, is asked seldom, and is shown", async () => {
    const days = (count: number) => new Date(Date.now() + count * 86_400_000);
    const old = await ca.authority.issue(`DNS:${PUBLIC_HOST}`, { from: days(-80), until: days(10) });
    await ca.stop();
    const [directory = ""] = (await master.run(`ls -d ${VOLUME}/certificates/*/master`)).stdout.split("\n");
    await master.run(["docker", "stop", "fula-edge"]);
    await master.writeFile(`${directory}/master.crt`, old.certificate, 0o600);
    await master.writeFile(`${directory}/master.key`, old.key, 0o600);
    // What the CA said about the renewal of the certificate that was there.
    const script = `const path = process.argv[1], meta = JSON.parse(require("node:fs").readFileSync(path));
      delete meta.issuer_data?.renewal_info; require("node:fs").writeFileSync(path, JSON.stringify(meta));`;
    await master.run(["node", "-e", script, `${directory}/master.json`]);
    await master.run(`chown -R 61077:61077 ${VOLUME}`);
    await master.run(["docker", "start", "fula-edge"]);
    const refusals = async () =>
      (await master.run("docker logs --since 10m fula-edge 2>&1")).stdout
        .split("\n")
        .filter((line) => line.includes('"logger":"tls.renew"') && line.includes('"will retry"'));
    const [refusal = ""] = await eventually("Caddy asks for a new one", async () => {
      const lines = await refusals();
      return lines.length > 0 && lines;
    });
    expect(
      (JSON.parse(refusal.slice(refusal.indexOf("{"))) as { retrying_in: number }).retrying_in,
    ).toBeGreaterThanOrEqual(60);
    await master.writeFile("/root/old-ca.pem", ca.authority.certificate);
    const seen = await master.run("curl -sf --cacert /root/old-ca.pem https://master/api/v1/pool");
    expect(JSON.parse(seen.stdout)).toMatchObject({ pool: "test-pool" });
    expect(await edgePart()).toMatchObject({
      state: "attention",
      summary: expect.stringMatching(
        /certificate expires on .*, in 9 days; the CA did not issue a new one: .*connection refused/,
      ),
    });
    // A repair goes on, and does not ask the CA again.
    expectExit(await rejoin(master), 0);
    expect((await refusals()).length).toBe(1);
  });

  test("a private CA of its own: its root is in the invite, and without PUBLIC_HOST nothing is bound", async () => {
    const env = (await master.readFile(ENV_FILE)).replaceAll(/^EDGE_.*\n/gm, "");
    await master.writeFile(ENV_FILE, env, 0o600);
    expectExit(await rejoin(master, ["--set", "EDGE_TLS=internal"]), 0);
    const created = await fulaNode(master, ["invite", "create", "--json"]);
    expectExit(created, 0);
    const { token } = JSON.parse(created.stdout) as CreatedInvite;
    expect(token).toMatch(/^fula-invite\.3\./);
    const payload = Buffer.from(token.split(".")[2] ?? "", "base64url").toString();
    const { storage_api_ca: root } = JSON.parse(payload) as { storage_api_ca: string };
    await node.writeFile(
      "/root/root.pem",
      `-----BEGIN CERTIFICATE-----\n${root}\n-----END CERTIFICATE-----\n`,
    );
    const asked = await node.run(
      "curl -s -o /dev/null -w '%{http_code}' --cacert /root/root.pem https://master/api/v1/storage",
    );
    expect(asked.stdout).toBe("401");

    const off = (await master.readFile(ENV_FILE)).replaceAll(/^(?:PUBLIC_HOST|EDGE_).*\n/gm, "");
    await master.writeFile(ENV_FILE, off, 0o600);
    expectExit(await rejoin(master), 0);
    expect((await master.run("ss -Hltn '( sport = :80 or sport = :443 )'")).stdout).toBe("");
    expect((await master.exec("docker inspect fula-edge")).exitCode).not.toBe(0);
  });
});
