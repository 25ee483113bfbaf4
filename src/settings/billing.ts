/** Whether and how a master bills, from its settings. */
export interface BillingSettings {
  /** CRON_LEADER_LEASE: of several masters, only one runs the billing. */
  readonly lease: boolean;
  /** BILLING_IDEMPOTENCY: without it nothing is charged, because nothing would keep an hour from being charged twice. */
  readonly idempotent: boolean;
  readonly deductionIntervalMs: number;
}

/** An hour, as upstream has it. */
export const DEDUCTION_INTERVAL_MS = "3600000";

/**
 * The billing of a master, from the values of its settings; null if there is none. Upstream's image runs no crons for the
 * zero address either.
 */
export function billingOf(values: (key: string) => string | undefined): BillingSettings | null {
  if (/^(?:0x0*)?$/.test(values("VAULT_ADDRESS") ?? "")) return null;
  return {
    lease: values("CRON_LEADER_LEASE") === "true",
    idempotent: values("BILLING_IDEMPOTENCY") === "true",
    deductionIntervalMs: Number(values("DEDUCTION_INTERVAL_MS") ?? DEDUCTION_INTERVAL_MS),
  };
}
