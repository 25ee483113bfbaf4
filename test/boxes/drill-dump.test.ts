import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact, PROGRAM } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, psql, readEnv, skipped } from "../support/master-box.ts";

const MARK = "label=land.fx.fula-node.drill";
const RECORD = "/opt/fula-master/state/restore-proof.json";

interface Ran {
  readonly drills: readonly [
    {
      readonly id: string;
      readonly state: string;
      readonly summary: string;
      readonly leftovers: readonly string[];
    },
  ];
}

describe.skipIf(skipped !== undefined)("D9 on a master of its own", () => {
  let box: Box;

  const drill = async (exitCode: number): Promise<Ran["drills"][0]> => {
    const result = await fulaNode(box, ["drill", "D9", "--json"]);
    expectExit(result, exitCode);
    return (JSON.parse(result.stdout) as Ran).drills[0];
  };
  const marked = async (): Promise<string> =>
    (await box.run(`docker ps -aq --filter ${MARK}; docker volume ls -q --filter ${MARK}`)).stdout.trim();
  const status = async (): Promise<string> =>
    (await fulaNode(box, ["status"])).stdout.replaceAll(/\s+/g, " ");

  beforeAll(async () => {
    box = await Box.boot({ name: "drill-dump", image: "docker" });
    await installArtifact(box);
    // Of this major, the server and its programs are of the same in the test bed.
    expectExit(await fulaNode(box, [...FIRST_JOIN, "--set", "POSTGRES_IMAGE=postgres:17-alpine"]), 0);
  });
  afterAll(() => box?.destroy());

  test("passes, leaves nothing, and status shows how old the proof is", async () => {
    const volumes = (await box.run("docker volume ls -q")).stdout;
    expect(await status()).not.toContain("restore proven");
    const text = await fulaNode(box, ["drill", "dump"]);
    expectExit(text, 0);
    expect(text.stdout).toMatch(/passed +D9 +dump: \d+ tables, \d+ rows, a dump of/);
    const { state, summary } = await drill(0);
    expect(state, summary).toBe("passed");
    expect(await marked()).toBe("");
    expect((await box.run("docker volume ls -q")).stdout).toBe(volumes);
    expect((await box.run(["stat", "-c", "%a %U", RECORD])).stdout.trim()).toBe("600 root");
    expect(await status()).toMatch(/ok database .*, restore proven \d+ s ago \(.+ in .+\)/);
    const { POSTGRES_PASSWORD: password = "?" } = await readEnv(box);
    expect(text.stdout + text.stderr + JSON.stringify(await drill(0))).not.toContain(password);
  });

  test("a proof that is old needs attention", async () => {
    await box.run(`sed -i 's/"at":"20[0-9-]*/"at":"2020-01-01/' ${RECORD}`);
    expect(await status()).toMatch(/attention database .*the last restore was proven \d+ days ago/);
    expect((await drill(0)).state).toBe("passed");
  });

  test("a database that can't be restored fails it, with the table, and status says so", async () => {
    for (const statement of UNRESTORABLE) await psql(box, statement);
    const { state, summary } = await drill(27);
    expect(state).toBe("failed");
    expect(summary).toContain('COPY failed for table "depends"');
    expect(await status()).toMatch(/attention drills D9 dump failed/);
    expect(await status()).toContain("restore proven");
    await psql(box, "DROP SCHEMA odd CASCADE");
    await psql(box, "DROP TABLE known");
    expect((await drill(0)).state).toBe("passed");
  });

  test.each([1.5, 3, 5])("killed with -9 after %d s: the next run removes what it left", async (seconds) => {
    await box.exec(`timeout --signal=KILL ${seconds} node ${PROGRAM} drill D9`);
    expect((await drill(0)).state).toBe("passed");
    expect(await marked()).toBe("");
  });

  test("stopped: nothing is left, also in the database", async () => {
    const command = `node ${PROGRAM} drill D9`;
    await box.run(`(setsid ${command} >/root/out 2>&1; echo $? >/root/code) & sleep 0`);
    await eventually("its Postgres is there", async () => (await marked()) !== "");
    await box.run(["pkill", "-TERM", "-fx", command]);
    await eventually("it has ended", async () => (await box.exec("cat /root/code")).stdout.trim() === "26");
    expect(await marked()).toBe("");
    const sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'fula-node d%'";
    await eventually("its sessions are gone", async () => (await psql(box, sessions)) === "0");
  });

  test("the image of our own container is taken, whatever POSTGRES_IMAGE says by now", async () => {
    await box.run("docker tag postgres:17-alpine kept:1 && docker rmi postgres:17-alpine");
    await box.run("sed -i 's/^POSTGRES_IMAGE=.*/POSTGRES_IMAGE=postgres:16-alpine/' /opt/fula-master/.env");
    // Our own container still has its image, by its id.
    expect((await drill(0)).state).toBe("passed");
  });
});

/** A check that looks up another table without its schema holds until a restore, which has an empty search path. */
const UNRESTORABLE = [
  "CREATE SCHEMA odd",
  "CREATE TABLE odd.known (n text)",
  "INSERT INTO odd.known VALUES ('x')",
  "ALTER TABLE odd.known SET SCHEMA public",
  "CREATE FUNCTION odd.is_known(text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM known WHERE n = $1)'",
  "CREATE TABLE odd.depends (n text CHECK (odd.is_known(n)))",
  "INSERT INTO odd.depends VALUES ('x')",
];
