import type { Command } from "commander";
import type { DoctorFlags } from "./commands/doctor.ts";
import type { LogFlags } from "./commands/logs.ts";
import type { Run } from "./program-verbs.ts";

/** The verbs that look for what is wrong, and change nothing. */
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
    .option(
      "--fix",
      "run the repairs of a join with the settings that are saved, then show what is still wrong",
      false,
    )
    .option("-y, --yes", "with --fix: make the changes without asking", false)
    .option("--bundle <file>", "also write an archive (tar.gz) for support, without secrets")
    .option("-v, --verbose", "also show what is right, and everything that was looked at", false)
    .option("--json", "print one JSON object instead of text")
    .action((flags: DoctorFlags) =>
      run(
        async (world) => (await import("./commands/doctor.ts")).doctor(flags, world),
        flags.fix ? "plans" : "asks",
      ),
    );

  program
    .command("logs")
    .description("the logs of the node's services, of cron and of the journal, merged by time")
    .argument(
      "[service...]",
      "postgres, kubo, ipfs-cluster, pinning-api, storage-api, edge, gateway, updater, ingest, snapshot, sweep, drill, backup, alerts or journal (default: all that this node has)",
    )
    .option("--since <time>", "from then on: an age (90s, 10m, 2h, 3d) or a time (2026-01-31T12:00Z)")
    .option("--lines <n>", "at most the last n lines of each log (default: 200; with --since, all)")
    .option("-f, --follow", "go on with new lines until Ctrl-C", false)
    .option(
      "--base-dir <dir>",
      "directory of the node (default: /opt/fula-master, or /opt/fula-storage on a storage node)",
    )
    .option("--json", "print one JSON object a line: at, source, text")
    // commander gives --json to the program, wherever it stands.
    .action((names: readonly string[], _flags: unknown, command: Command) => {
      const flags = command.optsWithGlobals<LogFlags>();
      return run(
        async (world) => (await import("./commands/logs.ts")).logs(names, flags, world),
        flags.follow ? "follows" : "reads",
      );
    });
}
