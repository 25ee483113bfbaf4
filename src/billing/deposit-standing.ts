import type { PostgresPool } from "../database/postgres.ts";
import { type BillingSettings, CHAIN_KEYS } from "../settings/billing.ts";
import { age, countOf } from "../units.ts";
import type { TransferName } from "./deposits.ts";
import type { BillingJudgement } from "./runs.ts";
import { isOfVault } from "./transfer.ts";

type Database = Pick<PostgresPool, "query">;

/** How the deposits stand, as the database has it. */
export interface DepositStanding {
  readonly failed: number;
  /** Transfers that the operator has decided not to credit. */
  readonly dismissed: number;
  /** Transfers from wallets that nobody had linked. */
  readonly unclaimed: number;
  readonly chains: readonly ChainStanding[];
}

/** How the scan of a chain stands. */
export interface ChainStanding extends Record<string, unknown> {
  readonly id: number;
  readonly name: string;
  readonly cursor: number;
  /** The newest block when it was last scanned; 0: never. */
  readonly head: number;
  /** Seconds since a scan reached the newest confirmed block; null: never. */
  readonly scannedSeconds: number | null;
  /** Seconds since a scan reached any block, or since somebody should have begun to scan; null: nobody ran the billing yet. */
  readonly quietSeconds: number | null;
  /** Why the last scan ended early. */
  readonly fault: string | null;
  /** Seconds since each scan does. */
  readonly faultSeconds: number | null;
  /** True if that is a mistake in the settings, which does not end by itself. */
  readonly faultLasts: boolean;
}

/** Reads it. Null if the database has no tables of the deposits yet. */
export async function readDepositStanding(database: Database): Promise<DepositStanding | null> {
  const [there] = await database.query<{ there: boolean }>(
    "SELECT to_regclass('public.chain_scans') IS NOT NULL AS there",
  );
  if (there?.there !== true) return null;
  const chains = await database.query<ChainStanding>(SCANS);
  const [counts] = await database.query<Omit<DepositStanding, "chains"> & Record<string, unknown>>(COUNTS);
  return { failed: 0, dismissed: 0, unclaimed: 0, ...counts, chains };
}

const SCANS = `
  SELECT c.chain_id AS id, c.chain_name AS name, coalesce(c.last_scanned_block, 0)::float8 AS cursor, s.head::float8 AS head,
    extract(epoch FROM now() - s.scanned_at)::float8 AS "scannedSeconds", s.fault,
    extract(epoch FROM now() - s.fault_since)::float8 AS "faultSeconds", s.fault_lasts AS "faultLasts",
    extract(epoch FROM now() - coalesce(greatest(s.scanned_at, c.last_scan_at),
      (SELECT acquired_at FROM cron_lease WHERE name = 'billing' AND pid IS NOT NULL),
      (SELECT min(started_at) FROM billing_hours)))::float8 AS "quietSeconds"
  FROM chain_sync_state c JOIN chain_scans s USING (chain_id) WHERE c.is_enabled = 1 ORDER BY c.chain_id`;

/** Recorded, and not credited. One that failed is in the other list. */
const UNCLAIMED = `
  FROM deposits d WHERE account IS NULL AND NOT EXISTS (SELECT FROM failed_deposits f
    WHERE f.chain_id = d.chain_id AND f.tx_hash = d.tx_hash AND f.log_index = d.log_index)`;

const COUNTS = `
  SELECT (SELECT count(*) FROM failed_deposits WHERE dismissed_at IS NULL)::integer AS failed,
    (SELECT count(*) FROM failed_deposits WHERE dismissed_at IS NOT NULL)::integer AS dismissed,
    (SELECT count(*) ${UNCLAIMED})::integer AS unclaimed`;

/** A scan that fails for so long is reported: public nodes are often overloaded for a minute. */
const PATIENCE_SECONDS = 900;

/** So many intervals without a scan are reported. */
const INTERVALS = 3;

/** Whether nobody scans a chain: a run of the scanner, with its grace, is overdue several times. */
export function isQuiet(
  { quietSeconds }: Pick<ChainStanding, "quietSeconds">,
  { scannerIntervalMs }: Pick<BillingSettings, "scannerIntervalMs">,
): boolean {
  return (quietSeconds ?? 0) > (INTERVALS * scannerIntervalMs) / 1_000 + PATIENCE_SECONDS;
}

