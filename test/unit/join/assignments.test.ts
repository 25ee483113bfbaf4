import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { type AssignmentFlags, readAssignments } from "../../../src/join/assignments.ts";
import { FakeHost } from "../../support/fake-host.ts";

function read(flags: Partial<AssignmentFlags>, options: { host?: FakeHost; stdin?: string } = {}) {
  const { host = new FakeHost(), stdin = "" } = options;
  return readAssignments({ set: [], ...flags }, { host, readStdin: () => Promise.resolve(stdin) });
}

async function refusal(work: () => Promise<unknown>): Promise<OperatorError> {
  try {
    await work();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

/** A box with one file. */
function withFile(text: string, path = "/root/value"): FakeHost {
  const host = new FakeHost();
  host.files.put(path, text, 0o600);
  return host;
}

describe("--set", () => {
  it("is split at the first =, and keeps the value as it is", async () => {
    expect([...(await read({ set: ["A=b=c", "B= x ", "C=", "D=two\nlines", "A=b=c"] }))]).toEqual([
      ["A", "b=c"],
      ["B", " x "],
      ["C", ""],
      ["D", "two\nlines"],
    ]);
  });

  it("lists every invalid flag, and shows no value", async () => {
    const error = await refusal(() => read({ set: ["hush", "=hush", "A=1", "A B=hush", "A=hush"] }));
    expect(error.exit).toBe("usage");
    expect(error.problems.map(({ what }) => what)).toEqual([
      "The first --set is not of the form KEY=VALUE.",
      "The second --set is not of the form KEY=VALUE.",
      "The 4th --set is not of the form KEY=VALUE.",
      "A has two different values in --set.",
    ]);
    expect(JSON.stringify([error, error.message])).not.toContain("hush");
  });
});

describe("--set-file", () => {
  it.each([
    ["as it is", "a secret", "a secret"],
    ["without the last line break", "a secret\n", "a secret"],
    ["without the line break of Windows", "a secret\r\n", "a secret"],
    ["with spaces at its ends", " x \n", " x "],
    ["with all line breaks but one, which its rule then refuses", "x\n\n", "x\n"],
  ])("takes the content %s", async (_, text, value) => {
    const flags = { setFile: ["A=/root/value"] };
    expect([...(await read(flags, { host: withFile(text) }))]).toEqual([["A", value]]);
  });

  it("takes - from standard input, beside files and --set", async () => {
    const flags = { set: ["A=1"], setFile: ["B=-", "C=/root/value"] };
    expect([...(await read(flags, { host: withFile("from-file\n"), stdin: "from-stdin\n" }))]).toEqual([
      ["A", "1"],
      ["B", "from-stdin"],
      ["C", "from-file"],
    ]);
  });

  it.each<[string, Partial<AssignmentFlags>, readonly string[]]>([
    [
      "no KEY=PATH",
      { setFile: ["PASSWORD", "=x", "A="] },
      [
        "The first --set-file is not of the form KEY=PATH.",
        "The second --set-file is not of the form KEY=PATH.",
        "The third --set-file is not of the form KEY=PATH.",
      ],
    ],
    ["a key twice", { setFile: ["A=/x", "A=/x"] }, ["A is given in two --set-file flags."]],
    ["a key by both flags", { set: ["A=1"], setFile: ["A=/x"] }, ["A is given by --set and by --set-file."]],
    [
      "standard input twice",
      { setFile: ["A=-", "B=-"] },
      ["Standard input is read more than once: for A, B."],
    ],
    [
      "standard input for an invite, too",
      { setFile: ["A=-"], invite: "-" },
      ["Standard input is read more than once: for A, --invite."],
    ],
    ["a file that does not exist", { setFile: ["A=/x"] }, ["The file /x for --set-file A does not exist."]],
    [
      "a directory",
      { setFile: ["A=/root"] },
      ["The file /root for --set-file A can't be read: it is a directory."],
    ],
  ])("refuses %s", async (_, flags, problems) => {
    const error = await refusal(() => read(flags, { host: withFile("x") }));
    expect([error.exit, error.problems.map(({ what }) => what)]).toEqual(["usage", problems]);
    for (const { remedy } of error.problems) expect(remedy).toBeTruthy();
  });

  it.each([
    ["is empty", ""],
    ["is empty", "\n"],
    ["is larger than 64 KiB", "x".repeat(65_537)],
    ["is not UTF-8 text", "hush\uFFFD"],
  ])("refuses what %s, from a file and from standard input, and does not show it", async (why, text) => {
    const fromFile = await refusal(() => read({ setFile: ["A=/root/value"] }, { host: withFile(text) }));
    expect(fromFile.problems.map(({ what }) => what)).toEqual([
      `The file /root/value for --set-file A ${why}.`,
    ]);
    const fromStdin = await refusal(() => read({ setFile: ["A=-"] }, { stdin: text }));
    expect(fromStdin.problems.map(({ what }) => what)).toEqual([`Standard input for --set-file A ${why}.`]);
    expect(JSON.stringify([fromFile, fromStdin])).not.toContain("hush");
  });

  it("lists every file that can't be used", async () => {
    const { problems } = await refusal(() => read({ setFile: ["A=/x", "B=/y"] }));
    expect(problems.map(({ subject }) => subject)).toEqual(["A", "B"]);
  });
});
