import { actorOf } from "../../accounts/decisions.ts";
import { HOURS_BACK } from "../../billing/deduction.ts";
import {
  type DepositStanding,
  type FailedDeposit,
  isQuiet,
  judgeDeposits,
  listFailedDeposits,
  listUnclaimed,
  readDepositStanding,
  type UnclaimedDeposit,
} from "../../billing/deposit-standing.ts";
import { type Decided, dismissFailed, retryFailed, type TransferName } from "../../billing/deposits.ts";
import { judgeLeader, readStanding } from "../../billing/runs.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import { readInstalledMaster } from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import { billingOf, type BillingSettings, CHAIN_KEYS } from "../../settings/billing.ts";
import { age, countOf } from "../../units.ts";
import { wrap } from "../../ui/text.ts";
import type { World } from "../../world.ts";

/** The flags of `billing deposits`. */
export interface DepositsFlags {
  readonly baseDir?: string;
  /** True for all of the list; or one transfer, as the list shows it. */
  readonly retry?: boolean | string;
  readonly dismiss?: string;
  readonly unclaimed?: boolean;
  readonly after?: string;
  readonly limit?: string;
}

const SHOWN = 100;
const MAX_SHOWN = 1_000;
const MAX_INTEGER = 2_147_483_647;

/**
 * `billing deposits [--retry [TRANSFER]] [--dismiss TRANSFER] [--unclaimed]`: how far each chain was scanned, and what could not be
 * credited.
 */
export async function billingDeposits(flags: DepositsFlags, world: World): Promise<VerbExit> {
  const { baseDir, retry = false, dismiss } = flags;
  const page = readPage(flags);
  const named = typeof retry === "string" ? readTransfer(retry, "--retry") : null;
  const dismissed = dismiss === undefined ? null : readTransfer(dismiss, "--dismiss");
  const master = await readInstalledMaster(world, baseDir);
  const settings = billingOf(master.values);
  if (settings === null)
    throw new OperatorError({
      exit: "settings",
      what: "This master looks for no deposits.",
      why: `${master.layout.envFile} has no VAULT_ADDRESS, or the zero address.`,
      remedy: "Pass --set VAULT_ADDRESS=0x... to join-as-master.",
    });
  return withMasterDatabase(world, master, "billing", async (database) => {
    const actor = actorOf(world);
    if (page !== null) return showUnclaimed(await listUnclaimed(database, page), page.limit, world);
    if (dismissed !== null && dismiss !== undefined) {
      const decided = await dismissFailed(database, dismissed, actor);
      if (decided === null) throw notListed(dismiss, "--dismiss");
      return showDismissed(dismiss, decided, world);
    }
    const retried =
      retry === false
        ? null
        : await retryFailed(database, settings.bonuses, named === null ? null : { ...named, by: actor });
    if (typeof retry === "string" && retried !== null && retried.settled + retried.failed === 0)
      throw notListed(retry, "--retry");
    const standing = await readDepositStanding(database);
    const billing = await readStanding(database, HOURS_BACK);
    return show(
      {
        settings,
        retried,
        standing,
        failed: standing === null ? [] : await listFailedDeposits(database, SHOWN),
        idle: settings.idempotent
          ? billing && judgeLeader(billing, settings.lease)
          : "BILLING_IDEMPOTENCY is false",
      },
      world,
    );
  });
}

interface Found {
  readonly settings: BillingSettings;
  readonly retried: { readonly settled: number; readonly failed: number } | null;
  readonly standing: DepositStanding | null;
  readonly failed: readonly FailedDeposit[];
  /** Why nobody looks for deposits now; null if somebody does. */
  readonly idle: string | null;
}

function show({ settings, retried, standing, failed, idle }: Found, world: World): VerbExit {
  const rows = failed.map(({ chainId, txHash, logIndex, fula, reason, tries }) => [
    `${chainId}:${txHash}:${logIndex}`,
    `${fula} FULA, tried ${countOf(tries, "time")}: ${reason}`,
  ]);
  const { unclaimed = 0, dismissed = 0 } = standing ?? {};
  const judged = standing === null ? null : judgeDeposits(standing, settings);
  const chains = (standing?.chains ?? []).map((chain) => ({
    ...chain,
    notScanned: keyMissing(chain.id, settings),
  }));
  world.reporter.result({
    data: { verb: "billing deposits", retried, idle, ...standing, chains, failures: failed },
    lines: [
      ...(retried === null ? [] : [`Tried again: ${retried.settled} settled, ${retried.failed} failed.`]),
      ...(idle === null ? [] : wrap(`Nobody looks for deposits now: ${idle}.`)),
      ...world.reporter.table(chainRows(standing, settings)),
      ...(judged === null || failed.length > 0 ? [] : wrap(`Do: ${judged.todo}`)),
      ...(unclaimed === 0
        ? []
        : [
            `${countOf(unclaimed, "payment")} came from wallets that no account had linked.`,
            "Their owners link the wallet, and claim. To list them:",
            "  fula-node billing deposits --unclaimed",
          ]),
      ...(dismissed === 0 ? [] : [`${countOf(dismissed, "deposit")} dismissed: not credited.`]),
      ...(rows.length === 0
        ? chains.length === 0
          ? []
          : idle === null && isAllScanned(standing, settings)
            ? [
                unclaimed + dismissed === 0
                  ? "Every deposit was credited."
                  : "Every other deposit was credited.",
              ]
            : UNREAD
        : [
            `${countOf(standing?.failed ?? rows.length, "transfer")} could not be credited. Correct the reason, then:`,
            "  fula-node billing deposits --retry",
          ]),
      ...world.reporter.table(rows),
    ],
  });
  return failed.length > 0 || idle !== null || judged !== null ? "pending" : "ok";
}

