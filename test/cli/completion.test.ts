import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { EXIT_CODES } from "../../src/errors.ts";
import { describeProgram } from "../../src/program.ts";
import { describeCommand, flatten, type Node } from "../../src/shell/command-line.ts";
import { DOLLAR, namesOf } from "../../src/shell/completion-words.ts";
import { runVerb } from "../support/run-verb.ts";

const program = describeCommand(describeProgram(manifest.version, () => Promise.resolve()));
const nodes = flatten(program);
const directory = mkdtempSync(join(tmpdir(), "fula-node-completion-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const script = (shell: string): string => join(directory, shell);
const has = (shell: string): boolean => spawnSync(shell, ["--version"]).status === 0;

beforeAll(async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { exitCode, stdout } = await runVerb(["completion", shell]);
    expect(exitCode).toBe(0);
    writeFileSync(script(shell), stdout);
  }
  writeFileSync(join(directory, "images.tar"), "");
});

const lines = (text: string): readonly string[] => text.split("\n").filter((line) => line !== "");

/** The programs that ask a shell for the completions of words; the last word is the one that is being typed. */
const ASK = {
  // As bash splits: --flag=value is three words, and @file two.
  bash: (words: readonly string[]) => {
    const split = words.flatMap((word) => word.split(/([=@])/).filter((part) => part !== ""));
    const typed = words.at(-1) === "" ? [...split, ""] : split;
    return execFileSync(
      "bash",
      [
        "--norc",
        "-c",
        `source ${script("bash")}; COMP_WORDS=(fula-node "$@"); COMP_CWORD=$#; _fula_node; printf '%s\\n' "${DOLLAR}{COMPREPLY[@]}"`,
        "bash",
        ...typed,
      ],
      { cwd: directory, encoding: "utf8" },
    );
  },
  // What the script calls of zsh's own completion prints what it is given.
  zsh: (words: readonly string[]) =>
    execFileSync(
      "zsh",
      [
        "-f",
        "-c",
        `compdef() { : }; compset() { cur=${DOLLAR}{cur#*=} }
         _describe() { local name=${DOLLAR}{@[-1]}; print -rl -- ${DOLLAR}{(@)${DOLLAR}{(P)name}%%:*} }
         compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -rl -- "$@" }
         _files() { [[ $1 == -/ ]] && print DIRECTORIES || print -rl -- * }
         source ${script("zsh")}; words=(fula-node "$@"); CURRENT=$#words; _fula_node`,
        "zsh",
        ...words,
      ],
      { cwd: directory, encoding: "utf8" },
    ),
  fish: (words: readonly string[]) =>
    execFileSync(
      "fish",
      [
        "--no-config",
        "-c",
        `source ${script("fish")}; complete -C "$argv"`,
        ["fula-node", ...words].join(" "),
      ],
      { cwd: directory, encoding: "utf8", env: { ...process.env, HOME: directory } },
    ),
} as const;

type Shell = keyof typeof ASK;

/** The words that a shell offers, without their descriptions; bash and fish leave out those that do not fit. */
function offers(shell: Shell, ...words: readonly string[]): readonly string[] {
  const current = words.at(-1) ?? "";
  const typed = /^--[^=]+=/.exec(current)?.[0] ?? "";
  return lines(ASK[shell](words))
    .map((line) => line.split("\t")[0] ?? "")
    .map((word) => (shell === "fish" && word.startsWith(typed) ? word.slice(typed.length) : word))
    .filter((word) => word.startsWith(current.slice(typed.length)))
    .sort();
}

