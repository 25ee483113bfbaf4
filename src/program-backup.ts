import type { Command } from "commander";
import type { BackupVerifyFlags } from "./commands/backup.ts";
import type { Run } from "./program-verbs.ts";

/** The verbs of backups. */
export function addBackup(program: Command, run: Run): void {
  const backup = program.command("backup").description("encrypted backups of a master");
  backup
    .command("verify <file>")
    .description(
      "read all of a backup and compare it with its own list; writes nothing (exit code 28 if it is damaged)",
    )
    .option(
      "--set-file <key=path>",
      "BACKUP_IDENTITY (the file of age-keygen) or BACKUP_PASSPHRASE, from a file, or - for standard input",
      (value: string, before: readonly string[]) => [...before, value],
      [],
    )
    .option("--json", "print one JSON object instead of text")
    .action((file: string, flags: BackupVerifyFlags) =>
      run(async (world) => (await import("./commands/backup.ts")).backupVerify(file, flags, world), "reads"),
    );
}
