import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, PROGRAM } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootMaster, expectExit, psql, skipped } from "../support/master-box.ts";

/** The drills that work in a scratch database. */
const SCRATCH = ["D3", "D4", "D5", "D8", "D10"] as const;

interface Ran {
  readonly drills: readonly {
    readonly id: string;
    readonly state: string;
    readonly summary: string;
    readonly leftovers: readonly string[];
    readonly durationMs: number;
  }[];
}

/** One thing of the program, broken on purpose: a text of it is replaced by another. */
const TWINS: readonly {
  readonly id: (typeof SCRATCH)[number];
  readonly what: string;
  readonly from: string;
  readonly to: string;
  readonly says: RegExp;
}[] = [
  {
    id: "D3",
    what: "everybody gets the lock of the lease",
    from: "SELECT pg_try_advisory_lock(${LOCK}) AS locked",
    to: "SELECT true AS locked",
    says: /crons led at the same time|another master has taken the lease/,
  },
  {
    id: "D4",
    what: "a standby never looks again",
    from: "lease !== null && every(beatMs, look)",
    to: "lease !== null && every(3_600_000, look)",
    says: /did not take over within 15 s after drill-master-[ab] was killed/,
  },
  {
    id: "D5",
    what: "a transfer that has a credit gets another one",
    from: "AND d.tx_hash = $2 AND d.account IS NULL",
    to: "AND d.tx_hash = $2",
    says: /credit/,
  },
  {
    id: "D8",
    what: "a root is moved whatever it is",
    from: "AND root_cid = $5 AND version = $6::bigint",
    to: "AND $5::text IS NOT NULL AND $6::bigint > 0",
    says: /2 of 2 writers of compared-1 won with the same base/,
  },
  {
    id: "D10",
    what: "a name goes to whoever claims it last",
    from: "WHERE node_names.owner = EXCLUDED.owner",
    to: "",
    says: /name drill-1/,
  },
];

describe.skipIf(skipped !== undefined)("drills in a scratch database on a real master", () => {
  let box: Box;
  beforeAll(async () => {
    box = await bootMaster("scratch");
  });
  afterAll(() => box?.destroy());

  const ran = async (exitCode: number, ...names: readonly string[]): Promise<Ran["drills"]> => {
    const result = await fulaNode(box, ["drill", "--json", ...names]);
    expectExit(result, exitCode);
    return (JSON.parse(result.stdout) as Ran).drills;
  };
  const databases = () => psql(box, "SELECT datname FROM pg_database WHERE datname LIKE 'fula%drill%'");
  const crons = async () => (await box.exec(["pgrep", "-f", "[s]erve drill-crons"])).stdout.trim();
  const rows = () =>
    psql(
      box,
      "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname IN ('credit_history', 'user_credits', 'pins', 'cron_lease', 'billing_hours', 'deposits', 'bucket_roots', 'node_names') ORDER BY 1",
    );

  test("they pass, leave nothing, and write no row of the real database", async () => {
    const before = await rows();
    const drills = await ran(0, ...SCRATCH);
    expect(drills.map(({ id, state }) => `${id} ${state}`)).toEqual(SCRATCH.map((id) => `${id} passed`));
    console.info(
      drills.map(({ id, durationMs, summary }) => `${id} ${durationMs} ms: ${summary}`).join("\n"),
    );
    expect(await databases()).toBe("");
    expect(await crons()).toBe("");
    expect(await rows()).toBe(before);
  });

  test("Ctrl-C in the middle: exit 26, nothing is left", async () => {
    await box.run(`(node ${PROGRAM} drill D4 >/root/out 2>&1; echo $? >/root/code) & sleep 0`);
    await eventually("its crons run", async () => (await crons()) !== "");
    await box.run(["pkill", "-INT", "-fx", `node ${PROGRAM} drill D4`]);
    await eventually("it has ended", async () => (await box.exec("cat /root/code")).stdout !== "");
    expect((await box.run("cat /root/code")).stdout.trim()).toBe("26");
    expect(await databases()).toBe("");
    expect(await crons()).toBe("");
  });

  test("kill -9 in the middle: its crons end, and the next drill removes the rest and names it", async () => {
    await box.run(`(node ${PROGRAM} drill D4 >/root/out 2>&1) & sleep 0`);
    await eventually("its crons run", async () => (await crons()) !== "");
    await box.run(["pkill", "-9", "-fx", `node ${PROGRAM} drill D4`]);
    await eventually("the crons are gone", async () => (await crons()) === "");
    const [left] = (await databases()).trim().split("\n");
    expect(left).toMatch(/^fula_drill_/);
    const [drill] = await ran(0, "D8");
    expect(drill?.leftovers).toEqual([`the scratch database ${left}`]);
    expect(await databases()).toBe("");
  });

  for (const { id, what, from, to, says } of TWINS)
    test(`${id} fails if ${what}`, async () => {
      await box.run("cp -a /root/package/dist /root/dist-sound");
      const replaced = await box.run(["node", "-e", REPLACE, from, to]);
      expect(replaced.stdout.trim()).toBe("1");
      try {
        const [drill] = await ran(27, id);
        expect(drill?.state).toBe("failed");
        expect(drill?.summary).toMatch(says);
        console.info(`${id}: ${drill?.summary}`);
        expect(await databases()).toBe("");
      } finally {
        await box.run("rm -rf /root/package/dist && mv /root/dist-sound /root/package/dist");
      }
    });
});

/** Replaces a text in all files of the program, and prints in how many. */
const REPLACE = `
  const fs = require("node:fs");
  const [from, to] = process.argv.slice(1);
  let count = 0;
  for (const name of fs.readdirSync("/root/package/dist")) {
    const path = "/root/package/dist/" + name;
    if (!name.endsWith(".js")) continue;
    const text = fs.readFileSync(path, "utf8");
    if (!text.includes(from)) continue;
    fs.writeFileSync(path, text.replaceAll(from, () => to));
    count += 1;
  }
  console.log(count);`;
