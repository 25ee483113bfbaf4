import { mkdtemp, rm, symlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import { execa } from "execa";
import manifest from "../../package.json" with { type: "json" };
import { bedScratch } from "./bed.ts";
import type { Box } from "./box.ts";

/** Where a box has the program of the release before this version. */
export const FORMER_PROGRAM = "/root/former-release/bin/fula-node.js";

/** Packs the last source of the version before this one, built with the packages of now, and copies it into a box. Needs the history of git. */
export async function installFormerRelease(box: Box): Promise<void> {
  const directory = await mkdtemp(join(bedScratch(), "fula-node-former-"));
  try {
    const begun = [
      "log",
      "--reverse",
      "--format=%H",
      `-S"version": "${manifest.version}"`,
      "--",
      "package.json",
    ];
    const [first = ""] = (await execa("git", begun)).stdout.split("\n");
    const archive = join(directory, "source.tar");
    await execa("git", ["archive", "--output", archive, `${first}^`]);
    await execa("tar", ["-xf", archive, "-C", directory]);
    await symlink(resolve("node_modules"), join(directory, "node_modules"));
    await execa("node", ["scripts/build.mjs"], { cwd: directory });
    const packing = ["pack", "--json", "--ignore-scripts", "--pack-destination", directory];
    const { stdout } = await execa("npm", packing, { cwd: directory });
    const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
    await box.copyIn(join(directory, filename), "/root/former-release.tgz");
    await box.run(
      "mkdir /root/former-release && tar -xzf /root/former-release.tgz -C /root/former-release --strip-components=1",
    );
  } finally {
    await rm(directory, { recursive: true });
  }
}
