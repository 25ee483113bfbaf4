import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openText } from "../../src/accounts/api-key.ts";
import { fulaNode } from "../support/artifact.ts";
import type { Box, ExecResult } from "../support/box.ts";
import { KILL_HOOK, killedAt, lastJournalLine } from "../support/kill-boxes.ts";
import {
  ALL_HEALTHY,
  bootMaster,
  expectExit,
  health,
  psql,
  readEnv,
  rejoin,
  skipped,
  stderrOf,
  watch,
} from "../support/master-box.ts";

const RECORD = "/opt/fula-master/rotation.json";
const JOURNAL = "/opt/fula-master/journal.ndjson";

/** Writes the arguments of every child to a file. */
const ARGV_HOOK = `
const childProcess = require("node:child_process");
const { spawn } = childProcess;
childProcess.spawn = (file, args, ...rest) => {
  require("node:fs").appendFileSync("/root/started", JSON.stringify([file, args]) + "\\n");
  return spawn.call(childProcess, file, args, ...rest);
};
require("node:module").syncBuiltinESMExports();
`;

describe.skipIf(skipped !== undefined)("secret rotate on a master", () => {
  let box: Box;
  /** Every value that a secret has had. */
  const seen = new Set<string>();

  const rotate = (name: string, moment?: string): Promise<ExecResult> =>
    fulaNode(box, ["secret", "rotate", name, "--yes"], moment === undefined ? {} : killedAt(moment));
  const remember = async () => {
    const env = await readEnv(box);
    for (const key of ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"])
      seen.add(env[key] ?? "");
    const pem = await box.readFile("/opt/fula-master/snapshot-ed25519.pem");
    seen.add(pem.split("\n")[1] ?? "");
    return env;
  };
  const modeOf = async (path: string): Promise<string> =>
    (await box.run(["stat", "-c", "%a %U", path])).stdout;
  const issueKey = async (): Promise<string> => {
    const issued = await fulaNode(box, ["user", "token", "--email", "a@example.org"]);
    expectExit(issued, 0);
    return issued.stdout.trim();
  };
  const answerTo = async (key: string): Promise<string> => {
    const curl = `curl -s -o /dev/null -w '%{http_code}' -H @- http://127.0.0.1:3001/api/v1/storage`;
    return (await box.run(curl, { input: `Authorization: Bearer ${key}\n` })).stdout;
  };
  const expectWhole = async (): Promise<void> => {
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expectExit(await rejoin(box, ["--dry-run"]), 0);
    expect((await box.exec(["test", "-e", RECORD])).exitCode).toBe(1);
  };

  beforeAll(async () => {
    box = await bootMaster("secrets");
    await box.copyIn(`${import.meta.dirname}/../support/kill-hook.cjs`, KILL_HOOK);
    expectExit(await fulaNode(box, ["user", "create", "--email", "a@example.org"]), 0);
    await remember();
  });
  afterAll(() => box?.destroy());

  test("the database's password: killed when the database has the new one and .env the old one, its container removed, then finished", async () => {
    const old = await readEnv(box);
    expectExit(await rotate("database-password", "answer|ALTER ROLE"), 137);
    expect(await lastJournalLine(box)).toMatchObject({
      phase: "intent",
      change: { kind: "change-role-password" },
    });
    expect(await readEnv(box)).toEqual(old);
    expect(await modeOf(RECORD)).toBe("600 root");
    // The kill landed: the password in .env does not open the database any more.
    const status = await fulaNode(box, ["migrate", "status"]);
    expectExit(status, 21);
    expect(stderrOf(status)).toContain("refuses user");
    const record = JSON.parse(await box.readFile(RECORD)) as { previous: string; next: string };
    expect(record.previous).toBe(old["POSTGRES_PASSWORD"]);
    const join = await rejoin(box);
    expectExit(join, 22);
    expect(stderrOf(join)).toContain("fula-node secret rotate database-password");
    const other = await rotate("system-key");
    expectExit(other, 22);

    // Somebody tidies up meanwhile: the run that finishes the change makes the container again.
    await box.run("docker rm -f postgres-pinning");
    expectExit(await rotate("database-password"), 0);
    expect((await remember())["POSTGRES_PASSWORD"]).toBe(record.next);
    expectExit(await fulaNode(box, ["migrate", "status"]), 0);
    await expectWhole();
  });

  test("ENCRYPTION_KEY: killed when the storage API is stopped, then finished; every row opens with the new key", async () => {
    const key = await issueKey();
    const old = (await readEnv(box))["ENCRYPTION_KEY"] ?? "";
    expectExit(await rotate("encryption-key", "journal|done|2"), 137);
    expect(await health(box)).not.toHaveProperty("fula-pinning-webui");
    expectExit(await rotate("encryption-key"), 0);
    const renewed = (await remember())["ENCRYPTION_KEY"] ?? "";
    expect(renewed).not.toBe(old);
    const sealed = await psql(box, "SELECT encrypted_email FROM webui_users");
    expect([openText(sealed, old), openText(sealed, renewed)]).toEqual([null, "a@example.org"]);
    const sealedKey = await psql(box, "SELECT encrypted_key FROM api_keys");
    expect(openText(sealedKey, renewed)).toBe(key);
    expect(await answerTo(key)).toBe("200");
    await expectWhole();
  });

  test("SYSTEM_KEY and SESSION_SECRET: API keys keep working; no program gets a secret as an argument", async () => {
    const key = await issueKey();
    await box.writeFile("/root/argv-hook.cjs", ARGV_HOOK);
    const env = { NODE_OPTIONS: "--require /root/argv-hook.cjs" };
    expectExit(await fulaNode(box, ["secret", "rotate", "system-key", "--yes"], { env }), 0);
    await remember();
    const started = await box.readFile("/root/started");
    expect(started).toContain("compose");
    for (const value of seen) expect(started.includes(value)).toBe(false);
    expectExit(await rotate("SESSION_SECRET"), 0);
    await remember();
    expect(await answerTo(key)).toBe("200");
    await expectWhole();
  });

  test("JWT_SECRET: an API key from before is refused, and a new one works", async () => {
    const key = await issueKey();
    expect(await answerTo(key)).toBe("200");
    const dry = await fulaNode(box, ["secret", "rotate", "jwt-secret", "--dry-run"]);
    expectExit(dry, 20);
    expect(dry.stdout.replaceAll(/\s+/g, " ")).toContain("Every API key stops working");
    expect(await answerTo(key)).toBe("200");
    expectExit(await rotate("jwt-secret"), 0);
    await remember();
    expect(await answerTo(key)).toBe("401");
    expect(await answerTo(await issueKey())).toBe("200");
    await expectWhole();
  });

  test("the snapshot key: killed when the old key has named the new one, then finished without an alarm", async () => {
    expectExit(await rotate("snapshot-key", "journal|done|2"), 137);
    // Cron may come in between: the old key still signs.
    expectExit(await fulaNode(box, ["snapshot", "take"]), 0);
    expectExit(await rotate("snapshot-key"), 0);
    await remember();
    expect(await modeOf("/opt/fula-master/snapshot-ed25519.pem")).toBe("600 root");
    expectExit(await fulaNode(box, ["snapshot", "take"]), 0);
    const list = await fulaNode(box, ["snapshot", "list", "--json"]);
    expectExit(list, 0);
    const { snapshots } = JSON.parse(list.stdout) as { snapshots: { order: string; restarted: boolean }[] };
    expect(snapshots.map(({ order, restarted }) => [order, restarted])).toEqual([
      ["first", false],
      ...Array.from({ length: snapshots.length - 1 }, () => ["linked", false]),
    ]);
    expect(snapshots.length).toBe(4);
    expect((await box.exec(["test", "-s", "/opt/fula-master/replication-alerts.log"])).exitCode).toBe(1);
    await expectWhole();
  });

  test("afterwards a join changes nothing, status has nothing to add, and no secret is in the journal or in a label", async () => {
    const before = await watch(box);
    expectExit(await rejoin(box), 0);
    expect(await watch(box)).toEqual(before);
    expectExit(await fulaNode(box, ["status"]), 0);
    const journal = await box.readFile(JOURNAL);
    const labels = await box.run("docker ps -aq | xargs docker inspect --format '{{json .Config.Labels}}'");
    expect(seen.size).toBeGreaterThanOrEqual(12);
    for (const value of seen) {
      expect(value).not.toBe("");
      expect(journal.includes(value)).toBe(false);
      expect(labels.stdout.includes(value)).toBe(false);
    }
  });
});
