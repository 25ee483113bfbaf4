import { parse } from "dotenv";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type EnvFile,
  findEntry,
  parseEnvFile,
  quoteValue,
  setValues,
} from "../../../src/settings/env-file.ts";
import { anyEnvText, anyValue } from "../../support/env-values.ts";

function read(text: string): EnvFile & { ok: true } {
  const file = parseEnvFile(text);
  if (!file.ok) throw new Error(`line ${file.line}: ${file.what}`);
  return file;
}

function valueOf(text: string, key = "A") {
  return findEntry(read(text), key)?.value;
}

describe("quoteValue", () => {
  it("writes nothing that is read back differently: by us, by dotenv, by dotenv's fast parser", () => {
    fc.assert(
      fc.property(anyValue, fc.constantFrom("\n", "\r\n", "", "  \n", " # note\n"), (value, tail) => {
        const quoted = quoteValue(value);
        if (quoted === null) return;
        const text = `# it's "so"\nA=${quoted}${tail}`;
        expect(valueOf(text)).toEqual({ text: value });
        expect(parse(text)["A"]).toBe(value);
        expect(parse(text, { fast: true })["A"]).toBe(value);
      }),
      { numRuns: 3000 },
    );
  });

  it.each([
    ["", "''"],
    ["plain-1_A/b.c:d@e,f+g=h%i~", "plain-1_A/b.c:d@e,f+g=h%i~"],
    ["pa$$word", "'pa$$word'"],
    ["a # b", "'a # b'"],
    [" edges ", "' edges '"],
    ["tab\there", "'tab\there'"],
    ["C:\\dir", "'C:\\dir'"],
    ["C:\\dir\\", "C:\\dir\\"],
    ["it's #1", '"it\'s #1"'],
    ["it's a `tick`", '"it\'s a `tick`"'],
    ['it\'s \\ and "so"', 'it\'s \\ and "so"'],
    ["\u00FCml\u00E4ut \u{1F511}", "'\u00FCml\u00E4ut \u{1F511}'"],
  ])("writes %j as %j", (value, quoted) => {
    expect(quoteValue(value)).toBe(quoted);
  });

  it.each([
    "two\nlines",
    "two\rlines",
    "two\u2028lines",
    "nul\0byte",
    "half \uD83D an emoji",
    "not UTF-8: \uFFFD",
    "it's $5",
    "it's #1 \\",
    "'quoted' and \"quoted\"",
    "it's \\ \u0085",
    "$ and a backslash \\",
  ])("refuses %j", (value) => {
    expect(quoteValue(value)).toBeNull();
  });

  it("refuses few values that hold no quote and no line break", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (value) => {
        fc.pre(!/['\n\r\u2028\u2029\0\uFFFD]|\\$/.test(value));
        expect(quoteValue(value)).not.toBeNull();
      }),
    );
  });
});