function showDismissed(transfer: string, { fula, from }: Decided, world: World): VerbExit {
  world.reporter.result({
    data: { verb: "billing deposits", dismissed: transfer, fula, from },
    lines: [
      ...wrap(`Dismissed ${fula} FULA from ${from}.`),
      "No scan, claim or retry of the list credits it. To take it back and try it:",
      `  fula-node billing deposits --retry ${transfer}`,
    ],
  });
  return "ok";
}

function showUnclaimed(found: readonly UnclaimedDeposit[], limit: number, world: World): VerbExit {
  const shown = found.slice(0, limit - 1);
  const last = shown.at(-1);
  const next =
    found.length > shown.length && last !== undefined
      ? `${last.chainId}:${last.txHash}:${last.logIndex}`
      : null;
  world.reporter.result({
    data: { verb: "billing deposits", unclaimed: shown, next },
    lines: [
      shown.length === 0
        ? "No payment from a wallet that no account had linked."
        : `${next === null ? "" : "The first "}${countOf(shown.length, "payment")} from wallets that no account had linked:`,
      ...world.reporter.table(
        shown.map(({ chainId, txHash, logIndex, from, fula, seen }) => [
          `${chainId}:${txHash}:${logIndex}`,
          `${fula} FULA from ${from}, seen ${seen}`,
        ]),
      ),
      ...(next === null ? [] : ["More:", `  fula-node billing deposits --unclaimed --after ${next}`]),
    ],
  });
  return "ok";
}

/** Which payments to list; null if others flags ask for something else. One more than asked for shows whether there are more. */
function readPage({ unclaimed = false, after, limit, retry, dismiss }: DepositsFlags) {
  const asked = [retry !== undefined && retry !== false, dismiss !== undefined, unclaimed];
  if (asked.filter(Boolean).length > 1)
    throw usage("--retry, --dismiss and --unclaimed can't be passed together.", "Pass one of them.");
  if (!unclaimed && (after !== undefined || limit !== undefined))
    throw usage("--after and --limit are for --unclaimed.", "Add --unclaimed.");
  if (!unclaimed) return null;
  const count = limit ?? String(SHOWN);
  if (!/^[1-9][0-9]{0,3}$/.test(count) || Number(count) > MAX_SHOWN)
    throw usage(
      `--limit is ${JSON.stringify(count.slice(0, 80))}; it must be a whole number from 1 to ${MAX_SHOWN}.`,
      `Pass a number, such as --limit ${SHOWN}.`,
    );
  return { after: after === undefined ? null : readTransfer(after, "--after"), limit: Number(count) + 1 };
}

function usage(what: string, remedy: string): OperatorError {
  return new OperatorError({ exit: "usage", what, remedy });
}

const UNREAD = ["Every deposit that was found is credited.", "What a chain did not report is not known yet."];

/** Of the chains that this master scans. */
function isAllScanned(standing: DepositStanding | null, settings: BillingSettings): boolean {
  const mine = standing?.chains.filter(({ id }) => settings.chains.some((one) => one.id === id)) ?? [];
  return mine.every(
    (chain) => chain.fault === null && chain.scannedSeconds !== null && !isQuiet(chain, settings),
  );
}

/** Reads `8453:0x...:3`: chain, transaction, and log index. */
function readTransfer(text: string, flag: string): TransferName {
  const [, chain = "", txHash = "", log = ""] =
    /^([1-9]\d{0,9}):(0x[0-9a-f]{64}):(\d{1,10})$/.exec(text) ?? [];
  const [chainId, logIndex] = [Number(chain), Number(log)];
  if (txHash === "" || Math.max(chainId, logIndex) > MAX_INTEGER) throw notListed(text, flag);
  return { chainId, txHash, logIndex };
}

function notListed(text: string, flag: string): OperatorError {
  return usage(
    `There is no such deposit: ${JSON.stringify(text.slice(0, 120))}.`,
    `Pass one as fula-node billing deposits shows it: ${flag} CHAIN:TRANSACTION:LOG.`,
  );
}

/** Why this master does not scan a chain; null if it does. */
function keyMissing(id: number, settings: BillingSettings): string | null {
  if (settings.chains.some((one) => one.id === id)) return null;
  const key = CHAIN_KEYS.find((one) => one.id === id)?.key;
  return key === undefined ? "this program does not know the chain" : `${key} is not set`;
}

function chainRows(
  standing: DepositStanding | null,
  settings: BillingSettings,
): readonly (readonly string[])[] {
  const scanned = standing?.chains ?? [];
  const rows = scanned.map(({ id, name, cursor, head, scannedSeconds, fault }) => {
    const missing = keyMissing(id, settings);
    if (missing !== null) return [name, "not scanned by this master", missing];
    const when =
      scannedSeconds === null ? "never scanned to the end" : `scanned ${age(scannedSeconds * 1_000)} ago`;
    return [name, `block ${cursor}${head === 0 ? "" : ` of ${head}`}, ${when}`, fault ?? ""];
  });
  return rows.length === 0 ? [["No chain was scanned yet.", "", ""]] : rows;
}
