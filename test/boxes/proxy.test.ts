import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootMaster, expectExit, skipped } from "../support/master-box.ts";

const PAGE = readFileSync(new URL("../../docs/ports.md", import.meta.url), "utf8");
const HOST = "storage.example.org";
const LIVE = `/etc/letsencrypt/live/${HOST}`;

/** The example of the page that contains these words. */
function exampleWith(words: string): string {
  const blocks = [...PAGE.matchAll(/```text\n([\s\S]*?)```/g)].map(([, block = ""]) => block);
  const found = blocks.filter((block) => block.includes(words));
  if (found.length !== 1) throw new Error(`${found.length} examples contain ${words}`);
  return found[0] ?? "";
}

describe.skipIf(skipped !== undefined)("the proxies of docs/ports.md in front of the storage API", () => {
  let master: Box;
  let address: string;

  /** The statuses of so many requests through the proxy, from one of this machine's addresses. */
  const statusesOf = async (from: string, count: number, args = ""): Promise<readonly string[]> => {
    const urls = Array.from({ length: count }, (_, n) => `https://${HOST}/api/v1/nodes?${n}`).join(" ");
    const { stdout } = await master.run(
      `curl -sk -o /dev/null -w '%{http_code}\\n' --resolve ${HOST}:443:${from} ${args} ` +
        `-H 'content-type: application/json' -d '{}' ${urls.replaceAll(" ", " -o /dev/null ")}`,
    );
    return stdout.trim().split("\n");
  };
  const untilServed = () =>
    eventually(
      "the proxy serves the pool",
      async () => {
        const url = `https://${HOST}/api/v1/pool`;
        const { stdout } = await master.exec(`curl -sk --resolve ${HOST}:443:127.0.0.1 ${url}`);
        return stdout.includes('"pool":"test-pool"');
      },
      60_000,
    );
  /** Uses up the limit of one client. The other client's is its own, and a header of the client's changes neither. */
  const expectLimitsByClient = async (): Promise<void> => {
    await master.run("docker restart fula-pinning-webui");
    await untilServed();
    const first = await statusesOf("127.0.0.1", 60);
    expect(first).toHaveLength(60);
    expect(first.slice(0, 30)).toEqual(Array.from({ length: 30 }, () => "400"));
    expect(first).toContain("429");
    expect(await statusesOf("127.0.0.1", 10, "-H 'X-Forwarded-For: 192.0.2.66'")).toContain("429");
    expect(await statusesOf(address, 10)).toEqual(Array.from({ length: 10 }, () => "400"));
  };
  const createInvite = (env: Readonly<Record<string, string>> = {}) =>
    fulaNode(master, ["invite", "create", "--json", "--storage-api-url", `https://${HOST}`], { env });

  beforeAll(async () => {
    master = await bootMaster("edge");
    address = await master.address();
    await master.run(`echo '${address} ${HOST}' >>/etc/hosts`);
    await master.run(
      "apt-get update && apt-get install -y --no-install-recommends nginx && systemctl stop nginx",
    );
    await master.run("apt-get install -y --no-install-recommends caddy && systemctl stop caddy");
    await master.run(`mkdir -p ${LIVE}`);
    await master.run(
      `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=${HOST} ` +
        `-addext subjectAltName=DNS:${HOST} -keyout ${LIVE}/privkey.pem -out ${LIVE}/fullchain.pem`,
    );
  });
  afterAll(() => master?.destroy());

  test("without a proxy, the author of an invite is told what is missing", async () => {
    const result = await createInvite();
    expectExit(result, 0);
    const { warnings } = JSON.parse(result.stdout) as { warnings: readonly string[] };
    expect(JSON.stringify(warnings)).toMatch(/does not answer as the storage API.*docs\/ports\.md#proxy/);
  });

  test("nginx, with the page's file as it is", async () => {
    await master.writeFile("/etc/nginx/conf.d/storage.conf", exampleWith("proxy_pass"));
    await master.run("nginx -t && systemctl start nginx");
    await untilServed();
    await expectLimitsByClient();
    const result = await createInvite({ NODE_EXTRA_CA_CERTS: `${LIVE}/fullchain.pem` });
    expectExit(result, 0);
    expect(JSON.stringify(JSON.parse(result.stdout))).not.toContain("docs/ports.md");
    await master.run("systemctl stop nginx");
  });

  test("Caddy, with the page's file and a certificate of its own", async () => {
    const file = exampleWith("reverse_proxy").replace("reverse_proxy", "tls internal\n\treverse_proxy");
    await master.writeFile("/etc/caddy/Caddyfile", file);
    await master.run("systemctl start caddy");
    await untilServed();
    await expectLimitsByClient();
  });
});