/** Judges the deposits; null if there is nothing to report. */
export function judgeDeposits(
  { failed, chains }: DepositStanding,
  settings: {
    readonly chains: readonly Pick<BillingSettings["chains"][number], "id">[];
    readonly scannerIntervalMs: number;
  },
): Pick<BillingJudgement, "sentence" | "todo"> | null {
  const todo = "fula-node billing deposits";
  if (failed > 0) return { sentence: `${countOf(failed, "deposit")} could not be credited`, todo };
  const mine = chains.filter(({ id }) => settings.chains.some((one) => one.id === id));
  const silent = mine.find(
    ({ fault, faultSeconds, faultLasts }) =>
      fault !== null && (faultLasts || (faultSeconds ?? 0) > PATIENCE_SECONDS),
  );
  if (silent === undefined) return judgeQuiet(mine.find((chain) => isQuiet(chain, settings)));
  const { id, name, fault, faultSeconds } = silent;
  const key = CHAIN_KEYS.find((one) => one.id === id)?.key;
  return {
    sentence: `no deposits from ${name} for ${age((faultSeconds ?? 0) * 1_000)}: ${fault}`,
    todo:
      key === undefined || isOfVault(fault ?? "")
        ? "see docs/billing.md#chains"
        : `give another node: fula-node join-as-master --set-file ${key}=PATH`,
  };
}

/** A leader without the chain's URL scans it no more than one that hangs. */
function judgeQuiet(quiet: ChainStanding | undefined): Pick<BillingJudgement, "sentence" | "todo"> | null {
  if (quiet === undefined) return null;
  const key = CHAIN_KEYS.find(({ id }) => id === quiet.id)?.key ?? "its RPC URL";
  return {
    sentence: `nobody has scanned ${quiet.name} for ${age((quiet.quietSeconds ?? 0) * 1_000)}`,
    todo: `set ${key} on the master that runs the billing, or see docker logs fula-pinning-webui there`,
  };
}

/** A transfer that could not be credited. */
export interface FailedDeposit extends Record<string, unknown> {
  readonly chainId: number;
  readonly txHash: string;
  readonly logIndex: number;
  readonly from: string;
  readonly fula: string;
  readonly reason: string;
  readonly tries: number;
}

/** The oldest ones. */
export async function listFailedDeposits(
  database: Database,
  limit: number,
): Promise<readonly FailedDeposit[]> {
  return database.query<FailedDeposit>(
    `SELECT chain_id AS "chainId", tx_hash AS "txHash", log_index AS "logIndex", transfer->>'from' AS "from",
       trim_scale((transfer->>'amount')::numeric * 1e-18)::text AS fula, reason, tries
     FROM failed_deposits WHERE dismissed_at IS NULL ORDER BY failed_deposits.failed_at, chain_id, tx_hash, log_index LIMIT $1`,
    [limit],
  );
}

/** A transfer that is recorded, and belongs to nobody yet. */
export interface UnclaimedDeposit extends Record<string, unknown> {
  readonly chainId: number;
  readonly txHash: string;
  readonly logIndex: number;
  readonly from: string;
  readonly fula: string;
  /** When it was recorded, in UTC. */
  readonly seen: string;
}

/** In the order of their names, after one. */
export async function listUnclaimed(
  database: Database,
  { after, limit }: { readonly after: TransferName | null; readonly limit: number },
): Promise<readonly UnclaimedDeposit[]> {
  return database.query<UnclaimedDeposit>(
    `SELECT chain_id AS "chainId", tx_hash AS "txHash", log_index AS "logIndex", from_address AS "from",
       trim_scale(amount * 1e-18)::text AS fula, to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS seen
     ${UNCLAIMED} AND (chain_id, tx_hash, log_index) > ($1::integer, $2::text, $3::integer)
     ORDER BY chain_id, tx_hash, log_index LIMIT $4`,
    [after?.chainId ?? 0, after?.txHash ?? "", after?.logIndex ?? 0, limit],
  );
}
