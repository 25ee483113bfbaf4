import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { until } from "../support/migrations.ts";
import { bootMaster, expectExit, psql, rejoin, skipped } from "../support/master-box.ts";

const LEADER = "fula-pinning-webui";
/** A second master's storage API on the same database, which it reaches through a network of its own. */
const STANDBY = "second-webui";
const NETWORK = "second-net";
const VAULT = `0x${"1".repeat(40)}`;
const WALLET = `0x${"2".repeat(40)}`;
/** Upstream's FULA on Base. */
const TOKEN = "0x9e12735d77c72c5c3670636d428f2f3815d8a4cb";

/** A node of Base with one deposit of 5 FULA. */
const CHAIN = `
const word = (text) => "0x" + text.replace(/^0x/, "").padStart(64, "0");
const at = (block) => ({ hash: word(block.toString(16)), number: "0x" + block.toString(16), timestamp: "0x65000000" });
const answers = {
  eth_chainId: () => "0x2105",
  eth_blockNumber: () => at(40481508).number,
  eth_getBlockByNumber: ([number]) => at(Number(number)),
  eth_getLogs: ([{ fromBlock, toBlock }]) => Number(fromBlock) > 40480600 || Number(toBlock) < 40480600 ? [] : [{
    address: "${TOKEN}", data: word((5n * 10n ** 18n).toString(16)), transactionHash: word("f"), logIndex: "0x3",
    topics: ["0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef", word("${WALLET}"), word("${VAULT}")],
    blockNumber: at(40480600).number, blockHash: at(40480600).hash }],
};
require("node:http").createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  response.writeHead(request.url === "/key-of-the-node" ? 200 : 401, { "content-type": "application/json" });
  response.end(JSON.stringify(JSON.parse(body).map(({ id, method, params }) => ({ jsonrpc: "2.0", id, result: answers[method](params) }))));
}).listen(8545, "127.0.0.1");
`;

