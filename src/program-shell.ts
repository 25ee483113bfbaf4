import { type Command, Option } from "commander";
import type { SaveFlags } from "./commands/images.ts";
import type { Run } from "./program-verbs.ts";

/** The verb of the images that a machine without internet needs. */
export function addImages(program: Command, run: Run): void {
  program
    .command("images")
    .description("images for a machine without internet")
    .command("save <file>")
    .description(
      "write the images that a node needs to a file, for --images on a machine without internet; pulls those that are not here",
    )
    .addOption(
      new Option(
        "--for <kind>",
        "the kind of node (default: the one that this machine is, else master)",
      ).choices(["master", "storage-node"]),
    )
    .addOption(
      new Option("--arch <name>", "the architecture of the other machine (default: this one's)").choices([
        "amd64",
        "arm64",
      ]),
    )
    .option(
      "--image <name>",
      "also save this image, such as one that the other machine's settings name; repeatable",
      (value: string, previous: readonly string[]) => [...previous, value],
      [],
    )
    .option("--force", "replace the file if it exists", false)
    .option(
      "--base-dir <dir>",
      "directory of this machine's node, whose settings name the images (default: /opt/fula-master or /opt/fula-storage)",
    )
    .option("--json", "print one JSON object instead of text")
    .action((file: string, flags: SaveFlags) =>
      run(async (world) => (await import("./commands/images.ts")).imagesSave(file, flags, world)),
    );
}
