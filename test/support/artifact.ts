import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import type { Box, ExecOptions, ExecResult } from "./box.ts";

/** Where a box has the packed tarball, and the package unpacked from it. */
export const TARBALL = "/root/fula-node.tgz";
export const PROGRAM = "/root/package/bin/fula-node.js";

let packed: Promise<string> | undefined;

/** Packs the package as it would be published, once a process, and gives the tarball's path. */
export function packArtifact(): Promise<string> {
  packed ??= pack();
  return packed;
}

async function pack(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-pack-"));
  process.once("exit", () => void rm(directory, { recursive: true, force: true }));
  await execa("node", ["scripts/build.mjs"]);
  const options = ["--json", "--ignore-scripts", "--pack-destination", directory];
  const { stdout } = await execa("npm", ["pack", ...options]);
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  return join(directory, filename);
}

/** Brings the artifact into a box: the tarball for npx, and unpacked for runs that need no npx. */
export async function installArtifact(box: Box): Promise<void> {
  await box.copyIn(await packArtifact(), TARBALL);
  await box.run(["tar", "-xzf", TARBALL, "-C", "/root"]);
}

/** Runs the unpacked artifact in a box. */
export function fulaNode(box: Box, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  return box.exec(["node", PROGRAM, ...args], options);
}

/** The arguments of a first join, of a new pool, without questions. */
export const FIRST_JOIN = [
  "join-as-master",
  "--yes",
  "--provision-writer",
  "--set",
  "CLUSTERNAME=test-pool",
] as const;
