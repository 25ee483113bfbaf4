import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";

const HOOK = `${import.meta.dirname}/../support/full-disk-hook.cjs`;
const FILES = `${import.meta.dirname}/../../src/machine/file-writer.ts`;
const run = promisify(execFile);

/** What the program does to the files of a machine, one call of each kind. */
const PROGRAM = `
const { files } = await import(${JSON.stringify(FILES)});
const base = process.argv.at(-1);
try {
  await files.writeAtomic(base + "/d/file", "text", { mode: 0o600 });
  await files.append(base + "/d/log.ndjson", "line", { mode: 0o600 });
  await files.link("file", base + "/d/link");
  await files.copyTree(base + "/d", base + "/copy");
} catch (error) {
  console.log(error.what + " " + error.why + " " + error.remedy);
  process.exitCode = 29;
}
`;

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "full-disk-"));
});
afterAll(() => rm(base, { recursive: true, force: true }));

it("each write fails once and in order, its run says so, and leaves nothing half-written", async () => {
  const env = {
    ...process.env,
    NODE_OPTIONS: `--import tsx --require ${HOOK}`,
    // Its cache would be written to, and fail, too.
    TSX_DISABLE_CACHE: "1",
    FULL_DISK: join(base, "record"),
  };
  const target = join(base, "target");
  const args = ["--input-type=module", "-e", PROGRAM, target];
  const words: string[] = [];
  for (;;) {
    expect(words.length).toBeLessThan(60);
    const { code, stdout } = await run(process.execPath, args, { env }).then(
      (done) => ({ code: 0, stdout: done.stdout }),
      (thrown: { code: number; stdout: string }) => thrown,
    );
    if (code === 0) break;
    expect(code, stdout).toBe(29);
    expect(stdout).toContain("no space is left on the device");
    words.push(stdout);
    const left = await readdir(target, { recursive: true }).catch(() => []);
    expect(left.filter((name) => name.includes(".fula-node-tmp"))).toEqual([]);
  }
  const failed = (await readFile(join(base, "record"), "utf8")).trim().split("\n");
  expect(words).toHaveLength(failed.length);
  expect(failed.map((line) => line.replaceAll(target, ""))).toEqual([
    "mkdir /d",
    "open /d/.file.fula-node-tmp",
    "write /d/.file.fula-node-tmp",
    "sync /d/.file.fula-node-tmp",
    "rename /d/file",
    "open /d/log.ndjson",
    "write /d/log.ndjson",
    "sync /d/log.ndjson",
    "symlink /d/.link.fula-node-tmp",
    "rename /d/link",
    "mkdir /.copy.fula-node-tmp",
    "copyFile /.copy.fula-node-tmp/file",
    "sync /.copy.fula-node-tmp/file",
    "symlink /.copy.fula-node-tmp/link",
    "copyFile /.copy.fula-node-tmp/log.ndjson",
    "sync /.copy.fula-node-tmp/log.ndjson",
    "rename /copy",
  ]);
  expect(await readFile(join(target, "copy/link"), "utf8")).toBe("text");
});
