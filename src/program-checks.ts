import type { Command } from "commander";
import type { DoctorFlags } from "./commands/doctor.ts";
import type { Run } from "./program-verbs.ts";

/** The verb that finds what is wrong. */
export function addChecks(program: Command, run: Run): void {
  program
    .command("doctor")
    .description(
      "find everything that is wrong with this machine and its node, with what to do about it (exit code 20, 27 or 29 if something is)",
    )
    .option(
      "--base-dir <dir>",
      "directory of the node (default: /opt/fula-master, or /opt/fula-storage on a storage node)",
    )
    .option("-v, --verbose", "also show what is right, and everything that was looked at", false)
    .option("--json", "print one JSON object instead of text")
    .action((flags: DoctorFlags) =>
      run(async (world) => (await import("./commands/doctor.ts")).doctor(flags, world), "asks"),
    );
}
