import type { Command, Option } from "commander";
import type { DrillFlags } from "./commands/drill.ts";
import type { Run } from "./program-verbs.ts";

/** The verb of the drills. */
export function addDrill(program: Command, baseDir: () => Option, run: Run): void {
  program
    .command("drill")
    .description(
      "prove on this machine that what a master promises holds: rehearsals with things of their own, which they remove (exit code 27 if one fails)",
    )
    .argument("[name...]", "D1 to D10, or the names that --list shows (default: all)")
    .option("--list", "list the drills: what each proves and touches, and its usual time; runs none", false)
    .option("--tap", "print the Test Anything Protocol, version 14", false)
    .option("-v, --verbose", "also show what each drill proves and what was looked at", false)
    .option("--schedule", "let cron run every drill once a week, with an alarm if one fails", false)
    .option("--unschedule", "let cron run no drills any more", false)
    .option("--scheduled", "run as cron does: every drill, with the alarm if one fails", false)
    .addOption(baseDir())
    .option("--json", "print one JSON object instead of text")
    // commander gives --json to the program, wherever it stands.
    .action((names: readonly string[], _flags: unknown, command: Command) => {
      const flags = command.optsWithGlobals<DrillFlags>();
      return run(
        async (world) => (await import("./commands/drill.ts")).drill(names, flags, world),
        "takes-back",
      );
    });
}
