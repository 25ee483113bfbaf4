import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { fileReader } from "../../../src/machine/file-reader.ts";
import { openOperatorCommand, type OperatorCommand } from "../../../src/pinset/alert-command.ts";
import { programEnvironment } from "../../../src/machine/run-program.ts";
import {
  type Alarm,
  commandFailure,
  openAlertLog,
  raiseAlarm,
  rotateLog,
} from "../../../src/pinset/alerts.ts";
import { visible, visibleJson } from "../../../src/units.ts";
import { eventually } from "../../support/cluster-real.ts";

let dir: string;

beforeEach(() => {
  // Not below /tmp: others can write to it.
  dir = mkdtempSync(`${process.env["HOME"] ?? "/root"}/fula-alerts-`);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function script(text: string, mode = 0o755): string {
  const path = `${dir}/alert`;
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, mode);
  return path;
}

function command(path: string, deadlineMs = 25_000): OperatorCommand {
  return openOperatorCommand(path, {
    files: fileReader,
    environment: programEnvironment({ SECRET: "x" }),
    deadlineMs,
  });
}

const alarm: Alarm = {
  kind: "under-replicated",
  at: new Date("2026-11-21T20:00:00Z"),
  summary: "node evil\u202e is away",
  counts: { below: 30 },
  worst: Array.from({ length: 30 }, (_, index) => ({ cid: `c${index}` })),
  lines: ["2026-11-21T20:00:00Z a \u001b[2Jb\nforged", "second"],
};

describe("ALERT_COMMAND", () => {
  const raise = (given: OperatorCommand | null) =>
    raiseAlarm(
      { log: openAlertLog(`${dir}/alerts.log`), command: given, source: { host: "box", pool: "lab" } },
      alarm,
    );

  test("gets the alarm as one JSON object on standard input, without a shell's or a caller's environment", async () => {
    const path = script(`cat >${dir}/got; env >${dir}/env`);
    expect(await raise(command(path))).toEqual({ kind: "under-replicated", command: "done", why: null });
    const text = readFileSync(`${dir}/got`, "utf8");
    expect(text).not.toContain("\u202e");
    const got = JSON.parse(text) as { worst: unknown[] };
    expect(got).toMatchObject({
      version: 1,
      kind: "under-replicated",
      at: "2026-11-21T20:00:00.000Z",
      host: "box",
      pool: "lab",
      summary: "node evil\u202e is away",
      counts: { below: 30 },
      log: `${dir}/alerts.log`,
    });
    expect(got.worst).toHaveLength(20);
    expect(readFileSync(`${dir}/env`, "utf8")).not.toContain("SECRET");
  });

  test("that fails is reported with its output, and the alarm is in the log nevertheless", async () => {
    const sent = await raise(command(script("echo no route to host >&2; exit 7")));
    expect(sent).toMatchObject({ command: "failed", why: "it ended with exit code 7: no route to host" });
    expect(commandFailure(sent)).toMatchObject({ exit: "unavailable" });
    expect(await readFile(`${dir}/alerts.log`, "utf8")).toBe(
      "2026-11-21T20:00:00Z a \\u001b[2Jb\\u000aforged\nsecond\n",
    );
    expect(commandFailure(await raise(null))).toBeNull();
  });

  test("is run also if the log cannot be written, and that is an error", async () => {
    const log = openAlertLog(`${dir}/file/alerts.log`);
    writeFileSync(`${dir}/file`, "");
    const channels = {
      log,
      command: command(script(`cat >${dir}/got`)),
      source: { host: "box", pool: "lab" },
    };
    await expect(raiseAlarm(channels, alarm)).rejects.toMatchObject({ exit: "unavailable" });
    expect(readFileSync(`${dir}/got`, "utf8")).toContain("under-replicated");
  });

  test("that hangs is killed with everything that it started", async () => {
    const path = script(`sleep 600 & echo $! >${dir}/child; wait`);
    expect((await command(path, 3_000).run("{}")) ?? "").toContain("did not end within 3 s");
    const child = readFileSync(`${dir}/child`, "utf8").trim();
    await eventually("its child is gone", async () => {
      const state = await readFile(`/proc/${child}/stat`, "utf8").catch(() => null);
      return state === null || state.includes(") Z ");
    });
  });

  test("that leaves a child with its output open is not waited for, and one that reads nothing is no fault", async () => {
    const path = script("sleep 30 & exit 0");
    const before = performance.now();
    expect(await command(path).run("x".repeat(1_000_000))).toBeNull();
    expect(performance.now() - before).toBeLessThan(20_000);
  });

  test.each<[string, () => string, RegExp]>([
    ["is missing", () => `${dir}/absent`, /does not exist/],
    ["is not executable", () => script("", 0o644), /is not executable/],
    ["is a directory", () => dir, /is not a regular file/],
    ["can be written by its group", () => script("", 0o775), /its group can write to .*alert/],
    [
      "is in a directory that others can write to",
      () => {
        const path = script("");
        chmodSync(dir, 0o777);
        return path;
      },
      /every user can write to/,
    ],
    [
      "is a link to a file in such a directory",
      () => {
        mkdirSync(`${dir}/open`);
        chmodSync(`${dir}/open`, 0o777);
        writeFileSync(`${dir}/open/real`, "#!/bin/sh\n", { mode: 0o755 });
        symlinkSync("open/real", `${dir}/link`);
        return `${dir}/link`;
      },
      /every user can write to .*open/,
    ],
    [
      "is a link to itself",
      () => {
        symlinkSync("loop", `${dir}/loop`);
        return `${dir}/loop`;
      },
      /Cannot find out who can change/,
    ],
  ])("is not run if it %s", async (_, make, why) => {
    expect(await command(make()).run("{}")).toMatch(why);
  });

  test("is not run if a part of its path belongs to another user", async () => {
    const path = script("");
    chownSync(dir, 1000, 1000);
    expect(await command(path).run("{}")).toBe(`${dir} belongs to user 1000, not to root`);
  });
});

test("a log is rotated by its size; whoever has it open goes on in the renamed file", async () => {
  const path = `${dir}/sweep.log`;
  await rotateLog(path);
  for (const content of ["first", "second", "third"]) {
    await writeFile(path, content);
    await rotateLog(path, { maxBytes: 4, keep: 2 });
  }
  expect([await readFile(`${path}.1`, "utf8"), await readFile(`${path}.2`, "utf8")]).toEqual([
    "third",
    "second",
  ]);
  await writeFile(path, "abc");
  await rotateLog(path, { maxBytes: 4 });
  expect(await readFile(path, "utf8")).toBe("abc");
});

describe("invisible characters", () => {
  test("are shown as escapes: control, direction, width, separators, half pairs; the rest stays", () => {
    expect(visible("a\u001b[2J\u009b\u202e\u2066\u200b\u2028\ufeff\ud800z")).toBe(
      "a\\u001b[2J\\u009b\\u202e\\u2066\\u200b\\u2028\\ufeff\\ud800z",
    );
    expect(visible("naïve 节点 😀\nnext")).toBe("naïve 节点 😀\nnext");
    expect(visible("one\nline\r", { oneLine: true })).toBe("one\\u000aline\\u000d");
  });

  test("are escaped in JSON, which parses to the same value", () => {
    const value = { name: "a\u009b\u202e\u2028\n\\😀" };
    expect(visible(visibleJson(value))).toBe(visibleJson(value));
    expect(JSON.parse(visibleJson(value))).toEqual(value);
  });
});
