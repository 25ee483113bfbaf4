import { actorOf } from "../../accounts/decisions.ts";
import {
  addDecimals,
  auditHours,
  BATCH_SIZE,
  catchUp,
  type Deduction,
  type DeductionReport,
  HOURS_BACK,
  type HourPreview,
  previewDeduction,
  runDeduction,
  waiveHours,
} from "../../billing/deduction.ts";
import { tariffOf } from "../../billing/fee.ts";
import { judgeBilling, judgeLeader, listRuns, readStanding, RUNS } from "../../billing/runs.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import { type InstalledMaster, readInstalledMaster } from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import { billingOf, type BillingSettings } from "../../settings/billing.ts";
import { countOf } from "../../units.ts";
import { wrap } from "../../ui/text.ts";
import type { World } from "../../world.ts";

/** The flags of `billing runs`. */
export interface RunsFlags {
  readonly baseDir?: string;
  readonly limit?: string;
}

const DEFAULT_RUNS = "24";
const MAX_RUNS = 1_000;

/** `billing runs [--limit N]`: who runs the billing, the newest hours, and charges that failed. */
export async function billingRuns(
  { baseDir, limit = DEFAULT_RUNS }: RunsFlags,
  world: World,
): Promise<VerbExit> {
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_RUNS)
    throw usage(
      `--limit is ${JSON.stringify(limit.slice(0, 80))}; it must be a whole number from 1 to ${MAX_RUNS}.`,
      `Pass a number of hours, such as --limit ${DEFAULT_RUNS}.`,
    );
  const master = await readInstalledMaster(world, baseDir);
  const found = await withMasterDatabase(world, master, "billing", async (database) => ({
    standing: await readStanding(database, HOURS_BACK),
    ...(await listRuns(database, Number(limit))),
  }));
  const { standing, hours, failures } = found;
  const settings = billingOf(master.values);
  const judged = standing === null || settings?.idempotent !== true ? null : judgeBilling(standing, settings);
  const off = `Nothing is billed: ${settings === null ? "VAULT_ADDRESS is not set" : "BILLING_IDEMPOTENCY is false"}.`;
  const rows = hours.map(({ hour, state, charged, amount, suspended }) => [
    hour,
    state,
    countOf(charged, "account"),
    `${amount} FULA`,
    suspended === 0 ? "" : `${suspended} suspended`,
  ]);
  const failed = failures.map(({ hour, account, fee, reason, tries }) => [
    hour,
    `${account} for ${fee} FULA, tried ${countOf(tries, "time")}: ${reason}`,
  ]);
  const more = (standing?.failures ?? 0) - failures.length;
  world.reporter.result({
    data: { verb: "billing runs", off: judged === null ? off : null, standing, hours, failures },
    lines: [
      ...(judged === null
        ? [off]
        : wrap(
            `Billing: ${judged.sentence}.${judged.todo === null || judged.todo === RUNS ? "" : ` Do: ${judged.todo}`}`,
          )),
      ...(hours.length === 0 ? ["No hour was billed yet."] : world.reporter.table(rows)),
      ...(failures.length === 0 ? [] : ["Charges that failed. Each run of the next day tries them again:"]),
      ...world.reporter.table(failed),
      ...(more > 0 ? [`And ${more} more.`] : []),
    ],
  });
  const isBroken = judged === null ? settings !== null : judged.state === "attention";
  return isBroken ? "pending" : "ok";
}

/** The flags of `billing run`. */
export interface RunFlags {
  readonly baseDir?: string;
  readonly dryRun: boolean;
}

/** `billing run [--dry-run]`: charges the missed hours of the last day and the current one. */
export async function billingRun({ baseDir, dryRun }: RunFlags, world: World): Promise<VerbExit> {
  return withBilling(baseDir, world, async (run, settings) => {
    if (dryRun) return preview(run, { world, settings, verb: "billing run", since: null });
    return finish(world, "billing run", await runDeduction(run));
  });
}

/** The flags of `billing catch-up`. */
export interface CatchUpFlags extends RunFlags {
  readonly since: string;
  readonly waive?: boolean;
  /** Without a question. */
  readonly yes?: boolean;
}

/** `billing catch-up --since HOUR [--waive] [--dry-run] [--yes]`: missed hours of any age are charged, or waived. */
export async function billingCatchUp(flags: CatchUpFlags, world: World): Promise<VerbExit> {
  const { baseDir, dryRun, waive = false, yes = false } = flags;
  const since = readHour(flags.since);
  return withBilling(baseDir, world, async (run, settings) => {
    const verb = "billing catch-up";
    if (dryRun) return preview(run, { world, settings, verb, since, waive });
    const hours = await previewDeduction(run, since);
    if (!yes && hours.length > 0) await confirmHours(hours, waive, world);
    const actor = actorOf(world);
    if (!waive) {
      const done = await catchUp(run, since);
      if (done.hours.length > 0) await auditHours(run.bank, "catch-up", { actor, since, hours: done.hours });
      return finish(world, verb, done);
    }
    const waived = await waiveHours(run.bank, since);
    if (waived > 0) await auditHours(run.bank, "waive hours", { actor, since, waived, hours });
    world.reporter.result({
      data: { verb, waived },
      lines: [
        waived === 0
          ? "Nothing to do: no hour was missed since then."
          : `${countOf(waived, "missed hour")} will not be charged.`,
      ],
    });
    return "ok";
  });
}

