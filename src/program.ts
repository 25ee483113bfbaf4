import { Command, Option } from "commander";
import type { InviteFlags } from "./commands/invite.ts";
import type { JoinFlags, StorageFlags } from "./join/join-run.ts";
import type { LeaveFlags } from "./commands/leave.ts";
import type { SnapshotFlags } from "./commands/snapshot.ts";
import type { RestoreFlags } from "./commands/restore.ts";
import type { World } from "./world.ts";
import type { VerbExit } from "./errors.ts";

/** One verb, ready to be given the world. */
export type Verb = (world: World) => Promise<VerbExit>;
/** What a signal does to a verb: a run is cut off (running again goes on), a service finishes its requests. */
export type OnSignal = "exit" | "finish";
/** Runs one verb to its end. */
export type Run = (verb: Verb, onSignal?: OnSignal) => Promise<void>;

/** The command line: every verb with its flags. docs/commands.md is generated from it. */
export function describeProgram(version: string, run: Run): Command {
  const program = new Command("fula-node")
    .description(
      "Turns this box into a node of the Fula storage network, and keeps it one. Running again is the repair.",
    )
    .version(version)
    .configureOutput({ getOutHelpWidth: () => 80, getErrHelpWidth: () => 80 })
    .exitOverride()
    .showHelpAfterError("(--help lists what there is)")
    .option("--json", "print one JSON object instead of text");
  const baseDir = () => new Option("--base-dir <dir>", "where the node lives (default: /opt/fula-master)");

  program
    .command("join-as-master")
    .description("make this box a master, or mend the one that it is")
    .option("--dry-run", "show what would be done, and do nothing (exit 20 when there is something)", false)
    .option("-y, --yes", "make the changes without asking; packages of the distribution too", false)
    .addOption(baseDir())
    .option("--set <key=value>", "give a setting; repeatable", collect, [])
    .option("--adopt <step>", "take over a foreign thing by the step's name; repeatable", collect, [])
    .option("--ignore <check>", "let a failed preflight check pass as a warning; repeatable", collect, [])
    .option("--images <archive>", "load images from this file (docker save) instead of pulling them")
    .option("--provision-writer", "make kubo and ipfs-cluster on this box where none are found", false)
    .option("--json", "print one JSON object instead of text")
    .action((flags: JoinFlags) =>
      run(async (world) => (await import("./commands/join-as-master.ts")).joinAsMaster(flags, world)),
    );

  addStorageNode(program, run);
  addLeave(program, run);

  program
    .command("status")
    .description("tell how this node stands; changes nothing (exit 20 when something is to be done)")
    .option(
      "--base-dir <dir>",
      "where the node lives (default: /opt/fula-master, or /opt/fula-storage on a storage node)",
    )
    .option("--json", "print one JSON object instead of text")
    .action((flags: { baseDir?: string }) =>
      run(async (world) => (await import("./commands/status.ts")).status(flags, world)),
    );

  addSnapshot(program, baseDir, run);
  program
    .command("sweep")
    .description("find pins with too few copies, alarm, and have their peers try again")
    .option("--strict", "exit 20 while anything is below its minimum", false)
    .option("--forget <node>", "a node that is gone for good, by id or name; repeatable", collect, [])
    .addOption(baseDir())
    .option("--json", "print one JSON object instead of text")
    .action((flags: { baseDir?: string; strict: boolean; forget: readonly string[] }) =>
      run(async (world) => (await import("./commands/sweep.ts")).sweepPins(flags, world)),
    );

  addMigrate(program, baseDir, run);
  addUser(program, baseDir, run);
  addInvite(program, baseDir, run);
  addServe(program, run);
  return program;
}