describe.each(["bash", "zsh", "fish"] as const)("completion of %s", (shell) => {
  const isHere = has(shell);
  if (!isHere) console.warn(`skipped: ${shell} is not on this machine`);

  it.skipIf(!isHere)("has no error of syntax", () => {
    expect(spawnSync(shell, ["-n", script(shell)], { encoding: "utf8" })).toMatchObject({
      status: 0,
      stderr: "",
    });
  });

  it.skipIf(!isHere)("offers commands, groups and what is in them", () => {
    expect(offers(shell, "")).toEqual(program.commands.map(({ path }) => path).sort());
    expect(offers(shell, "sna")).toEqual(["snapshot"]);
    expect(offers(shell, "snapshot", "")).toEqual(["diff", "list", "restore", "take", "verify"]);
    expect(offers(shell, "--json", "snapshot", "t")).toEqual(["take"]);
  });

  it.skipIf(!isHere)("offers the flags of the command, and no others", () => {
    expect(offers(shell, "snapshot", "diff", "--l")).toEqual(["--limit"]);
    expect(offers(shell, "snapshot", "take", "--l")).toEqual([]);
    expect(offers(shell, "join-as-master", "--yes", "--imag")).toEqual(["--images"]);
  });

  it.skipIf(!isHere)("offers the values of flags and arguments", () => {
    expect(offers(shell, "images", "save", "x.tar", "--for", "")).toEqual(["master", "storage-node"]);
    expect(offers(shell, "images", "save", "--arch=a")).toEqual(["amd64", "arm64"]);
    expect(offers(shell, "completion", "")).toEqual(["bash", "fish", "zsh"]);
    expect(offers(shell, "secret", "rotate", "j")).toEqual(["jwt-secret"]);
    expect(offers(shell, "join-as-storage-node", "--set", "INGEST_P")).toEqual(["INGEST_PORT="]);
    expect(offers(shell, "join-as-master", "--set=BACKUP_D")).toEqual(["BACKUP_DIR="]);
    expect(offers(shell, "join-as-master", "--ignore", "old")).toEqual(["old-master"]);
    expect(offers(shell, "join-as-storage-node", "--ignore", "old")).toEqual([]);
    expect(offers(shell, "leave", "--purge", "s")).toEqual(["settings", "snapshots"]);
    expect(offers(shell, "logs", "kubo", "in")).toEqual(["ingest"]);
  });

  it.skipIf(!isHere)("offers files where a file belongs, and nothing where anything can stand", () => {
    expect(offers(shell, "join-as-master", "--images", "im")).toEqual(["images.tar"]);
    expect(offers(shell, "snapshot", "verify", "im")).toEqual(["images.tar"]);
    expect(offers(shell, "join-as-master", "--fingerprint", "im")).toEqual([]);
    expect(offers(shell, "status", "im")).toEqual([]);
  });

  it.skipIf(!isHere)("offers what opens a backup, and a path after its key", () => {
    expect(offers(shell, "backup", "create", "--set-file", "BACKUP_P")).toEqual(["BACKUP_PASSPHRASE="]);
    expect(offers(shell, "backup", "unpack", "x.age", "--set-file", "BACKUP_I")).toEqual([
      "BACKUP_IDENTITY=",
    ]);
    expect(offers(shell, "join-as-master", "--set-file", "BACKUP_P")).toEqual(["BACKUP_PASSPHRASE="]);
    const isPath = (...words: readonly string[]) =>
      lines(ASK[shell](words)).some((line) => line.endsWith("images.tar"));
    for (const typed of ["", "im"]) {
      expect(isPath("backup", "create", "--set-file", `BACKUP_PASSPHRASE=${typed}`)).toBe(true);
      expect(isPath("join-as-master", "--yes", "--set-file", `JWT_SECRET=${typed}`)).toBe(true);
      expect(isPath("join-as-master", "--set", `JWT_SECRET=${typed}`)).toBe(false);
      // fish has no files behind an @.
      if (shell !== "fish") expect(isPath("join-as-storage-node", "--invite", `@${typed}`)).toBe(true);
    }
    // What comes after a value is no part of it.
    expect(offers(shell, "join-as-master", "--set", "PUBLIC_HOST=x", "--imag")).toEqual(["--images"]);
    expect(offers(shell, "join-as-master", "--set-file", "JWT_SECRET=x", "--set", "BACKUP_D")).toEqual([
      "BACKUP_DIR=",
    ]);
    expect(offers(shell, "join-as-storage-node", "--invite", "@x", "--fing")).toEqual(["--fingerprint"]);
  });

  it.skipIf(!isHere)("takes the value of a flag for no command", () => {
    expect(offers(shell, "snapshot", "list", "--dir", "take", "--d")).toEqual(["--dir"]);
    expect(offers(shell, "node", "keep", "list", "--n")).toEqual(["--name"]);
  });
});

