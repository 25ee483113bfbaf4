import {
  BATCH_SIZE,
  catchUp,
  type Deduction,
  type DeductionReport,
  HOURS_BACK,
  type HourPreview,
  previewDeduction,
  runDeduction,
  waiveHours,
} from "../billing/deduction.ts";
import { tariffOf } from "../billing/fee.ts";
import { judgeBilling, listRuns, readStanding } from "../billing/runs.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { type InstalledMaster, readInstalledMaster } from "../join/installed-node.ts";
import { withMasterDatabase } from "../join/master-database.ts";
import { billingOf } from "../settings/billing.ts";
import { countOf } from "../units.ts";
import { wrap } from "../ui/text.ts";
import type { World } from "../world.ts";

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
    data: { verb: "billing runs", standing, hours, failures },
    lines: [
      ...(judged === null
        ? [off]
        : wrap(`Billing: ${judged.sentence}.${judged.todo === null ? "" : ` Do: ${judged.todo}`}`, 80)),
      ...(hours.length === 0 ? ["No hour was billed yet."] : world.reporter.table(rows)),
      ...(failures.length === 0 ? [] : ["Charges that failed. Each run of the next day tries them again:"]),
      ...world.reporter.table(failed),
      ...(more > 0 ? [`And ${more} more.`] : []),
    ],
  });
  return judged?.state === "attention" ? "pending" : "ok";
}

/** The flags of `billing run`. */
export interface RunFlags {
  readonly baseDir?: string;
  readonly dryRun: boolean;
}

/** `billing run [--dry-run]`: charges the missed hours of the last day and the current one. */
export async function billingRun({ baseDir, dryRun }: RunFlags, world: World): Promise<VerbExit> {
  return withBilling(baseDir, world, async (run) => {
    if (dryRun) return preview(world, "billing run", await previewDeduction(run, null));
    return finish(world, "billing run", await runDeduction(run));
  });
}

/** The flags of `billing catch-up`. */
export interface CatchUpFlags extends RunFlags {
  readonly since: string;
  readonly waive?: boolean;
}

/** `billing catch-up --since HOUR [--waive] [--dry-run]`: missed hours of any age are charged, or waived. */
export async function billingCatchUp(flags: CatchUpFlags, world: World): Promise<VerbExit> {
  const { baseDir, dryRun, waive = false } = flags;
  const since = readHour(flags.since);
  return withBilling(baseDir, world, async (run) => {
    if (dryRun) return preview(world, "billing catch-up", await previewDeduction(run, since), waive);
    if (!waive) return finish(world, "billing catch-up", await catchUp(run, since));
    const waived = await waiveHours(run.bank, since);
    world.reporter.result({
      data: { verb: "billing catch-up", waived },
      lines: [
        waived === 0
          ? "Nothing to do: no hour was missed since then."
          : `${countOf(waived, "missed hour")} will not be charged.`,
      ],
    });
    return "ok";
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

function preview(world: World, verb: string, hours: readonly HourPreview[], waive = false): VerbExit {
  const some = hours.filter(({ accounts }) => accounts > 0);
  const rows = some.map(({ hour, accounts, fula }) => [
    hour,
    countOf(accounts, "account"),
    `at most ${fula} FULA`,
  ]);
  world.reporter.result({
    data: { verb, dryRun: true, hours },
    lines: [
      some.length === 0
        ? `Nothing to charge in ${countOf(hours.length, "hour")}.`
        : `${countOf(some.length, "hour")} of ${hours.length} would be ${waive ? "waived instead of charged" : "charged"}:`,
      ...world.reporter.table(rows),
      ...(some.length === 0 ? [] : ["An account whose balance ends pays no hour after that."]),
    ],
  });
  return some.length === 0 ? "ok" : "pending";
}

function finish(world: World, verb: string, { hours }: DeductionReport): VerbExit {
  const rows = hours.map(({ hour, charged, amount, suspended, failed }) => [
    hour,
    countOf(charged, "account"),
    `${amount} FULA`,
    [
      ...(suspended === 0 ? [] : [`${suspended} suspended`]),
      ...(failed === 0 ? [] : [`${failed} failed`]),
    ].join(", "),
  ]);
  const hasFailed = hours.some(({ failed }) => failed > 0);
  world.reporter.result({
    data: { verb, dryRun: false, hours },
    lines: [
      hours.length === 0
        ? "Nothing to do: no hour was missed since then."
        : hours.every(({ charged }) => charged === 0)
          ? "Nothing was charged: no account had anything left to pay for."
          : "Charged:",
      ...world.reporter.table(rows),
      ...(hasFailed ? ["Charges that failed are tried again: fula-node billing runs"] : []),
    ],
  });
  return hasFailed ? "pending" : "ok";
}

async function withBilling(
  baseDir: string | undefined,
  world: World,
  work: (run: Deduction) => Promise<VerbExit>,
): Promise<VerbExit> {
  const master = await readInstalledMaster(world, baseDir);
  refuseOff(master);
  const { values } = master;
  const tariff = tariffOf({
    freeTierBytes: Number(values("FREE_TIER_BYTES")),
    fulaPerGibMonth: Number(values("FULA_PER_GB_MONTH")),
  });
  return withMasterDatabase(world, master, "billing", (bank) =>
    work({
      bank,
      tariff,
      batchSize: BATCH_SIZE,
      log: (text) => world.reporter.listen({ type: "warning", text }),
    }),
  );
}

function refuseOff({ layout, values }: InstalledMaster): void {
  const settings = billingOf(values);
  if (settings?.idempotent === true) return;
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