describe.skipIf(skipped !== undefined)("the billing of two masters", () => {
  let box: Box;

  beforeAll(async () => {
    box = await bootMaster("billing");
    await psql(
      box,
      `INSERT INTO pins (requestid, user_id, cid, status, size, created_at)
       SELECT 'r' || n, 'u' || n, 'c', 'pinned', 10::bigint << 30, now() - interval '9 days' FROM generate_series(1, 20) AS n;
       INSERT INTO user_credits (user_id, balance_fula) SELECT 'u' || n, 100 FROM generate_series(1, 20) AS n;
       INSERT INTO user_wallets (user_id, wallet_address_hash, chain_id, is_verified)
       VALUES ('payer', encode(sha256('${WALLET}'::bytea), 'hex'), 8453, 1)`,
    );
    await box.writeFile("/root/chain.cjs", CHAIN);
    await box.writeFile("/root/rpc", "http://127.0.0.1:8545/key-of-the-node", 0o600);
    await box.run("systemd-run --unit chain node /root/chain.cjs");
    const settings = [`VAULT_ADDRESS=${VAULT}`, "DEDUCTION_INTERVAL_MS=5000", "SCANNER_INTERVAL_MS=5000"];
    expectExit(
      await rejoin(box, [
        ...settings.flatMap((setting) => ["--set", setting]),
        "--set-file",
        "BASE_RPC_URL=/root/rpc",
      ]),
      0,
    );
    await until(
      "acquired cron lease",
      async () => (await log(LEADER)).includes("acquired cron lease"),
      60_000,
    );
    const [image = ""] = (
      await box.run(["docker", "inspect", "-f", "{{.Config.Image}}", LEADER])
    ).stdout.split("\n");
    await box.run(
      `docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' ${LEADER} | grep -v -e ^WEBUI_PORT= -e ^WEBUI_METRICS_PORT= -e ^MASTER_ID= -e '^$' > /root/second.env`,
    );
    // Postgres listens on 127.0.0.1 only: what comes to the gateway of the network is passed on to it.
    await box.run(`docker network create ${NETWORK}`);
    const gateway = (
      await box.run(`docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' ${NETWORK}`)
    ).stdout.trim();
    const relay = `const net = require("node:net"); net.createServer((from) => { const to = net.connect(5432, "127.0.0.1"); for (const [a, b] of [[from, to], [to, from]]) a.on("error", () => b.destroy()).pipe(b); }).listen(5432, "${gateway}")`;
    await box.run(["systemd-run", "--unit=relay", "node", "-e", relay]);
    await box.run(
      `docker run -d --name ${STANDBY} --network ${NETWORK} --env-file /root/second.env -e POSTGRES_HOST=${gateway} -e MASTER_ID=${"b".repeat(32)} ${image.trim()} serve webui`,
    );
    await until(
      "standby (lease held by another master)",
      async () => (await log(STANDBY)).includes("standby (lease held by another master)"),
      60_000,
    );
  });
  afterAll(() => box?.destroy());

  async function log(container: string): Promise<string> {
    const { stdout, stderr } = await box.run(`docker logs ${container} 2>&1`);
    return stdout + stderr;
  }

  /** Charges, and how often the account and hour that was charged most. */
  const charged = () =>
    psql(
      box,
      "SELECT count(DISTINCT user_id), max(n) FROM (SELECT user_id, count(*) AS n FROM credit_history WHERE tx_type = 'hourly_deduction' GROUP BY user_id, reference_id) AS each",
    );

  test("one leads, charges each account once an hour, and status says so", async () => {
    await expect.poll(charged, { timeout: 30_000 }).toBe("20|1");
    const status = await fulaNode(box, ["status"]);
    expect(status.stdout.replaceAll(/\s+/g, " ")).toMatch(
      /ok billing run by billing since .* UTC, last billed hour: /,
    );
  });

  test("a deposit is credited once, the command and the metrics say so, and no log has the node's key", async () => {
    const credited = () =>
      psql(
        box,
        "SELECT a.balance::int, count(*) FROM account_credits a JOIN credit_history h ON h.user_id = a.account WHERE account = 'payer' GROUP BY 1",
      );
    await expect.poll(credited, { timeout: 60_000 }).toBe("5|1");
    const shown = await fulaNode(box, ["billing", "deposits"]);
    expectExit(shown, 0);
    expect(shown.stdout).toMatch(/Base +block 40481358 of 40481508, scanned \d+ s ago/);
    expect(shown.stdout).toContain("Every deposit was credited.");
    const metrics = await box.run("curl -s http://127.0.0.1:13001/metrics");
    expect(metrics.stdout).toMatch(/fula_billing_cron_runs\{cron="scanner",service="webui"\} [1-9]/);
    expect(metrics.stdout).toContain('fula_billing_leads{service="webui"} 1');
    await box.run("systemctl stop chain");
    await expect.poll(() => log(LEADER), { timeout: 60_000 }).toMatch(/scanner: Base: the scan ended early/);
    expect((await log(LEADER)) + shown.stdout).not.toContain("key-of-the-node");
    expect(await credited()).toBe("5|1");
  });

  test("a leader that is frozen loses the lease after a minute, and writes nothing when it goes on", async () => {
    await box.run(`docker pause ${LEADER}`);
    await expect
      .poll(() => log(STANDBY), { timeout: 150_000, interval: 2_000 })
      .toContain("acquired cron lease");
    expect(await log(STANDBY)).toMatch(/was silent for \d+ s: its session was ended/);
    expect(await psql(box, "SELECT generation, holder FROM cron_lease")).toBe(`2|${"b".repeat(32)}`);
    await box.run(`docker unpause ${LEADER}`);
    await expect.poll(() => log(LEADER), { timeout: 60_000 }).toContain("lost the cron lease");
    await expect
      .poll(() => log(LEADER), { timeout: 60_000 })
      .toMatch(/lost the cron lease[^]*standby \(lease held by another master\)/);
    expect(await charged()).toBe("20|1");
    expect(await psql(box, "SELECT generation FROM cron_lease")).toBe("2");
  });

  test("a leader whose network is cut loses the lease, and writes nothing when it is back", async () => {
    await box.run(`docker network disconnect ${NETWORK} ${STANDBY}`);
    await expect
      .poll(() => psql(box, "SELECT generation FROM cron_lease"), { timeout: 150_000, interval: 2_000 })
      .toBe("3");
    await box.run(`docker network connect ${NETWORK} ${STANDBY}`);
    await expect
      .poll(() => log(STANDBY), { timeout: 90_000, interval: 1_000 })
      .toMatch(/lost the cron lease[^]*standby \(lease held by another master\)/);
    expect(await charged()).toBe("20|1");
    expect(await psql(box, "SELECT generation FROM cron_lease")).toBe("3");
  });

  test("kill -9 of the leader's container: the other one takes over, and nobody pays twice", async () => {
    await box.run(`docker kill ${LEADER}`);
    await expect
      .poll(() => psql(box, "SELECT generation FROM cron_lease"), { timeout: 90_000, interval: 1_000 })
      .toBe("4");
    expect(await charged()).toBe("20|1");
  });
});
