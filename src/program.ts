import { Command, Option } from "commander";
import type { InviteFlags } from "./commands/pool/invite.ts";
import type { RestoreFlags } from "./commands/restore.ts";
import type { SecretFlags } from "./commands/secret.ts";
import type { SnapshotFlags } from "./commands/snapshot.ts";
import type { StatusFlags } from "./commands/status.ts";
import type { TrustFlags } from "./commands/pool/trust.ts";
import { addBilling, addBlock, addUser } from "./program-accounts.ts";
import { addChecks } from "./program-checks.ts";
import { addBackup } from "./program-backup.ts";
import { addDrill } from "./program-drill.ts";
import { addLeave, addMaster, addStorageNode } from "./program-join.ts";
import { adderTo, collect, dryRun, helpFor, type Run } from "./program-verbs.ts";
import { addImages, addShell } from "./program-shell.ts";

/** The command line: every verb with its flags. docs/commands.md is generated from this. */
export function describeProgram(version: string, run: Run, columns = 80): Command {
  const program = new Command("fula-node")
    .description(
      "Turns this machine into a node of the Fula storage network and keeps it working. Run the same command again to repair it.",
    )
    .version(version)
    // main.ts prints an error, in the form of all our errors.
    .configureOutput({
      getOutHelpWidth: () => columns,
      getErrHelpWidth: () => columns,
      outputError: () => {},
    })
    .configureHelp(helpFor(columns))
    .exitOverride()
    .option("--json", "print one JSON object instead of text");
  const baseDir = () => new Option("--base-dir <dir>", "directory of the node (default: /opt/fula-master)");

  addMaster(program, baseDir, run);
  addStorageNode(program, run);
  addLeave(program, run);

  program
    .command("status")
    .description(
      "show how this node stands; changes nothing (exit code 20, 27 or 29 if not everything works)",
    )
    .option(
      "--base-dir <dir>",
      "directory of the node (default: /opt/fula-master, or /opt/fula-storage on a storage node)",
    )
    .option("-v, --verbose", "also show what was looked at", false)
    .option("--json", "print one JSON object instead of text, with everything that was looked at")
    .action((flags: StatusFlags) =>
      run(async (world) => (await import("./commands/status.ts")).status(flags, world), "asks"),
    );

  addChecks(program, run);
  addSnapshot(program, baseDir, run);
  program
    .command("sweep")
    .description("find pins with too few copies, raise the alarm, and make their peers retry")
    .option("--strict", "exit code 20 while any pin is below its minimum", false)
    .option(
      "--forget <node>",
      "a node that will never come back, by peer id or name; repeatable",
      collect,
      [],
    )
    .addOption(baseDir())
    .option("--json", "print one JSON object instead of text")
    .action((flags: { baseDir?: string; strict: boolean; forget: readonly string[] }) =>
      run(async (world) => (await import("./commands/sweep.ts")).sweepPins(flags, world)),
    );

  addBackup(program, baseDir, run);
  addDrill(program, baseDir, run);
  addNode(program, baseDir, run);
  addTrust(program, baseDir, run);
  addMigrate(program, baseDir, run);
  addUser(program, baseDir, run);
  addBlock(program, baseDir, run);
  addBilling(program, baseDir, run);
  addSecret(program, baseDir, run);
  addInvite(program, baseDir, run);
  addImages(program, run);
  addServe(program, run);
  addShell(program, run);
  return program;
}

