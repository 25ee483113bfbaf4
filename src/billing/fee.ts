import type { Pricing } from "../settings/quota.ts";

/** The price of storage as whole numbers, so that fees are exact in SQL. */
export interface Tariff {
  /** Bytes that cost nothing. */
  readonly freeBytes: string;
  /** The price of one GiB for one month, in units of 10^-18 FULA. */
  readonly unitsPerGibMonth: string;
}

/** The months of the fee have 30 days (functionland/pinning-service, deductionJob.ts). */
const HOURS_PER_MONTH = 720;
const GIB = 1_073_741_824;
const GIB_HOURS_PER_MONTH = String(GIB * HOURS_PER_MONTH);
const DIGITS = 18;
/** FULA_PER_GB_MONTH has up to 8 digits after the point (settings/rules.ts). */
const PRICE_DIGITS = 8;

/** The tariff of a price. A price of more than 15 digits is rounded to what a number holds. */
export function tariffOf({ freeTierBytes, fulaPerGibMonth }: Pricing): Tariff {
  const scaled = fulaPerGibMonth.toFixed(PRICE_DIGITS).replace(".", "");
  return {
    freeBytes: String(freeTierBytes),
    unitsPerGibMonth: String(BigInt(scaled) * 10n ** BigInt(DIGITS - PRICE_DIGITS)),
  };
}

/**
 * SQL for the fee of one hour in FULA: the bytes above the free tier, times the price of a month, divided by 720. It is
 * rounded down to 18 digits after the point, the smallest unit of FULA. `bytes` is an expression; `tariff` names the
 * placeholders of freeBytes and unitsPerGibMonth.
 */
export function feeSql(bytes: string, tariff: { readonly free: string; readonly price: string }): string {
  const over = `greatest(${bytes} - ${tariff.free}::numeric, 0)`;
  return `(div(${over} * ${tariff.price}::numeric, ${GIB_HOURS_PER_MONTH}) * 1e-${DIGITS}::numeric)`;
}