it("bash offers every command and every flag of the program, asked for each", () => {
  const asked = nodes.flatMap(({ path }) => [`${path} `, `${path} --`]);
  const loop = `source ${script("bash")}
    while IFS= read -r line; do
      COMP_WORDS=(fula-node $line); [[ $line == *" " || -z $line ]] && COMP_WORDS+=("")
      COMP_CWORD=$((${DOLLAR}{#COMP_WORDS[@]} - 1)); _fula_node; printf '%s\\n' "${DOLLAR}{COMPREPLY[*]}"
    done`;
  const input = asked.map((line) => `${line.trimStart()}\n`).join("");
  const found = execFileSync("bash", ["--norc", "-c", loop], { input, encoding: "utf8" }).split("\n");
  for (const [index, node] of nodes.entries()) {
    const [words, flags] = [found[2 * index] ?? "", found[2 * index + 1] ?? ""];
    if (node.commands.length > 0)
      expect(words.split(" ").sort(), node.path).toEqual(
        node.commands.map(({ path }) => path.split(" ").at(-1) ?? "").sort(),
      );
    const long = node.flags.flatMap(namesOf).filter((name) => name.startsWith("--"));
    expect(flags.split(" ").sort(), node.path).toEqual([...long].sort());
  }
  expect(nodes.length).toBeGreaterThan(40);
});

test("an unknown shell is refused", async () => {
  const { exitCode, stderr } = await runVerb(["completion", "tcsh"]);
  expect(exitCode).toBe(2);
  expect(stderr.replaceAll(/\s+/g, " ")).toContain("Allowed choices are bash, zsh, fish");
});

describe("help --json", () => {
  const read = async (...args: readonly string[]) =>
    JSON.parse((await runVerb(["help", ...args, "--json"])).stdout) as Node & {
      readonly program: string;
      readonly exitCodes: readonly { readonly code: number; readonly name: string }[];
    };

  it("is the whole command line as one object: commands, arguments, flags, defaults, exit codes", async () => {
    const found = await read();
    expect(found).toMatchObject({ ...program, program: "fula-node" });
    expect(Object.fromEntries(found.exitCodes.map(({ name, code }) => [name, code]))).toEqual(EXIT_CODES);
    const save = flatten(found).find(({ path }) => path === "images save");
    expect(save?.arguments).toMatchObject([{ name: "file", required: true, repeatable: false }]);
    expect(save?.flags.find(({ long }) => long === "--for")).toMatchObject({
      value: { name: "kind", choices: ["master", "storage-node"] },
      byDefault: null,
    });
    const diff = flatten(found).find(({ path }) => path === "snapshot diff");
    expect(diff?.flags.find(({ long }) => long === "--limit")).toMatchObject({ byDefault: "20" });
    expect(diff?.flags.find(({ long }) => long === "--key")).toMatchObject({ isRepeatable: true });
  });

  it("has no command that --help does not show", async () => {
    expect(flatten(await read()).map(({ path }) => path)).not.toContain("serve drill-crons");
  });

  it("is about one command if it is named", async () => {
    expect((await read("snapshot", "take")).path).toBe("snapshot take");
    const { exitCode, stderr } = await runVerb(["help", "snapshoot", "--json"]);
    expect(exitCode).toBe(2);
    expect(JSON.parse(stderr)).toMatchObject({ error: { what: 'There is no command "snapshoot".' } });
  });
});