function addSnapshot(program: Command, baseDir: () => Option, run: Run): void {
  const snapshot = program.command("snapshot").description("signed snapshots of the pinset");
  const add = adderTo(snapshot, baseDir);
  const key = () =>
    new Option("--key <pem>", "check with this key; repeatable")
      .argParser(collect)
      .default([], "the keys of this master");
  add("take", "take a snapshot now, as cron does (exit code 20 if too many pins are gone)")
    .option("--accept", "the present pinset is right: compare later snapshots with this one", false)
    .action((flags: { baseDir?: string; accept: boolean }) =>
      run(async (world) => (await import("./commands/snapshot.ts")).snapshotTake(flags, world)),
    );
  add("list", "list every snapshot with its verdict, chain and age (exit code 28 if one is not verified)")
    .addOption(key())
    .option("--dir <dir>", "list the snapshots of another directory")
    .action((flags: SnapshotFlags & { dir?: string }) =>
      run(async (world) => (await import("./commands/snapshot.ts")).snapshotList(flags, world), "reads"),
    );
  add(
    "verify <file>",
    "check the signature, body and chain of a snapshot (exit code 28 if anything was changed)",
  )
    .addOption(key())
    .action((file: string, flags: SnapshotFlags) =>
      run(
        async (world) => (await import("./commands/snapshot.ts")).snapshotVerify(file, flags, world),
        "reads",
      ),
    );
  add("diff <a> <b>", "compare two snapshots, or a snapshot with `live` (exit code 20 if they differ)")
    .addOption(key())
    .option("--limit <n>", "list at most this many pins of each kind", "20")
    .action((a: string, b: string, flags: SnapshotFlags & { limit: string }) =>
      run(
        async (world) => (await import("./commands/snapshot.ts")).snapshotDiff([a, b], flags, world),
        "reads",
      ),
    );
  add("restore <file>", "pin what the snapshot has and the cluster lacks; never unpins")
    .addOption(key())
    .addOption(dryRun())
    .option("--options", "also reset existing pins to their options in the snapshot", false)
    .option("--from-other-cluster", "allow a snapshot of another cluster", false)
    .option("--concurrency <n>", "send at most this many requests at the same time", "64")
    .action((file: string, flags: RestoreFlags) =>
      run(async (world) => (await import("./commands/restore.ts")).snapshotRestore(file, flags, world)),
    );
}

