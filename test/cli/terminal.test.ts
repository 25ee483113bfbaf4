import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const ESCAPE = "\u001B";

/** The package as it would be published. */
let artifact: string;
beforeAll(() => {
  artifact = mkdtempSync(join(tmpdir(), "fula-terminal-"));
  execFileSync("node", ["scripts/build.mjs", join(artifact, "dist")], { cwd: root });
  for (const entry of ["package.json", "bin", "compose", "migrations"])
    cpSync(join(root, entry), join(artifact, entry), { recursive: true });
});
afterAll(() => rmSync(artifact, { recursive: true }));

/** Runs the program on a terminal of that many columns (script(1) of util-linux), and returns all that it shows. */
function onTerminal(
  columns: number,
  args: string,
  environment: Readonly<Record<string, string>> = {},
): string {
  const { stdout } = spawnSync(
    "script",
    ["-qec", `stty cols ${columns} rows 24; node ${artifact}/bin/fula-node.js ${args}`, "/dev/null"],
    { encoding: "utf8", input: "", env: { PATH: process.env["PATH"] ?? "", TERM: "xterm", ...environment } },
  );
  return stdout.replaceAll("\r\n", "\n");
}

const BASE = "--base-dir /nonexistent/fula-node-of-a-test";

describe.each([40, 60])("a terminal of %i columns", (columns) => {
  it.each([
    "--help",
    "help snapshot take",
    "drill --list",
    `status ${BASE}`,
    `snapshot list ${BASE}`,
    "nothing",
  ])("%s: no line is wider, where words can wrap", (args) => {
    const lines = onTerminal(columns, args).split("\n");
    const wide = lines.filter((line) => line.length > columns && line.trim().includes(" "));
    const isCommand = (line: string) =>
      /fula-node [a-z-]+|^ {2}(?:-\w, )?[\w-]+(?: \[options\])?(?: [<[][^>\]]*[>\]])*$/.test(line);
    expect(wide.filter((line) => !isCommand(line))).toEqual([]);
    expect(lines.join("").length).toBeGreaterThan(50);
  });
});

describe("escape codes", () => {
  const commands = ["--help", "drill --list", `status ${BASE}`, `leave --dry-run ${BASE}`, "nothing"];
  it.each([
    ["with NO_COLOR", { NO_COLOR: "1" }],
    ["on a terminal that can't", { TERM: "dumb" }],
  ])("there are none %s", (_name, environment) => {
    for (const args of commands) expect(onTerminal(80, args, environment)).not.toContain(ESCAPE);
  });

  it("there are none without a terminal", () => {
    for (const args of commands) {
      const { stdout, stderr } = spawnSync("node", [`${artifact}/bin/fula-node.js`, ...args.split(" ")], {
        encoding: "utf8",
        env: { PATH: process.env["PATH"] ?? "", TERM: "xterm", FORCE_COLOR: "1" },
      });
      expect(stdout + stderr).not.toContain(ESCAPE);
    }
  });
});
