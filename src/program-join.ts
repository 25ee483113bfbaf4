import { type Command, Option } from "commander";
import type { LeaveFlags } from "./commands/leave.ts";
import type { JoinFlags, StorageFlags } from "./join/join-run.ts";
import { collect, dryRun, rollback, type Run } from "./program-verbs.ts";

/** The verb that makes a master. */
export function addMaster(program: Command, baseDir: () => Option, run: Run): void {
  program
    .command("join-as-master")
    .description("make this machine a master, or repair the master on it")
    .option(
      "--invite <token>",
      "an invite from another master, to be one of its pool, too: the line itself, @FILE, or - for standard input",
    )
    .option(
      "--fingerprint <id>",
      "fingerprint of the invite's key, which the other master's operator gave you over another channel",
    )
    .addOption(dryRun())
    .option("-y, --yes", "make the changes without asking; also install packages of the distribution", false)
    .addOption(baseDir())
    .option("--set <key=value>", "set a setting; repeatable", collect, [])
    .option(
      "--set-file <key=path>",
      "set a setting, often a secret, to the content of a file, or - for standard input; repeatable",
      collect,
      [],
    )
    .option(
      "--adopt <step>",
      "take over something that fula-node did not create, by the step's id; repeatable",
      collect,
      [],
    )
    .option(
      "--replace <service>",
      "let fula-node's service replace the adopted one (pinning-api or webui): sets its image, and is the confirmation; repeatable",
      collect,
      [],
    )
    .option(
      "--ignore <check>",
      "treat a failed preflight check as a warning (with --from-backup also old-master); repeatable",
      collect,
      [],
    )
    .option("--images <archive>", "load images from this file (made by images save) instead of pulling them")
    .option("--provision-writer", "create kubo and ipfs-cluster on this machine if none are found", false)
    .option(
      "--without-backup",
      "upgrade without a backup; by default one is made if BACKUP_DIR is set, else this is asked",
      false,
    )
    .option(
      "--from-backup <file>",
      "become the master that this backup is of, on an empty machine; its key by --set-file BACKUP_IDENTITY=FILE or BACKUP_PASSPHRASE=FILE",
    )
    .option(
      "--old-machine-is-off <name>",
      "with --from-backup: confirms that the machine of this name is off and stays off",
    )
    .addOption(rollback())
    .option("--json", "print one JSON object instead of text")
    .action((flags: JoinFlags & { rollback: boolean }) =>
      run(
        async (world) =>
          flags.rollback
            ? (await import("./commands/rollback.ts")).rollBack("join-as-master", flags, world)
            : (await import("./commands/join-as-master.ts")).joinAsMaster(flags, world),
        "plans",
      ),
    );
}

/** The verb that makes a storage node. */
export function addStorageNode(program: Command, run: Run): void {
  program
    .command("join-as-storage-node")
    .description("make this machine a storage node, or repair the storage node on it")
    .option(
      "--invite <token>",
      "an invite from the pool's master: the line itself, @FILE, or - for standard input",
    )
    .option(
      "--fingerprint <id>",
      "fingerprint of the invite's key, which the master's operator gave you over another channel",
    )
    .addOption(dryRun())
    .option("-y, --yes", "make the changes without asking; also install packages of the distribution", false)
    .option("--base-dir <dir>", "directory of the node (default: /opt/fula-storage)")
    .option("--set <key=value>", "set a setting; repeatable", collect, [])
    .option(
      "--set-file <key=path>",
      "set a setting, often a secret, to the content of a file, or - for standard input; repeatable",
      collect,
      [],
    )
    .option(
      "--adopt <step>",
      "take over something that fula-node did not create, by the step's id; repeatable",
      collect,
      [],
    )
    .option("--ignore <check>", "treat a failed preflight check as a warning; repeatable", collect, [])
    .option("--images <archive>", "load images from this file (made by images save) instead of pulling them")
    .option(
      "--accept-pool-change",
      "trust what the invite or the pool API says now, instead of what was saved",
      false,
    )
    .option("--allow-http", "allow a storage API and a pool API over plain http; for a lab", false)
    .addOption(new Option("--allow-http-pool", "the name of --allow-http up to 0.2.0").hideHelp())
    .option("--no-register", "do not reserve the node's name at the master")
    .addOption(rollback())
    .option("--json", "print one JSON object instead of text")
    .action(
      ({ allowHttpPool = false, ...flags }: StorageFlags & { allowHttpPool?: boolean; rollback: boolean }) =>
        run(
          async (world) =>
            flags.rollback
              ? (await import("./commands/rollback.ts")).rollBack("join-as-storage-node", flags, world)
              : (await import("./commands/join-as-storage-node.ts")).joinAsStorageNode(
                  { ...flags, allowHttp: flags.allowHttp || allowHttpPool },
                  world,
                ),
          "plans",
        ),
    );
}

/** The verb that takes a node apart. */
export function addLeave(program: Command, run: Run): void {
  program
    .command("leave")
    .description("stop and remove what fula-node created on this machine; data and settings stay")
    .addOption(dryRun())
    .option("-y, --yes", "remove without asking; a purge still asks", false)
    .option(
      "--purge <what>",
      "also remove this: data, settings, keys, snapshots, logs or all; repeatable",
      collect,
      [],
    )
    .option("--confirm <hostname>", "this machine's name, which a purge otherwise asks you to type")
    .option("--no-release", "keep the node's name reserved at the master")
    .option("--base-dir <dir>", "directory of the node (default: /opt/fula-master or /opt/fula-storage)")
    .option("--json", "print one JSON object instead of text")
    .action((flags: LeaveFlags) =>
      run(async (world) => (await import("./commands/leave.ts")).leave(flags, world), "plans"),
    );
}