/** Asks on the terminal. Throws (`preflight`) without one, and (`pending`) if the answer is no. */
async function confirmHours(
  hours: readonly HourPreview[],
  waive: boolean,
  { questions }: Pick<World, "questions">,
): Promise<void> {
  const charges = hours.reduce((sum, { accounts }) => sum + accounts, 0);
  const fula = hours.reduce((sum, one) => addDecimals(sum, one.fula), "0");
  const what = `${countOf(hours.length, "missed hour")} with ${countOf(charges, "charge")} of at most ${fula} FULA in all`;
  const effect = waive ? `${what} will never be charged.` : `${what} will be charged now.`;
  if (questions === null)
    throw new OperatorError({
      exit: "preflight",
      what: `Confirmation required: ${effect}`,
      why: "There is no terminal to ask on. Nothing was changed.",
      remedy: "See the hours with --dry-run, then run again with --yes.",
    });
  if (await questions.confirm(`${effect} Go on?`, false)) return;
  throw new OperatorError({
    exit: "pending",
    what: "You answered no. Nothing was changed.",
    remedy: "See the hours with --dry-run.",
  });
}

/** The beginning of an hour in UTC. */
function readHour(text: string): string {
  const hour = /^(\d{4}-\d\d-\d\dT\d\d)(?::00)?Z$/.exec(text)?.[1];
  const at = new Date(`${hour ?? ""}:00:00Z`);
  // February 30 is March 2 for Date.
  if (hour !== undefined && !Number.isNaN(at.getTime()) && at.toISOString().startsWith(hour))
    return `${hour}:00Z`;
  throw usage(
    `--since is ${JSON.stringify(text.slice(0, 80))}; it must be the beginning of an hour in UTC.`,
    "Pass an hour, such as --since 2026-01-31T12:00Z. fula-node billing runs shows them.",
  );
}

interface Preview {
  readonly world: World;
  readonly settings: BillingSettings;
  readonly verb: string;
  readonly since: string | null;
  readonly waive?: boolean;
}

async function preview(run: Deduction, wish: Preview): Promise<VerbExit> {
  const { world, settings, verb, since, waive = false } = wish;
  const hours = await previewDeduction(run, since);
  const standing = await readStanding(run.bank, HOURS_BACK);
  const absent = standing === null ? null : judgeLeader(standing, settings.lease);
  const some = hours.filter(({ accounts }) => accounts > 0);
  const rows = some.map(({ hour, accounts, fula }) => [
    hour,
    countOf(accounts, "account"),
    `at most ${fula} FULA`,
  ]);
  world.reporter.result({
    data: { verb, dryRun: true, hours, leaderFault: absent },
    lines: [
      hours.length === 0
        ? "Nothing to do: no hour was missed since then."
        : some.length === 0
          ? `Nothing to charge in ${countOf(hours.length, "hour")}.`
          : `${countOf(some.length, "hour")} of ${hours.length} would be ${waive ? "waived instead of charged" : "charged"}:`,
      ...world.reporter.table(rows),
      ...(some.length === 0 ? [] : ["An account whose balance ends pays no hour after that."]),
      ...(absent === null ? [] : wrap(`By itself, nothing is charged: ${absent}.`)),
    ],
  });
  return some.length === 0 && absent === null ? "ok" : "pending";
}

function finish(world: World, verb: string, { hours, failedAgain }: DeductionReport): VerbExit {
  const rows = hours.map(({ hour, charged, amount, suspended, failed }) => [
    hour,
    countOf(charged, "account"),
    `${amount} FULA`,
    [
      ...(suspended === 0 ? [] : [`${suspended} suspended`]),
      ...(failed === 0 ? [] : [`${failed} failed`]),
    ].join(", "),
  ]);
  const hasFailed = failedAgain > 0 || hours.some(({ failed }) => failed > 0);
  world.reporter.result({
    data: { verb, dryRun: false, hours, failedAgain },
    lines: [
      hours.length === 0 && !hasFailed
        ? "Nothing to do: no hour was missed since then."
        : hours.some(({ charged }) => charged > 0)
          ? "Charged:"
          : hasFailed
            ? "Nothing was charged, because charges failed:"
            : "Nothing was charged: no account had anything left to pay for.",
      ...world.reporter.table(rows),
      ...(failedAgain === 0 ? [] : [`${countOf(failedAgain, "charge")} of earlier failed again.`]),
      ...(hasFailed ? ["The reasons of charges that failed: fula-node billing runs"] : []),
    ],
  });
  return hasFailed ? "pending" : "ok";
}

async function withBilling(
  baseDir: string | undefined,
  world: World,
  work: (run: Deduction, settings: BillingSettings) => Promise<VerbExit>,
): Promise<VerbExit> {
  const master = await readInstalledMaster(world, baseDir);
  const settings = refuseOff(master);
  const { values } = master;
  const tariff = tariffOf({
    freeTierBytes: Number(values("FREE_TIER_BYTES")),
    fulaPerGibMonth: Number(values("FULA_PER_GB_MONTH")),
  });
  return withMasterDatabase(world, master, "billing", (bank) =>
    work(
      {
        bank,
        tariff,
        batchSize: BATCH_SIZE,
        log: (text) => world.reporter.listen({ type: "warning", text }),
      },
      settings,
    ),
  );
}

function refuseOff({ layout, values }: InstalledMaster): BillingSettings {
  const settings = billingOf(values);
  if (settings?.idempotent === true) return settings;
  throw new OperatorError({
    exit: "settings",
    what: "This master bills nothing.",
    why:
      settings === null
        ? `${layout.envFile} has no VAULT_ADDRESS, or the zero address.`
        : "BILLING_IDEMPOTENCY is false, so an hour could be charged twice.",
    remedy:
      settings === null
        ? "Pass --set VAULT_ADDRESS=0x... to join-as-master."
        : "Pass --set BILLING_IDEMPOTENCY=true to join-as-master.",
  });
}

function usage(what: string, remedy?: string): OperatorError {
  return new OperatorError({ exit: "usage", what, ...(remedy === undefined ? {} : { remedy }) });
}
