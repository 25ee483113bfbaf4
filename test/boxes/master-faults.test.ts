import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { cidOf } from "../support/cids.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootMaster, expectExit, psql, skipped } from "../support/master-box.ts";

const DATA = "/var/lib/docker/volumes/fula-master_pgdata/_data";
const SERVICES = "fula-pinning-api fula-pinning-webui";
const FULL = "PostgreSQL can't write: its disk is full";

describe.skipIf(skipped !== undefined)("what a master says while one part of it can't work", () => {
  let box: Box;
  let key: string;

  /** `STATE: SUMMARY -> TODO` of each part. */
  const status = async (exitCode: number): Promise<ReadonlyMap<string, string>> => {
    const result = await fulaNode(box, ["status", "--json"]);
    expectExit(result, exitCode);
    const { parts } = JSON.parse(result.stdout) as { parts: readonly Record<string, string>[] };
    return new Map(
      parts.map(({ name = "", state, summary, todo }) => [name, `${state}: ${summary} -> ${todo}`]),
    );
  };
  const post = async (what: string, meta: Readonly<Record<string, string>> = {}) => {
    const head = `-H 'content-type: application/json' -H 'authorization: Bearer ${key}'`;
    const url = "http://127.0.0.1:6000/pins";
    const { stdout } = await box.run(`curl -s -w '\\n%{http_code}' ${head} --data-binary @- ${url}`, {
      input: JSON.stringify({ cid: cidOf(what), meta }),
    });
    const [code = "", ...body] = stdout.split("\n").toReversed();
    return { status: Number(code), body: body.join("") };
  };
  const healthOf = async (port: number): Promise<string> =>
    (await box.run(`curl -s http://127.0.0.1:${port}/health`)).stdout;

  beforeAll(async () => {
    box = await bootMaster("faults");
    expectExit(await fulaNode(box, ["user", "create", "--email", "you@example.org"]), 0);
    const made = await fulaNode(box, ["user", "token", "--email", "you@example.org"]);
    expectExit(made, 0);
    // An account without a balance may have ten requests that are not pinned.
    const credit = ["user", "credit", "25", "--email", "you@example.org", "--reason", "a test", "--key", "1"];
    expectExit(await fulaNode(box, credit), 0);
    key = made.stdout.trim().split("\n").at(-1) ?? "";
  });

  afterAll(() => box.destroy());

  test("status leaves no request in the logs, and a client without a key does", async () => {
    await status(0);
    const refused = async () =>
      (await box.run("docker logs fula-pinning-api 2>&1")).stdout.includes('"status":401');
    expect(await refused()).toBe(false);
    await box.run("curl -s http://127.0.0.1:6000/pins");
    await eventually("the log has it", refused);
  });

  test("the cluster away: pins are accepted and wait, and nothing names what they are", async () => {
    await box.run("docker stop ipfs_cluster");
    expect((await post("while the cluster is away")).status).toBe(202);
    await eventually("health says why", async () => /"fault":"cluster: /.test(await healthOf(6000)));
    const parts = await status(27);
    expect(parts.get("pinning API")).toMatch(
      /^attention: 127\.0\.0\.1:6000 accepts pins, but they wait in its queue: /,
    );
    expect(parts.get("writer")).toMatch(/^down: the container ipfs_cluster is stopped/);
    const logs = (await box.run("docker logs fula-pinning-api 2>&1")).stdout;
    expect([logs, await healthOf(6000)].join("")).not.toContain(cidOf("while the cluster is away"));
    await box.run("docker start ipfs_cluster");
    await eventually("all is well", async () => /"status":"ok"/.test(await healthOf(6000)));
  });

  test("PostgreSQL's disk is full: each part that needs it says so, until there is space again", async () => {
    await onSmallDisk();
    const filler = `${DATA}/small/filler`;
    await box.run(`dd if=/dev/zero of=${filler} bs=4k 2>/dev/null || true`);
    await eventually("a request is refused", async () => {
      for (let next = 0; next < 50; next += 1) {
        const answer = await post(`${performance.now()}`, { text: "x".repeat(200), more: String(next) });
        if (answer.status === 202) continue;
        expect(answer).toEqual({
          status: 503,
          body: expect.stringContaining(`${FULL}. Try again later.`) as string,
        });
        return true;
      }
      return false;
    });
    expect(await healthOf(6000)).toContain(FULL);
    await eventually("the storage API has looked again", async () => (await healthOf(3001)).includes(FULL));
    const parts = await status(27);
    const full = /^down: .*PostgreSQL can't write: its disk is full -> /.source;
    expect(parts.get("database")).toMatch(new RegExp(`${full}Free space on the disk`));
    for (const part of ["pinning API", "storage API"])
      expect([part, parts.get(part)]).toEqual([
        part,
        expect.stringMatching(new RegExp(`${full}the cause is the database: see its line`)),
      ]);
    const checked = `docker exec fula-pinning-api node -e 'require("node:http").get("http://127.0.0.1:6000/health", (answer) => process.exit(answer.statusCode === 503 ? 0 : 1))'`;
    await box.run(checked);
    await box.run(`rm ${filler}`);
    await eventually("all is well", async () => /"status":"ok"/.test(await healthOf(6000)));
    expect((await post("there is space again")).status).toBe(202);
    expect((await status(0)).get("database")).toMatch(/^ok: /);
  });

  /** The database on a disk of its own, which a test can fill without harm to the box. */
  async function onSmallDisk(): Promise<void> {
    await box.run(
      `mkdir ${DATA}/small && mount -t tmpfs -o size=100m none ${DATA}/small && chown --reference=${DATA} ${DATA}/small`,
    );
    await box.run(`docker stop ${SERVICES} && docker restart postgres-pinning`);
    const admin = "docker exec -i postgres-pinning psql -U pinning_user -d postgres -v ON_ERROR_STOP=1 -q";
    await eventually("PostgreSQL is back", async () => (await psql(box, "SELECT 1")) === "1");
    await box.run(admin, {
      input: `CREATE TABLESPACE small LOCATION '/var/lib/postgresql/data/small';
        ALTER DATABASE pinning_service SET TABLESPACE small;`,
    });
    await box.run(`docker start ${SERVICES}`);
    await eventually("all is well", async () => /"status":"ok"/.test(await healthOf(6000)));
  }
});
