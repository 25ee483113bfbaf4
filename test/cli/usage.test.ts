import { describe, expect, test } from "vitest";
import { runVerb } from "../support/run-verb.ts";

const HELP = "fula-node COMMAND --help lists the flags of a command, and fula-node --help all commands.";
const flat = (text: string): string => text.replaceAll(/\s+/g, " ").trim();

describe("a wrong command line", () => {
  test.each([
    [
      ["join-as-master", "--bas-dir", "/x"],
      "Unknown option '--bas-dir'.",
      `Did you mean --base-dir? ${HELP}`,
    ],
    [["snapshoot"], "Unknown command 'snapshoot'.", `Did you mean snapshot? ${HELP}`],
    [["snapshot", "verify"], "Missing required argument 'file'.", HELP],
    [
      ["user", "revoke", "abcdef", "--email", "a@example.org"],
      "Required option '--reason <text>' not specified.",
      `Add it, such as --reason "why". ${HELP}`,
    ],
    [["status", "--base-dir"], "Option '--base-dir <dir>' argument missing.", HELP],
    [["status", "x", "y"], "Too many arguments for 'status'. Expected 0 arguments but got 2.", HELP],
  ])("%j has an error in the form of all our errors", async (args, what, remedy) => {
    const { exitCode, stdout, stderr } = await runVerb(args);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(flat(stderr)).toBe(`fula-node: ${what} Do: ${remedy} Changed: nothing. Exit code 2 (usage).`);
    for (const line of stderr.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });

  test("is one JSON object with --json", async () => {
    const { exitCode, stderr } = await runVerb(["status", "--nothing", "--json"]);
    expect(exitCode).toBe(2);
    expect(JSON.parse(stderr)).toMatchObject({
      error: { exit: "usage", exitCode: 2, what: "Unknown option '--nothing'.", remedy: HELP },
    });
  });
});

describe("drill", () => {
  test.each([
    [["nothing"], 'There is no drill "nothing".', "fula-node drill --list shows all drills."],
    [["D22"], 'There is no drill "D22".', "Did you mean D2? fula-node drill --list shows all drills."],
    [
      ["--list", "--schedule"],
      "--schedule and --list exclude each other.",
      "fula-node drill --help explains each of them.",
    ],
    [
      ["--tap", "--json"],
      "--tap and --json exclude each other.",
      "fula-node drill --help explains each of them.",
    ],
    [
      ["--schedule", "D1"],
      "--schedule takes no names: it is about every drill.",
      "fula-node drill --help explains each of them.",
    ],
  ])("%j is refused before anything is looked at", async (args, what, remedy) => {
    const { exitCode, stdout, stderr } = await runVerb(["drill", ...args]);
    expect(exitCode).toBe(2);
    expect(stdout).toBe("");
    const said = args.includes("--json")
      ? (JSON.parse(stderr) as { error: { what: string; remedy: string } }).error
      : null;
    if (said !== null) expect(said).toMatchObject({ what, remedy });
    else expect(flat(stderr)).toBe(`fula-node: ${what} Do: ${remedy} Changed: nothing. Exit code 2 (usage).`);
  });

  test("--list names every drill and what it proves, without a master and without root", async () => {
    const { exitCode, stdout } = await runVerb(["drill", "--list"]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^ {2}D1 +stack-health +\w/m);
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
    const json = await runVerb(["drill", "--list", "migrations", "--json"]);
    expect(JSON.parse(json.stdout)).toMatchObject({
      verb: "drill",
      drills: [{ id: "D2", name: "migrations", isScheduled: true }],
    });
  });
});

test("an error names a page of the docs with its whole path", async () => {
  const { exitCode, stderr } = await runVerb([
    "join-as-master",
    "--dry-run",
    "--set",
    "XYZZY_XYZZY=1",
    "--json",
  ]);
  expect([21, 22]).toContain(exitCode);
  const { problems } = (JSON.parse(stderr) as { error: { problems: { subject: string; remedy: string }[] } })
    .error;
  const [, page] =
    /^See (\S+)\/docs\/settings\.md for all settings\.$/.exec(
      problems.find(({ subject }) => subject === "XYZZY_XYZZY")?.remedy ?? "",
    ) ?? [];
  expect(page).toMatch(/^\//);
});
