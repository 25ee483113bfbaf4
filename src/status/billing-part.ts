import { HOURS_BACK } from "../billing/deduction.ts";
import { judgeDeposits, readDepositStanding } from "../billing/deposit-standing.ts";
import { judgeBilling, readStanding } from "../billing/runs.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { billingOf } from "../settings/billing.ts";
import type { Values } from "../settings/context.ts";
import { postgresTarget } from "../settings/postgres-target.ts";
import type { Ask } from "./look-at-node.ts";
import { type Judged, LATE } from "./part.ts";

/**
 * The billing: which master runs it and since when, the last billed hour, what was not charged, and how the deposits stand. Null if this master
 * bills nothing, or if another image does that here.
 */
export async function lookAtBilling(
  { postgres }: Pick<HostReader, "postgres">,
  { values, ask }: { readonly values: Values; readonly ask: Ask },
): Promise<Judged | null> {
  const settings = billingOf(values);
  const image = values("WEBUI_IMAGE") ?? "";
  if (settings === null || (image !== "" && image !== "fula-node")) return null;
  if (!settings.idempotent)
    return {
      state: "attention",
      summary: "nothing is billed: BILLING_IDEMPOTENCY is false",
      todo: "fula-node join-as-master --set BILLING_IDEMPOTENCY=true",
      evidence: {},
    };
  const target = postgresTarget(values);
  if (target === null) return null;
  const database = {
    query: <Row extends Record<string, unknown>>(sql: string, parameters: readonly unknown[] = []) =>
      postgres.query<Row>(target, sql, parameters),
  };
  const [standing, deposits] = await Promise.all([
    ask(() => readStanding(database, HOURS_BACK)).catch(unlessBug),
    ask(() => readDepositStanding(database)).catch(unlessBug),
  ]);
  const unknown = (summary: string): Judged => ({
    state: "unknown",
    summary,
    todo: "see the line of the database",
    evidence: {},
  });
  if (standing === UNREAD || deposits === UNREAD) return unknown("the database can't be read");
  if (standing === LATE || deposits === LATE) return unknown("the database did not answer in time");
  if (standing === null) return null;
  const { sentence, ...judged } = judgeBilling(standing, settings);
  const { leader, since, lastHour, failures, behind, forgotten } = standing;
  const missing = deposits === null ? null : judgeDeposits(deposits, settings);
  const scanned = (deposits?.chains ?? []).map(
    ({ name, cursor, fault }) => [name, `block ${cursor}${fault === null ? "" : `; ${fault}`}`] as const,
  );
  return {
    ...(judged.state === "ok" && missing !== null
      ? { state: "attention", summary: missing.sentence, todo: missing.todo }
      : { ...judged, summary: sentence }),
    evidence: {
      leader: leader ?? "none",
      since: since ?? "never",
      "last billed hour": lastHour ?? "none",
      "failed charges": String(failures),
      "hours not charged yet": String(behind),
      "hours not billed": String(forgotten),
      ...Object.fromEntries(scanned),
      "failed deposits": String(deposits?.failed ?? 0),
      "deposits of unlinked wallets": String(deposits?.unclaimed ?? 0),
    },
  };
}

const UNREAD = Symbol("unread");

/** The database can't be read. A bug is thrown on. */
function unlessBug(thrown: unknown): typeof UNREAD {
  if (thrown instanceof OperatorError) return UNREAD;
  throw thrown;
}
