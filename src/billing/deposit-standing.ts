import type { PostgresPool } from "../database/postgres.ts";
import { type BillingSettings, CHAIN_KEYS } from "../settings/billing.ts";
import { age, countOf } from "../units.ts";
import type { BillingJudgement } from "./runs.ts";

type Database = Pick<PostgresPool, "query">;

/** How the deposits stand, as the database has it. */
export interface DepositStanding {
  readonly failed: number;
  /** Transfers from wallets that nobody has linked. */
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
}

/** Reads it. Null if the database has no tables of the deposits yet. */
export async function readDepositStanding(database: Database): Promise<DepositStanding | null> {
  const [there] = await database.query<{ there: boolean }>(
    "SELECT to_regclass('public.chain_scans') IS NOT NULL AS there",
  );
  if (there?.there !== true) return null;
  const chains = await database.query<ChainStanding>(SCANS);
  const [counts] = await database.query<{ failed: number; unclaimed: number }>(COUNTS);
  return { failed: counts?.failed ?? 0, unclaimed: counts?.unclaimed ?? 0, chains };
}

const SCANS = `
  SELECT c.chain_id AS id, c.chain_name AS name, coalesce(c.last_scanned_block, 0)::float8 AS cursor, s.head::float8 AS head,
    extract(epoch FROM now() - s.scanned_at)::float8 AS "scannedSeconds", s.fault,
    extract(epoch FROM now() - s.fault_since)::float8 AS "faultSeconds",
    extract(epoch FROM now() - coalesce(greatest(s.scanned_at, c.last_scan_at),
      (SELECT acquired_at FROM cron_lease WHERE name = 'billing' AND pid IS NOT NULL),
      (SELECT min(started_at) FROM billing_hours)))::float8 AS "quietSeconds"
  FROM chain_sync_state c JOIN chain_scans s USING (chain_id) WHERE c.is_enabled = 1 ORDER BY c.chain_id`;

const COUNTS = `
  SELECT (SELECT count(*) FROM failed_deposits)::integer AS failed,
    (SELECT count(*) FROM deposits WHERE account IS NULL)::integer AS unclaimed`;

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
    ({ fault, faultSeconds }) => fault !== null && (faultSeconds ?? 0) > PATIENCE_SECONDS,
  );
  if (silent === undefined) return judgeQuiet(mine.find((chain) => isQuiet(chain, settings)));
  return {
    sentence: `no deposits from ${silent.name} for ${age((silent.faultSeconds ?? 0) * 1_000)}: ${silent.fault}`,
    todo,
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
     FROM failed_deposits ORDER BY failed_deposits.failed_at, chain_id, tx_hash, log_index LIMIT $1`,
    [limit],
  );
}
