import { runDeduction } from "../../src/billing/deduction.ts";
import { tariffOf } from "../../src/billing/fee.ts";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { startBillingCrons } from "../../src/services/billing-crons.ts";
import type { WebuiSettings } from "../../src/settings/services.ts";

/** One deduction, or the crons of a master, in its own process, which can be stopped and killed. It prints its log. */
const { settings, times, once } = JSON.parse(process.env["BILLING"] ?? "{}") as {
  readonly settings: WebuiSettings;
  readonly times: { readonly beatMs: number; readonly silentAfterMs: number; readonly batchSize: number };
  readonly once: boolean;
};
const log = (line: string): void => void process.stdout.write(`${line}\n`);
const pool = openPostgresPool(settings.postgres, { applicationName: "a master", log });
await pool.query("SELECT 1");
log("up");
if (once) {
  const { batchSize } = times;
  const report = await runDeduction({ bank: pool, tariff: tariffOf(settings.pricing), log, batchSize });
  log(`charged ${report.hours.at(-1)?.charged ?? 0}`);
  await pool.close();
} else {
  const crons = startBillingCrons(settings, { pool, log }, times);
  process.on("SIGTERM", () => void crons.close().then(() => pool.close()));
}
