import { PassThrough } from "node:stream";
import { afterEach, describe, expect, it } from "vitest";
import { EXIT_CODES, OperatorError } from "../../../src/errors.ts";
import { describeProgram } from "../../../src/program.ts";
import { describeCommand, flatten } from "../../../src/shell/command-line.ts";
import { createWorld } from "../../../src/world.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { errorLines, fitTo, fold, planLines, table, widthFor, wrap } from "../../../src/ui/text.ts";
import { REALISTIC_PLAN } from "../../support/ui-samples.ts";

afterEach(() => fitTo(undefined));

/** The lines that are wider than the screen although they could break. A command and a long word can't. */
function tooWide(lines: readonly string[], columns: number): readonly string[] {
  return lines.filter((line) => {
    const words = line.trim().split(" ");
    return line.length > columns && words.length > 1 && !/^(?:fula-node|node|`|Usage:)/.test(words[0] ?? "");
  });
}

const ERROR = new OperatorError({
  exit: "preflight",
  what: "3 problems prevent this run, and this is the sentence that says so.",
  why: "Each of them was found before the first change, and all are listed below.",
  remedy: "Run `journalctl -u docker --since yesterday -n 50` and look at what it says, then run again.",
  problems: [
    {
      subject: "ports",
      what: "Port 5432 is used by another program.",
      remedy: "Or use --set POSTGRES_PORT=PORT.",
    },
    {
      subject: "disk",
      what: "/var/lib/docker has 1 GiB free, and 5 GiB are needed.",
      remedy: "Free some space.",
    },
  ],
});

describe.each([40, 60])("on a terminal of %i columns", (columns) => {
  it("the plan, errors, tables and sentences fit where words can wrap", () => {
    fitTo(columns);
    const lines = [
      ...planLines(REALISTIC_PLAN),
      ...errorLines(ERROR, EXIT_CODES.preflight),
      ...table([
        ["ok", "docker", "it answers, version 26.1.5, and Compose 2.26.1 is there"],
        ["attention", "replication", "3 pins have fewer copies than they should have: run a sweep"],
      ]),
      ...table([["snapshot-20260101T000000Z", "verified", "chain complete", "6 hours old"]]),
      ...wrap("A sentence that is longer than any of the terminals here, so that it must be broken."),
    ];
    expect(tooWide(lines, columns)).toEqual([]);
    expect(lines.some((line) => line.length > 30)).toBe(true);
  });

  it("lines that no caller has wrapped are broken, and commands stay whole", () => {
    const printed: string[] = [];
    fitTo(columns);
    const out = (line: string): void => void printed.push(line);
    const reporter = createLines({ out, err: out }, () => 0);
    reporter.note(
      "fula-node 0.5.0 · join-as-master · /opt/fula-master (not installed yet, and nothing is there)",
    );
    const command = "fula-node invite revoke 0123456789abcdef --base-dir /srv/fula-master --json";
    reporter.result({
      data: {},
      lines: [`To revoke it:    ${command}`, "A long result of a verb that is one line, in words."],
    });
    expect(printed).toContain(`To revoke it:    ${command}`);
    expect(
      tooWide(
        printed.filter((line) => !line.includes(command)),
        columns,
      ),
    ).toEqual([]);
    expect(printed.join(" ")).toContain("in words.");
  });

  it("the help of every command fits", () => {
    const narrow = describeProgram("0", () => Promise.resolve(), columns);
    const texts = flatten(describeCommand(narrow)).map(({ path }) => {
      const words = path === "" ? [] : path.split(" ");
      const command = words.reduce(
        (at, word) => at.commands.find((one) => one.name() === word) ?? at,
        narrow,
      );
      return command.helpInformation();
    });
    const lines = texts.join("\n").split("\n");
    // The names of flags and commands stay in one piece; what they do stands below them.
    const isName = (line: string) =>
      /^ {2}(?:-\w, )?[\w-]+(?: \[options\])?(?: [<[][^>\]]*[>\]])*$/.test(line);
    expect(tooWide(lines, columns).filter((line) => !isName(line))).toEqual([]);
  });

  it("the help shows no default that is nothing", () => {
    const help = describeProgram("0", () => Promise.resolve(), columns);
    const texts = help.commands.map((command) => command.helpInformation().replaceAll(/\s+/g, " "));
    expect(texts.filter((text) => /default: (?:\[\]|false)/.test(text))).toEqual([]);
    expect(texts.join(" ")).toContain("(default: /opt/fula-master)");
  });

  it("a command between backticks, or a cell that is a command, is never broken", () => {
    fitTo(columns);
    const command = "fula-node invite create --name NAME --storage-api-url URL --base-dir /srv/fula";
    expect(table([["Let others join:", command]]).join("\n")).toContain(command);
    expect(wrap(`Look at it: \`${command}\`, then run again.`).join("\n")).toContain(command);
  });
});

it("a wide terminal, none, and one that does not know its size have lines of 80", () => {
  expect([200, 80, 79, 40, 10, 0, undefined].map(widthFor)).toEqual([80, 80, 79, 40, 80, 80, 80]);
  expect(fold("word ".repeat(40))).toEqual(["word ".repeat(40)]);
});

describe("escape codes on a terminal", () => {
  /** What a progress that is replaced, and a question, write. */
  async function written(env: Readonly<Record<string, string>>): Promise<string> {
    let text = "";
    const terminal = () => {
      const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 80, setRawMode: () => {} });
      stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
      return stream;
    };
    const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => {} });
    const double = { env, stdin, stdout: terminal(), stderr: terminal(), execPath: "/node", pid: 1 };
    const options = { json: false, stop: new AbortController().signal };
    const { reporter, questions } = await createWorld(double as unknown as NodeJS.Process, "0", options);
    reporter.progress("one");
    reporter.progress("two");
    const answer = questions?.confirm("Go on?", false);
    stdin.write("y\n");
    expect(await answer).toBe(true);
    expect(text).toContain("Go on?");
    return text;
  }

  it.each([{ NO_COLOR: "1", TERM: "xterm" }, { TERM: "dumb" }])("with %j there are none", async (env) => {
    expect(await written(env)).not.toContain("\u001B");
  });

  it("otherwise, what is replaced is drawn; an empty NO_COLOR says nothing", async () => {
    expect(await written({ NO_COLOR: "", TERM: "xterm" })).toContain("\u001B");
  });
});
