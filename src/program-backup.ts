import type { Command, Option } from "commander";
import type { BackupCreateFlags } from "./commands/backup.ts";
import type { BackupUnpackFlags, BackupVerifyFlags } from "./commands/backup-archive.ts";
import { adderTo, type Run } from "./program-verbs.ts";

/** The verbs of backups. */
export function addBackup(program: Command, baseDir: () => Option, run: Run): void {
  const backup = program.command("backup").description("encrypted backups of a master");
  const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];
  adderTo(backup, baseDir)(
    "create",
    "back up settings, keys, the database, the newest snapshots and the writer's identity into one encrypted file; stops nothing",
  )
    .option("--to <dir>", "the directory for it (default: BACKUP_DIR)")
    .option(
      "--recipient <age1...>",
      "encrypt it for this recipient of age; repeatable (default: BACKUP_RECIPIENT)",
      collect,
      [],
    )
    .option(
      "--set-file <key=path>",
      "BACKUP_PASSPHRASE, instead of a recipient, from a file, or - for standard input",
      collect,
      [],
    )
    .option("--scheduled", "run as cron does: wait for another run, up to an hour", false)
    .action((flags: BackupCreateFlags) =>
      run(async (world) => (await import("./commands/backup.ts")).backupCreate(flags, world), "takes-back"),
    );
  backup
    .command("verify <file>")
    .description(
      "read all of a backup and compare it with its own list; writes nothing (exit code 28 if it is damaged)",
    )
    .option(
      "--set-file <key=path>",
      "BACKUP_IDENTITY (the file of age-keygen) or BACKUP_PASSPHRASE, from a file, or - for standard input",
      collect,
      [],
    )
    .option("--json", "print one JSON object instead of text")
    .action((file: string, flags: BackupVerifyFlags) =>
      run(
        async (world) => (await import("./commands/backup-archive.ts")).backupVerify(file, flags, world),
        "reads",
      ),
    );
  backup
    .command("unpack <file>")
    .description(
      "put all that is in a backup into a new directory, once all of it was read and is unchanged; the database as a file for pg_restore",
    )
    .requiredOption("--to <dir>", "the new directory; only root may enter it")
    .option(
      "--set-file <key=path>",
      "BACKUP_IDENTITY (the file of age-keygen) or BACKUP_PASSPHRASE, from a file, or - for standard input",
      collect,
      [],
    )
    .option("--json", "print one JSON object instead of text")
    .action((file: string, flags: BackupUnpackFlags) =>
      run(
        async (world) => (await import("./commands/backup-archive.ts")).backupUnpack(file, flags, world),
        "plans",
      ),
    );
}
