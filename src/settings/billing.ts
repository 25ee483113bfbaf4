import { RULES } from "./rules.ts";
import type { Settings, SettingSpec } from "./settings.ts";

/** Whether and how a master bills, from its settings. */
export interface BillingSettings {
  /** CRON_LEADER_LEASE: of several masters, only one runs the billing. */
  readonly lease: boolean;
  /** BILLING_IDEMPOTENCY: without it nothing is charged, because nothing would keep an hour from being charged twice. */
  readonly idempotent: boolean;
  readonly deductionIntervalMs: number;
  readonly scannerIntervalMs: number;
  /** VAULT_ADDRESS: who pays to it gets a credit. */
  readonly vault: string;
  /** The chains with an RPC URL. */
  readonly chains: readonly ChainAccess[];
  /** RPC_PROXY_URL: the HTTP proxy through which they are asked; null if there is none. It may contain a password. */
  readonly proxy: string | null;
  /** REFERRAL_BONUSES_ENABLED. */
  readonly bonuses: boolean;
}

/** How a chain is asked. */
export interface ChainAccess {
  readonly id: number;
  /** It often contains a key. */
  readonly url: string;
  /** How many blocks must follow one before its transfers count. */
  readonly confirmations: number;
}

/** An hour, as upstream has it. */
export const DEDUCTION_INTERVAL_MS = "3600000";
/** Ten minutes, as upstream has it. */
export const SCANNER_INTERVAL_MS = "600000";
export const BASE_RPC_URL = "https://mainnet.base.org";

/** The chains that upstream knows. Confirmations: five to seven minutes of Base and Ethereum; Skale's blocks are final. */
export const CHAIN_KEYS = [
  { id: 1, key: "ETHEREUM_RPC_URL", confirmations: 32 },
  { id: 8_453, key: "BASE_RPC_URL", confirmations: 150 },
  { id: 2_046_399_126, key: "SKALE_RPC_URL", confirmations: 10 },
] as const;

/** The settings of what accounts pay. */
export const BILLING_SETTINGS: readonly SettingSpec[] = [
  {
    key: "VAULT_ADDRESS",
    about: "address of the vault contract; if it is not set, or zero, nothing is billed",
    rule: RULES.contract,
    setsOff: describeBeginning,
  },
  {
    key: "BASE_RPC_URL",
    about: "RPC endpoint of the Base chain, for deposits; it often contains a key, so it is never shown",
    rule: RULES.url,
    secret: true,
    byDefault: BASE_RPC_URL,
  },
  {
    key: "ETHEREUM_RPC_URL",
    about: "RPC endpoint of Ethereum, for deposits; without it, that chain is not scanned",
    rule: RULES.url,
    secret: true,
  },
  {
    key: "SKALE_RPC_URL",
    about: "RPC endpoint of Skale Europa, for deposits; without it, that chain is not scanned",
    rule: RULES.url,
    secret: true,
  },
  {
    key: "RPC_PROXY_URL",
    about: "HTTP proxy through which the RPC endpoints are reached, except those on this machine",
    rule: RULES.url,
    secret: true,
  },
  {
    key: "BILLING_IDEMPOTENCY",
    about:
      "the database allows at most one deduction per user and hour; without it, the storage API of fula-node bills nothing",
    rule: RULES.flag,
    byDefault: "true",
  },
  {
    key: "CRON_LEADER_LEASE",
    about: "if there are several masters, only one runs the billing cron jobs",
    rule: RULES.flag,
    byDefault: "true",
  },
  {
    key: "DEDUCTION_INTERVAL_MS",
    about: "milliseconds between two runs of the hourly deduction; an account pays once for each hour",
    rule: RULES.interval,
    byDefault: DEDUCTION_INTERVAL_MS,
  },
  {
    key: "SCANNER_INTERVAL_MS",
    about: "milliseconds between two scans of the chains for deposits",
    rule: RULES.interval,
    byDefault: SCANNER_INTERVAL_MS,
  },
  {
    key: "REFERRAL_BONUSES_ENABLED",
    about: "a deposit gives a bonus to the account that referred its owner, and to two more above that",
    rule: RULES.flag,
    byDefault: "true",
  },
];

/**
 * The billing of a master, from the values of its settings; null if there is none. Upstream's image runs no crons for the
 * zero address either.
 */
export function billingOf(values: (key: string) => string | undefined): BillingSettings | null {
  const vault = values("VAULT_ADDRESS") ?? "";
  if (/^(?:0x0*)?$/.test(vault)) return null;
  return {
    lease: values("CRON_LEADER_LEASE") === "true",
    idempotent: values("BILLING_IDEMPOTENCY") === "true",
    deductionIntervalMs: Number(values("DEDUCTION_INTERVAL_MS") ?? DEDUCTION_INTERVAL_MS),
    scannerIntervalMs: Number(values("SCANNER_INTERVAL_MS") ?? SCANNER_INTERVAL_MS),
    vault,
    chains: CHAIN_KEYS.flatMap(({ id, key, confirmations }) => {
      const url = values(key) ?? "";
      return url === "" ? [] : [{ id, url, confirmations }];
    }),
    proxy: values("RPC_PROXY_URL") || null,
    bonuses: values("REFERRAL_BONUSES_ENABLED") !== "false",
  };
}

/**
 * What the plan says where the billing begins with this run. Null if it goes on or stays off: as before, because the invite of a
 * master that bills gives its settings, or because the containers that are adopted billed already.
 */
function describeBeginning(before: (key: string) => string | undefined, settings: Settings): string | null {
  const given = settings.get("VAULT_ADDRESS");
  const isNew = given?.offeredBy === undefined && given?.origin !== "adopted";
  const bills = (values: (key: string) => string | undefined) => billingOf(values)?.idempotent === true;
  const was = bills((key) => before(key) ?? (key === "BILLING_IDEMPOTENCY" ? "true" : undefined));
  return isNew && !was && bills((key) => settings.get(key)?.value)
    ? "billing begins: accounts pay for what they store above the free tier, and for the present hour at once"
    : null;
}
