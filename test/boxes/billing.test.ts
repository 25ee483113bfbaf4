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

describe.skipIf(skipped !== undefined)("the billing of two masters", () => {
  let box: Box;

  beforeAll(async () => {
    box = await bootMaster("billing");
    await psql(
      box,
      `INSERT INTO pins (requestid, user_id, cid, status, size, created_at)
       SELECT 'r' || n, 'u' || n, 'c', 'pinned', 10::bigint << 30, now() - interval '9 days' FROM generate_series(1, 20) AS n;
       INSERT INTO user_credits (user_id, balance_fula) SELECT 'u' || n, 100 FROM generate_series(1, 20) AS n`,
    );
    expectExit(
      await rejoin(box, ["--set", `VAULT_ADDRESS=${VAULT}`, "--set", "DEDUCTION_INTERVAL_MS=5000"]),
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
      "SELECT count(DISTINCT user_id), max(n) FROM (SELECT user_id, count(*) AS n FROM credit_history GROUP BY user_id, reference_id) AS each",
    );

  test("one leads, charges each account once an hour, and status says so", async () => {
    await expect.poll(charged, { timeout: 30_000 }).toBe("20|1");
    const status = await fulaNode(box, ["status"]);
    expect(status.stdout.replaceAll(/\s+/g, " ")).toMatch(
      /ok billing run by billing since .* UTC, billed up to /,
    );
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