describe("parseEnvFile", () => {
  it("returns no value and no key that dotenv reads differently", () => {
    fc.assert(
      fc.property(anyEnvText, fc.boolean(), (text, fast) => {
        const file = parseEnvFile(text);
        if (!file.ok) return;
        const theirs = parse(text, { fast });
        expect(Object.keys(theirs).sort()).toEqual([...new Set(file.entries.map(({ key }) => key))].sort());
        for (const key of Object.keys(theirs)) {
          const value = findEntry(file, key)?.value;
          if (value !== undefined && "text" in value) expect([key, value.text]).toEqual([key, theirs[key]]);
        }
      }),
      { numRuns: 20_000 },
    );
  });

  it.each([
    ["A=b", "b"],
    ["A = b ", "b"],
    ["\uFEFFA=b", "b"],
    ["export A=b", "b"],
    ["  export\tA=b", "b"],
    ["A=b\r\nC=d\r\n", "b"],
    ["A=old\nA=new\n", "new"],
    ["A=b # note", "b"],
    ["A='b'# note", "b"],
    ["A=b=c", "b=c"],
    ["A=it's", "it's"],
    ["A=", ""],
    ["A=''", ""],
    ["1A=x\n.b-c=y\nA=z", "z"],
  ])("reads %j", (text, value) => {
    expect(valueOf(text)).toEqual({ text: value });
  });

  it.each([
    ["A=b$C", /\$/],
    ['A="b$C"', /double quotes/],
    ['A="b\\n"', /double quotes/],
    ["A='b\\'c'", /single quotes/],
    ["A=b#c", /#/],
    ["A=#c", /#/],
    ["A= # fill this in", /#/],
    ["A=b\t# c", /#/],
    ["A='b\nc'", /lines/],
    ["A=b\u00A0", /whitespace/],
  ])("reads %j as unclear", (text, why) => {
    expect(valueOf(text)).toEqual({ unclear: expect.stringMatching(why) as string });
  });

  it.each([
    ["ok=1\nFOO\nB=2", 2, /not KEY=value/],
    ["ok=1\r\n\r\nFOO: bar", 3, /not KEY=value/],
    ["export FOO", 1, /not KEY=value/],
    ["export =b", 1, /not KEY=value/],
    ["A[0]=b", 1, /not KEY=value/],
    ["A='x\n\nB=2\n", 1, /A can't be read: the quote .* never closed/],
    ["B=1\nA='x' y", 2, /text after/],
    ['\nA="x"y', 2, /text after/],
    ["A='C:\\\\'", 1, /backslash/],
    ["A=`x`", 1, /backtick/],
    ["A=\vb", 1, /whitespace/],
    ["A='1\n2\n3'\nB", 4, /not KEY=value/],
    ["A=1\nB=\0", 2, /NUL/],
    ["A=1\rB=2\n", 1, /carriage return/],
    ["A=1\n# c\u2028B=2\n", 2, /separator/],
    ["\u007FELF\u0002\u0001", 1, /not KEY=value/],
  ])("refuses %j in line %d", (text, line, what) => {
    expect(parseEnvFile(text)).toEqual({ ok: false, line, what: expect.stringMatching(what) as string });
  });

  it("numbers the lines of assignments", () => {
    const { entries } = read("# c\n\nA=1\r\nB='x\ny'\nC=3");
    expect(entries.map(({ key, line }) => [key, line])).toEqual([
      ["A", 3],
      ["B", 4],
      ["C", 6],
    ]);
  });

  /** Code with quadratic time would need many minutes for these. */
  it.each([
    ["short lines", "KEY=value\n".repeat(100_000)],
    ["blanks inside a value", `A=x${" ".repeat(1_000_000)}x\n`],
    ["tabs before a comment", `A=x${" \t".repeat(500_000)}#y\n`],
    ["backslashes", `A='${"\\".repeat(1_000_000)}x'\n`],
    ["open quotes", "A='\n".repeat(100_000)],
  ])("reads a file of megabytes: %s", (_name, text) => {
    expect(parseEnvFile(text)).toBeDefined();
  });
});

describe("setValues", () => {
  it("changes the given values and no other byte", () => {
    fc.assert(
      fc.property(anyEnvText, fc.constantFrom("A", "B", "NEW"), anyValue, (text, key, value) => {
        const file = parseEnvFile(text);
        if (!file.ok || quoteValue(value) === null) return;
        const next = setValues(file, new Map([[key, value]]));
        expect(valueOf(next, key)).toEqual({ text: value });
        expect(othersOf(next, key)).toEqual(othersOf(text, key));
        const entry = findEntry(file, key);
        if (entry === undefined) expect(next.startsWith(text)).toBe(true);
        else {
          expect(next.startsWith(text.slice(0, entry.start))).toBe(true);
          expect(next.endsWith(text.slice(entry.end).replace(/^[ \t]*/, ""))).toBe(true);
        }
        expect(setValues(read(next), new Map([[key, value]]))).toBe(next);
      }),
      { numRuns: 10_000 },
    );
  });

  it("makes every assignment of a released key a comment, and changes no other byte", () => {
    fc.assert(
      fc.property(anyEnvText, fc.subarray(["A", "B"]), fc.boolean(), (text, keys, addsKey) => {
        const file = parseEnvFile(text);
        if (!file.ok) return;
        const released = new Set(keys);
        const next = setValues(file, new Map(addsKey ? [["NEW", "x"]] : []), released);
        for (const key of keys) expect(findEntry(read(next), key)).toBeUndefined();
        expect(othersOf(next, "NEW")).toEqual(
          read(text)
            .entries.filter(({ key }) => !released.has(key) && key !== "NEW")
            .map((entry) => `${entry.key}=${text.slice(entry.start, entry.end)}`),
        );
        // Without the marks of comments, it is the text as it was.
        if (addsKey) return;
        const lines = next.split("\n");
        for (const [index, line] of text.split("\n").entries())
          expect([line, line.startsWith("\uFEFF") ? `\uFEFF# ${line.slice(1)}` : `# ${line}`]).toContain(
            lines[index],
          );
        expect(setValues(read(next), new Map(), released)).toBe(next);
      }),
      { numRuns: 10_000 },
    );
  });

  it("releases every line of a value, and each earlier assignment", () => {
    const text = "\uFEFFA=1\r\nB=2\n export A='two\nlines' # why\nA=3";
    expect(setValues(read(text), new Map(), new Set(["A"]))).toBe(
      "\uFEFF# A=1\r\nB=2\n#  export A='two\n# lines' # why\n# A=3",
    );
  });

  it("keeps comments, order, unknown keys, line ends and the byte order mark", () => {
    const text =
      "\uFEFF# head\r\nMINE='multi\r\nline'\r\nexport A = old # why\r\n\r\nA2=x\r\nB=1\r\nB=\"2\"\t# last\r\n# tail";
    expect(
      setValues(
        read(text),
        new Map([
          ["C", "new"],
          ["B", "$3"],
          ["A", "it's"],
        ]),
      ),
    ).toBe(
      "\uFEFF# head\r\nMINE='multi\r\nline'\r\nexport A = \"it's\" # why\r\n\r\nA2=x\r\nB=1\r\nB='$3' # last\r\n# tail\r\nC=new\r\n",
    );
  });

  it("keeps a comment in the place of the value", () => {
    expect(setValues(read("A=   # fill this in\n"), new Map([["A", "x"]]))).toBe("A=   x # fill this in\n");
  });

  it("replaces the whole of a value that a # may belong to", () => {
    expect(setValues(read("A=pass#word\n"), new Map([["A", "x"]]))).toBe("A=x\n");
  });

  it("throws for a value that can't be written, without showing it", () => {
    expect(() => setValues(read(""), new Map([["A", "hush'$"]]))).toThrow(
      /^the value of A can't be written to a \.env file$/,
    );
  });
});

/** Every assignment of another key, as it stands. */
function othersOf(text: string, key: string): readonly string[] {
  return read(text)
    .entries.filter((entry) => entry.key !== key)
    .map((entry) => `${entry.key}=${text.slice(entry.start, entry.end)}`);
}
