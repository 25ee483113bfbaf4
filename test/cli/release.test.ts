import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { installRelease010, PROGRAM_010, release010, TARBALL_010 } from "../support/artifact.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "fula-node-release-"));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

describe("release 0.1.0, kept to upgrade from", () => {
  it("is the file that its sha256 names, and no other", async () => {
    const path = await release010();
    expect(basename(path)).toBe("fula-node-0.1.0.tgz");
    await cp(join(path, ".."), directory, { recursive: true });
    const copy = await release010(directory);
    const bytes = await readFile(copy);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    await writeFile(copy, bytes);
    await expect(release010(directory)).rejects.toThrow(/SHA256SUMS says [0-9a-f]{64}\.$/);
    await writeFile(join(directory, "SHA256SUMS"), "");
    await expect(release010(directory)).rejects.toThrow("SHA256SUMS says nothing about it");
  });

  it("is unpacked beside the artifact, and runs as 0.1.0", async () => {
    const here = (path: string) => path.replace(/^\/root(?=\/)/, join(directory, "root"));
    await mkdir(here("/root/"));
    await installRelease010({
      copyIn: (from, to) => cp(from, here(to)),
      run: async (command) => {
        const [program = "", ...args] = typeof command === "string" ? ["sh", "-c", command] : command;
        const { stdout, stderr } = await execa(program, args.map(here));
        return { exitCode: 0, stdout, stderr };
      },
    });
    expect(await readFile(here(TARBALL_010))).toEqual(await readFile(await release010()));
    const { stdout, stderr } = await execa("node", [here(PROGRAM_010), "--version"]);
    expect({ stdout, stderr }).toEqual({ stdout: "0.1.0", stderr: "" });
  });
});