function addStorageNode(program: Command, run: Run): void {
  program
    .command("join-as-storage-node")
    .description("make this box a storage node, or mend the one that it is")
    .option(
      "--invite <token>",
      "an invite of the pool's master: the line itself, @FILE, or - for standard input",
    )
    .option("--fingerprint <id>", "the invite's key, as the master's operator told it by another way")
    .option("--dry-run", "show what would be done, and do nothing (exit 20 when there is something)", false)
    .option("-y, --yes", "make the changes without asking; packages of the distribution too", false)
    .option("--base-dir <dir>", "where the node lives (default: /opt/fula-storage)")
    .option("--set <key=value>", "give a setting; repeatable", collect, [])
    .option("--adopt <step>", "take over a foreign thing by the step's name; repeatable", collect, [])
    .option("--ignore <check>", "let a failed preflight check pass as a warning; repeatable", collect, [])
    .option("--images <archive>", "load images from this file (docker save) instead of pulling them")
    .option(
      "--accept-pool-change",
      "obey what the invite or the pool API says now, not what was saved",
      false,
    )
    .option("--allow-http-pool", "ask a pool API over plain http", false)
    .option("--no-register", "do not reserve the node's name with the master")
    .option("--json", "print one JSON object instead of text")
    .action((flags: StorageFlags) =>
      run(async (world) =>
        (await import("./commands/join-as-storage-node.ts")).joinAsStorageNode(flags, world),
      ),
    );
}

function addLeave(program: Command, run: Run): void {
  program
    .command("leave")
    .description("stop and remove what fula-node made on this box; data and settings stay")
    .option("--dry-run", "show what would be done, and do nothing (exit 20 when there is something)", false)
    .option("-y, --yes", "remove without asking; a purge asks all the same", false)
    .option(
      "--purge <what>",
      "remove that too: data, settings, keys, snapshots, logs or all; repeatable",
      collect,
      [],
    )
    .option("--confirm <hostname>", "this machine's name, which a purge otherwise has typed")
    .option("--no-release", "keep the node's name reserved with the master")
    .option("--base-dir <dir>", "where the node lives (default: /opt/fula-master or /opt/fula-storage)")
    .option("--json", "print one JSON object instead of text")
    .action((flags: LeaveFlags) =>
      run(async (world) => (await import("./commands/leave.ts")).leave(flags, world)),
    );
}

function addSnapshot(program: Command, baseDir: () => Option, run: Run): void {
  const snapshot = program.command("snapshot").description("signed snapshots of the pinset");
  const add = (name: string, about: string) =>
    snapshot
      .command(name)
      .description(about)
      .addOption(baseDir())
      .option("--json", "print one JSON object instead of text");
  const key = () => new Option("--key <pem>", "check with this key (default: this master's)");
  add("take", "take one now, as cron does (exit 20 when the pinset has shrunk much)").action(
    (flags: { baseDir?: string }) =>
      run(async (world) => (await import("./commands/snapshot.ts")).snapshotTake(flags, world)),
  );
  add("list", "every snapshot with its verdict, chain and age (exit 28 when one is not verified)")
    .addOption(key())
    .option("--dir <dir>", "another directory of snapshots")
    .action((flags: SnapshotFlags & { dir?: string }) =>
      run(async (world) => (await import("./commands/snapshot.ts")).snapshotList(flags, world)),
    );
  add("verify <file>", "check signature, body and chain of one (exit 28 when anything was changed)")
    .addOption(key())
    .action((file: string, flags: SnapshotFlags) =>
      run(async (world) => (await import("./commands/snapshot.ts")).snapshotVerify(file, flags, world)),
    );
  add("diff <a> <b>", "compare two, or one with `live` (exit 20 when they differ)")
    .addOption(key())
    .option("--limit <n>", "name so many pins of each kind", "20")
    .action((a: string, b: string, flags: SnapshotFlags & { limit: string }) =>
      run(async (world) => (await import("./commands/snapshot.ts")).snapshotDiff([a, b], flags, world)),
    );
  add("restore <file>", "pin again what the snapshot has and the cluster lacks; never unpins")
    .addOption(key())
    .option("--dry-run", "show what would be done, and do nothing (exit 20 when there is something)", false)
    .option("--options", "also give pins that are there the options they have in the snapshot", false)
    .option("--from-other-cluster", "the snapshot may be of another cluster", false)
    .option("--concurrency <n>", "requests under way at once, at most", "64")
    .action((file: string, flags: RestoreFlags) =>
      run(async (world) => (await import("./commands/restore.ts")).snapshotRestore(file, flags, world)),
    );
}