function addNode(program: Command, baseDir: () => Option, run: Run): void {
  const node = program.command("node").description("the nodes that the sweep expects");
  const add = adderTo(node, baseDir);
  add(
    "list",
    "list the nodes of the pool, and apart the members of the cluster that are not expected",
  ).action((flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/pool/node.ts")).nodeList(flags, world), "reads"),
  );
  add("keep <peerid>", "expect a node that has no registered name: its copies count, and it is missed")
    .option("--name <name>", "your name for the node (default: the name that it gives itself)")
    .action((id: string, flags: { baseDir?: string; name?: string }) =>
      run(async (world) => (await import("./commands/pool/node.ts")).nodeKeep(id, flags, world)),
    );
  add("forget <node>", "neither expect nor list a node any more, by peer id or name").action(
    (given: string, flags: { baseDir?: string }) =>
      run(async (world) => (await import("./commands/pool/node.ts")).nodeForget(given, flags, world)),
  );
}

function addTrust(program: Command, baseDir: () => Option, run: Run): void {
  const trust = program.command("trust").description("the masters that this master trusts");
  const add = adderTo(trust, baseDir);
  add("list", "list the peers that this master trusts, and the masters of the pool").action(
    (flags: { baseDir?: string }) =>
      run(async (world) => (await import("./commands/pool/trust.ts")).trustList(flags, world), "reads"),
  );
  const yes = ["-y, --yes", "restart ipfs-cluster of this master without asking", false] as const;
  add("add <peer>", "trust a master, by peer id or name; one that was removed may then come back")
    .addOption(dryRun())
    .option(...yes)
    .action((given: string, flags: TrustFlags) =>
      run(async (world) => (await import("./commands/pool/trust.ts")).trustAdd(given, flags, world)),
    );
  add("remove <peer>", "remove a master that is gone from the pool, by peer id or name, and trust it no more")
    .addOption(dryRun())
    .option(...yes)
    .option("--still-runs", "also a master that was seen within the last ten minutes", false)
    .action((given: string, flags: TrustFlags) =>
      run(async (world) => (await import("./commands/pool/trust.ts")).trustRemove(given, flags, world)),
    );
}

function addMigrate(program: Command, baseDir: () => Option, run: Run): void {
  const migrate = program.command("migrate").description("migrations of the database schema");
  const add = adderTo(migrate, baseDir);
  add("status", "show which migrations are applied; changes nothing").action((flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/migrate.ts")).migrateStatus(flags, world), "reads"),
  );
  add("up", "apply the pending migrations").action((flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/migrate.ts")).migrateAllUp(flags, world)),
  );
  add("down <version>", "revert one migration, if that is safe; asks first, and names what is removed")
    .option("-y, --yes", "revert without asking", false)
    .action((version: string, flags: { baseDir?: string; yes: boolean }) =>
      run(async (world) => (await import("./commands/migrate.ts")).migrateOneDown(version, flags, world)),
    );
}

function addSecret(program: Command, baseDir: () => Option, run: Run): void {
  const add = adderTo(program.command("secret").description("secrets of this master"), baseDir);
  add(
    "rotate <name>",
    "change a secret, or finish an interrupted change: database-password, system-key, jwt-secret, session-secret, encryption-key or snapshot-key",
  )
    .addOption(dryRun())
    .option("-y, --yes", "change it without asking", false)
    .option("--value-file <path>", "take the new value from this file, or - for standard input")
    .action((name: string, flags: SecretFlags) =>
      run(async (world) => (await import("./commands/secret.ts")).secretRotate(name, flags, world), "plans"),
    );
}

function addInvite(program: Command, baseDir: () => Option, run: Run): void {
  const invite = program.command("invite").description("invites for storage nodes and for other masters");
  invite
    .command("create")
    .description("print an invite: one line with which one machine joins this pool as a storage node")
    .option("--master", "an invite for another master of this pool, with the same database", false)
    .option("--expires <time>", "how long the invite is valid", "24h")
    .option("--name <name>", "name of the new node")
    .option(
      "--storage-api-url <url>",
      "URL at which nodes reach this master's storage API (default: STORAGE_API_URL, or https:// and PUBLIC_HOST)",
    )
    .option(
      "--bootstrap <multiaddr>",
      "an address of this master's cluster peer; repeatable (default: the addresses that it reports)",
      collect,
      [],
    )
    .addOption(baseDir())
    .option("--json", "print one JSON object instead of text")
    .action((flags: InviteFlags) =>
      run(async (world) =>
        flags.master
          ? (await import("./commands/pool/invite-master.ts")).inviteMaster(flags, world)
          : (await import("./commands/pool/invite.ts")).inviteCreate(flags, world),
      ),
    );
  const add = adderTo(invite, baseDir);
  add("list", "list the invites with their states, and who used them").action((flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/pool/invite.ts")).inviteList(flags, world), "reads"),
  );
  add(
    "revoke <id>",
    "let no node register a name with an invite any more; a registered node keeps its name",
  ).action((id: string, flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/pool/invite.ts")).inviteRevoke(id, flags, world)),
  );
  invite
    .command("show <token>")
    .description(
      "explain an invite: the line itself, @FILE, or - for standard input (exit code 28 if it was altered)",
    )
    .option("--fingerprint <id>", "fingerprint of the key, which the master's operator gave you")
    .option("--json", "print one JSON object instead of text")
    .action((token: string, flags: { fingerprint?: string }) =>
      run(
        async (world) => (await import("./commands/pool/invite.ts")).inviteShow(token, flags, world),
        "reads",
      ),
    );
}

function addServe(program: Command, run: Run): void {
  const serve = program.command("serve").description("run one service; the containers use this");
  const services = {
    "pinning-api": "the IPFS pinning service API",
    webui: "the storage API",
    ingest: "the verified ingest of blocks",
  } as const;
  for (const name of ["pinning-api", "webui", "ingest"] as const) {
    serve
      .command(name)
      .description(services[name])
      .action(() => run(async (world) => (await import("./commands/serve.ts")).serve(name, world), "serves"));
  }
  // A drill starts it, and feeds it.
  serve
    .command("drill-crons", { hidden: true })
    .action(() =>
      run(async (world) => (await import("./commands/serve.ts")).serveDrillCrons(world), "serves"),
    );
}
