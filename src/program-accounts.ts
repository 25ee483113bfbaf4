import type { Command, Option } from "commander";
import type { DepositsFlags } from "./commands/billing/billing-deposits.ts";
import type { CatchUpFlags, RunFlags, RunsFlags } from "./commands/billing/billing.ts";
import type { AddFlags, BlockFlags, BlockListFlags } from "./commands/accounts/block.ts";
import type { KeyFlags, KeysFlags } from "./commands/accounts/user-key.ts";
import type {
  CreditFlags,
  DecisionFlags,
  HistoryFlags,
  ListFlags,
  UserFlags,
} from "./commands/accounts/user.ts";
import { adderTo, dryRun, type Run } from "./program-verbs.ts";

/** The verbs of accounts. */
export function addUser(program: Command, baseDir: () => Option, run: Run): void {
  const user = program.command("user").description("accounts of the storage API");
  const add = adderTo(user, baseDir);
  const verbs = () => import("./commands/accounts/user.ts");
  const keyVerbs = () => import("./commands/accounts/user-key.ts");
  const address = ["--email <address>", "email address of the account"] as const;
  add("create", "create an account; an existing account is not changed")
    .requiredOption(...address)
    .action((flags: UserFlags) => run(async (world) => (await verbs()).userCreate(flags, world)));
  add("token", "create an API key and print it; it can't be printed again")
    .requiredOption(...address)
    .option("--name <name>", "name of the key; refused if an active key has that name")
    .option("--expires <time>", "how long the key is valid, such as 30d (default: until it is revoked)")
    .option("--upload", "a key that is only good for uploading blocks; it expires after 24h, or --expires")
    .option("--hours <number>", "with --upload: the same as --expires, in hours (maximum: 720)")
    .action((flags: KeyFlags) => run(async (world) => (await keyVerbs()).userToken(flags, world)));
  const id = [
    "--account <id>",
    "id of the account, as user list shows it: for accounts without an address",
  ] as const;
  add("keys", "list the API keys of an account, without the keys themselves")
    .option(...address)
    .option(...id)
    .option("--all", "also those that were revoked or have expired")
    .action((flags: KeysFlags) => run(async (world) => (await keyVerbs()).userKeys(flags, world), "reads"));
  add("list", "list the accounts with their usage and balance, in the order of their ids")
    .option("--after <id>", "begin after this account")
    .option("--limit <number>", "how many accounts (default: 100, maximum: 1000)")
    .action((flags: ListFlags) => run(async (world) => (await verbs()).userList(flags, world), "reads"));
  add("history", "show what changed the balance of an account, the newest first")
    .option(...address)
    .option(...id)
    .option("--after <line>", "begin after this line")
    .option("--limit <number>", "how many lines (default: 100, maximum: 1000)")
    .action((flags: HistoryFlags) =>
      run(async (world) => (await verbs()).userHistory(flags, world), "reads"),
    );
  const decide = (name: string, about: string) =>
    add(name, about)
      .option(...address)
      .option(...id)
      .requiredOption("--reason <text>", "why; it stands in the audit log");
  decide("revoke <key>", "revoke one API key; user keys shows the ids").action(
    (key: string, flags: DecisionFlags) =>
      run(async (world) => (await keyVerbs()).userRevoke(key, flags, world)),
  );
  decide("suspend", "suspend an account: it may not upload any more, whatever its balance is").action(
    (flags: DecisionFlags) => run(async (world) => (await verbs()).userSuspend(flags, world)),
  );
  decide("unsuspend", "end the suspension of an account").action((flags: DecisionFlags) =>
    run(async (world) => (await verbs()).userUnsuspend(flags, world)),
  );
  decide("credit <amount>", "add FULA to the balance of an account, once for a key")
    .requiredOption("--key <key>", "a text for this one payment: a second run with it changes nothing")
    .option("--deduct", "take the amount away instead")
    .action((amount: string, flags: CreditFlags) =>
      run(async (world) => (await verbs()).userCredit(amount, flags, world)),
    );
}

/** The verbs of blocked contents. */
export function addBlock(program: Command, baseDir: () => Option, run: Run): void {
  const add = adderTo(program.command("block").description("contents that no account may pin"), baseDir);
  const verbs = () => import("./commands/accounts/block.ts");
  const why = ["--reason <text>", "why; it stands in the audit log"] as const;
  add("add <cid>", "block a content, in every spelling of its CID")
    .requiredOption(...why)
    .option("--redirect", "send clients to ipfs.io instead of answering 451")
    .option("--unpin", "also end the requests that have it now, and unpin it")
    .action((cid: string, flags: AddFlags) =>
      run(async (world) => (await verbs()).blockAdd(cid, flags, world)),
    );
  add("remove <cid>", "no longer block a content")
    .requiredOption(...why)
    .action((cid: string, flags: BlockFlags) =>
      run(async (world) => (await verbs()).blockRemove(cid, flags, world)),
    );
  add("list", "list what is blocked, the oldest first")
    .option("--after <id>", "begin after this entry")
    .option("--limit <number>", "how many entries (default: 100, maximum: 1000)")
    .action((flags: BlockListFlags) =>
      run(async (world) => (await verbs()).blockList(flags, world), "reads"),
    );
}

/** The verbs of the billing. */
export function addBilling(program: Command, baseDir: () => Option, run: Run): void {
  const add = adderTo(program.command("billing").description("what accounts pay for each hour"), baseDir);
  const verbs = () => import("./commands/billing/billing.ts");
  add("runs", "show which master runs the billing, the last hours, and charges that failed")
    .option("--limit <number>", "how many hours (default: 24, maximum: 1000)")
    .action((flags: RunsFlags) => run(async (world) => (await verbs()).billingRuns(flags, world), "reads"));
  add("run", "charge what is due now, as the cron job does; no account pays twice for an hour")
    .addOption(dryRun())
    .action((flags: RunFlags) => run(async (world) => (await verbs()).billingRun(flags, world)));
  add("catch-up", "charge hours that were missed more than a day ago, or decide not to")
    .requiredOption("--since <hour>", "the oldest hour, such as 2026-01-31T12:00Z")
    .option("--waive", "do not charge these hours: they count as billed")
    .option("-y, --yes", "charge or waive them without asking", false)
    .addOption(dryRun())
    .action((flags: CatchUpFlags) => run(async (world) => (await verbs()).billingCatchUp(flags, world)));
  add("deposits", "show how far the chains were scanned, and the deposits that could not be credited")
    .option(
      "--retry [transfer]",
      "try these deposits again, or this one, which may be dismissed; none is credited twice",
    )
    .option("--dismiss <transfer>", "take one off the list: nothing credits it any more")
    .option("--unclaimed", "list the payments from wallets that no account had linked")
    .option("--after <transfer>", "with --unclaimed: begin after this one")
    .option("--limit <number>", "with --unclaimed: how many (default: 100, maximum: 1000)")
    .action((flags: DepositsFlags) =>
      run(async (world) =>
        (await import("./commands/billing/billing-deposits.ts")).billingDeposits(flags, world),
      ),
    );
}