function addMigrate(program: Command, baseDir: () => Option, run: Run): void {
  const migrate = program.command("migrate").description("the database's schema");
  const add = (name: string, about: string) =>
    migrate
      .command(name)
      .description(about)
      .addOption(baseDir())
      .option("--json", "print one JSON object instead of text");
  add("status", "tell which migrations are applied; changes nothing").action((flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/migrate.ts")).migrateStatus(flags, world)),
  );
  add("up", "apply what is pending").action((flags: { baseDir?: string }) =>
    run(async (world) => (await import("./commands/migrate.ts")).migrateAllUp(flags, world)),
  );
  add("down <version>", "take one migration back, where that is safe").action(
    (version: string, flags: { baseDir?: string }) =>
      run(async (world) => (await import("./commands/migrate.ts")).migrateOneDown(version, flags, world)),
  );
}

function addUser(program: Command, baseDir: () => Option, run: Run): void {
  const user = program.command("user").description("accounts of the storage API");
  const add = (name: string, about: string) =>
    user
      .command(name)
      .description(about)
      .requiredOption("--email <address>", "whose account it is")
      .addOption(baseDir())
      .option("--json", "print one JSON object instead of text");
  add("create", "make an account; one that is there stays as it is").action(
    (flags: { baseDir?: string; email: string }) =>
      run(async (world) => (await import("./commands/user.ts")).userCreate(flags, world)),
  );
  add("token", "issue an API key and print it, this once")
    .option("--name <name>", "what the key is for; refused where a live key has that name")
    .action((flags: { baseDir?: string; email: string; name?: string }) =>
      run(async (world) => (await import("./commands/user.ts")).userToken(flags, world)),
    );
}

function addInvite(program: Command, baseDir: () => Option, run: Run): void {
  const invite = program.command("invite").description("invites for storage nodes");
  invite
    .command("create")
    .description("print one line that makes a box a storage node of this pool")
    .option("--expires <time>", "how long it is good for", "24h")
    .option("--name <name>", "the name that the node shall take")
    .option(
      "--storage-api-url <url>",
      "where nodes reach this master's storage API (default: STORAGE_API_URL)",
    )
    .option(
      "--bootstrap <multiaddr>",
      "an address of this master's cluster peer; repeatable (default: those it tells)",
      collect,
      [],
    )
    .addOption(baseDir())
    .option("--json", "print one JSON object instead of text")
    .action((flags: InviteFlags) =>
      run(async (world) => (await import("./commands/invite.ts")).inviteCreate(flags, world)),
    );
  invite
    .command("show <token>")
    .description(
      "explain an invite: the line itself, @FILE, or - for standard input (exit 28 when it was altered)",
    )
    .option("--fingerprint <id>", "the key's fingerprint, as the master's operator told it")
    .option("--json", "print one JSON object instead of text")
    .action((token: string, flags: { fingerprint?: string }) =>
      run(async (world) => (await import("./commands/invite.ts")).inviteShow(token, flags, world)),
    );
}

function addServe(program: Command, run: Run): void {
  const serve = program.command("serve").description("what the containers run");
  const services = {
    "pinning-api": "the IPFS pinning service API",
    webui: "the storage API and the billing crons",
    ingest: "the verified ingest of blocks",
  } as const;
  for (const name of ["pinning-api", "webui", "ingest"] as const) {
    serve
      .command(name)
      .description(services[name])
      .action(() => run(async (world) => (await import("./commands/serve.ts")).serve(name, world), "finish"));
  }
}

function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}
