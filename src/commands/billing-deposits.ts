import { actorOf } from "../accounts/decisions.ts";
import {
  type DepositStanding,
  isQuiet,
  judgeDeposits,
  listFailedDeposits,
  readDepositStanding,
} from "../billing/deposit-standing.ts";
import { dismissFailed, retryFailed } from "../billing/deposits.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { readInstalledMaster } from "../join/installed-node.ts";
import { withMasterDatabase } from "../join/master-database.ts";
import { billingOf, type BillingSettings, CHAIN_KEYS } from "../settings/billing.ts";
import { age, countOf } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `billing deposits`. */
export interface DepositsFlags {
  readonly baseDir?: string;
  readonly retry?: boolean;
  /** A transfer as the list shows it. */
  readonly dismiss?: string;
}

const SHOWN = 100;
const MAX_INTEGER = 2_147_483_647;

/** `billing deposits [--retry] [--dismiss TRANSFER]`: how far each chain was scanned, and what could not be credited. */
export async function billingDeposits(
  { baseDir, retry = false, dismiss }: DepositsFlags,
  world: World,
): Promise<VerbExit> {
  const dismissed = dismiss === undefined ? null : readTransfer(dismiss);
  const master = await readInstalledMaster(world, baseDir);
  const settings = billingOf(master.values);
  if (settings === null)
    throw new OperatorError({
      exit: "settings",
      what: "This master looks for no deposits.",
      why: `${master.layout.envFile} has no VAULT_ADDRESS, or the zero address.`,
      remedy: "Pass --set VAULT_ADDRESS=0x... to join-as-master.",
    });
  const found = await withMasterDatabase(world, master, "billing", async (database) => {
    if (dismissed !== null && !(await dismissFailed(database, dismissed, actorOf(world))))
      throw notListed(dismiss ?? "");
    const retried = retry ? await retryFailed(database, settings.bonuses) : null;
    const standing = await readDepositStanding(database);
    return { retried, standing, failed: standing === null ? [] : await listFailedDeposits(database, SHOWN) };
  });
  const { retried, standing, failed } = found;
  const rows = failed.map(({ chainId, txHash, logIndex, fula, reason, tries }) => [
    `${chainId}:${txHash}:${logIndex}`,
    `${fula} FULA, tried ${countOf(tries, "time")}: ${reason}`,
  ]);
  world.reporter.result({
    data: { verb: "billing deposits", retried, ...standing, failures: failed },
    lines: [
      ...(retried === null ? [] : [`Tried again: ${retried.settled} settled, ${retried.failed} failed.`]),
      ...world.reporter.table(chainRows(standing, settings)),
      ...(standing === null || standing.unclaimed === 0
        ? []
        : [
            `${countOf(standing.unclaimed, "transfer")} came from wallets that no account has linked.`,
            "Their owners link the wallet, and claim.",
          ]),
      ...(rows.length === 0
        ? (standing?.chains ?? []).length === 0
          ? []
          : [isAllScanned(standing, settings) ? "Every deposit was credited." : UNREAD]
        : [
            `${countOf(standing?.failed ?? rows.length, "transfer")} could not be credited. Correct the reason, then:`,
            "  fula-node billing deposits --retry",
          ]),
      ...world.reporter.table(rows),
    ],
  });
  const needsAttention =
    failed.length > 0 || (standing !== null && judgeDeposits(standing, settings) !== null);
  return needsAttention ? "pending" : "ok";
}

const UNREAD = "Every deposit that was found is credited. What a chain did not report is not known yet.";

/** Of the chains that this master scans. */
function isAllScanned(standing: DepositStanding | null, settings: BillingSettings): boolean {
  const mine = standing?.chains.filter(({ id }) => settings.chains.some((one) => one.id === id)) ?? [];
  return mine.every(
    (chain) => chain.fault === null && chain.scannedSeconds !== null && !isQuiet(chain, settings),
  );
}

/** Reads `8453:0x...:3`: chain, transaction, and log index. */
function readTransfer(text: string): {
  readonly chainId: number;
  readonly txHash: string;
  readonly logIndex: number;
} {
  const [, chain = "", txHash = "", log = ""] =
    /^([1-9]\d{0,9}):(0x[0-9a-f]{64}):(\d{1,10})$/.exec(text) ?? [];
  const [chainId, logIndex] = [Number(chain), Number(log)];
  if (txHash === "" || Math.max(chainId, logIndex) > MAX_INTEGER) throw notListed(text);
  return { chainId, txHash, logIndex };
}

function notListed(text: string): OperatorError {
  return new OperatorError({
    exit: "usage",
    what: `There is no failed deposit ${JSON.stringify(text.slice(0, 120))}.`,
    remedy: "Pass one as fula-node billing deposits shows it: --dismiss CHAIN:TRANSACTION:LOG.",
  });
}

function chainRows(
  standing: DepositStanding | null,
  settings: BillingSettings,
): readonly (readonly string[])[] {
  const scanned = standing?.chains ?? [];
  const rows = scanned.map(({ id, name, cursor, head, scannedSeconds, fault }) => {
    const key = CHAIN_KEYS.find((one) => one.id === id)?.key;
    if (!settings.chains.some((one) => one.id === id))
      return [name, "not scanned by this master", key === undefined ? "" : `${key} is not set`];
    const when =
      scannedSeconds === null ? "never scanned to the end" : `scanned ${age(scannedSeconds * 1_000)} ago`;
    return [name, `block ${cursor}${head === 0 ? "" : ` of ${head}`}, ${when}`, fault ?? ""];
  });
  return rows.length === 0 ? [["No chain was scanned yet.", "", ""]] : rows;
}
