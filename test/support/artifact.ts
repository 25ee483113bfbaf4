import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdtemp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import manifest from "../../package.json" with { type: "json" };
import { bedScratch } from "./bed.ts";
import type { Box, ExecOptions, ExecResult } from "./box.ts";

/** Where a box has the packed tarball, and the package unpacked from it. */
export const TARBALL = "/root/fula-node.tgz";
export const PROGRAM = "/root/package/bin/fula-node.js";

/** The service image that a join with the artifact builds. */
export const SERVICE_IMAGE = `fula-node:${manifest.version}`;

/** The environment variable with the path of a tarball that is packed already (test/support/pack.ts). */
export const PACKED = "FULA_NODE_TEST_TARBALL";

let packed: Promise<string> | undefined;

/** Packs the package as for publishing, once per run, and returns the tarball's path. */
export async function packArtifact(): Promise<string> {
  const there = process.env[PACKED];
  if (there !== undefined) return there;
  packed ??= pack();
  return await packed;
}

async function pack(): Promise<string> {
  const directory = await mkdtemp(join(bedScratch(), "fula-node-pack-"));
  // A handler of `exit` can't wait, so this is synchronous.
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  await execa("node", ["scripts/build.mjs"]);
  const options = ["--json", "--ignore-scripts", "--pack-destination", directory];
  const { stdout } = await execa("npm", ["pack", ...options]);
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  return join(directory, filename);
}

/** Copies the artifact into a box: as a tarball for npx, and unpacked for runs without npx. */
export async function installArtifact(box: Box): Promise<void> {
  await box.copyIn(await packArtifact(), TARBALL);
  await box.run(["tar", "-xzf", TARBALL, "-C", "/root"]);
}

const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));

/**
 * The path of release 0.1.0 as it was packed (commit 6e0aeba). Throws when its sha256 is not the one that
 * `test/fixtures/SHA256SUMS` has: a test of an upgrade from another file would prove nothing.
 */
export async function release010(directory = FIXTURES): Promise<string> {
  const name = "fula-node-0.1.0.tgz";
  const path = join(directory, name);
  const sums = await readFile(join(directory, "SHA256SUMS"), "utf8");
  const expected = sums
    .split("\n")
    .find((line) => line.slice(66) === name)
    ?.slice(0, 64);
  const actual = createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
  if (actual === expected) return path;
  throw new Error(`The sha256 of ${path} is ${actual}; SHA256SUMS says ${expected ?? "nothing about it"}.`);
}

/** Where a box has the tarball of release 0.1.0, and the program unpacked from it. */
export const TARBALL_010 = "/root/fula-node-0.1.0.tgz";
export const PROGRAM_010 = "/root/release-0.1.0/bin/fula-node.js";

/** Copies release 0.1.0 into a box, next to the artifact. */
export async function installRelease010(box: Pick<Box, "copyIn" | "run">): Promise<void> {
  const directory = "/root/release-0.1.0";
  await box.copyIn(await release010(), TARBALL_010);
  await box.run(["mkdir", "-p", directory]);
  await box.run(["tar", "-xzf", TARBALL_010, "-C", directory, "--strip-components=1"]);
}

/** Runs the unpacked artifact in a box. */
export function fulaNode(box: Box, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  return box.exec(["node", PROGRAM, ...args], options);
}

/** The arguments of a first join of a new pool that asks nothing. */
export const FIRST_JOIN = [
  "join-as-master",
  "--yes",
  "--provision-writer",
  "--set",
  "CLUSTERNAME=test-pool",
] as const;

/** For curl in a box: the password of the node's own ipfs-cluster, if its `.env` has one. */
export const AS_OPERATOR =
  "-u \"$(sed -n 's/^CLUSTER_BASIC_AUTH=//p' /opt/fula-master/.env /opt/fula-storage/.env 2>/dev/null | grep . || echo none:)\"";
