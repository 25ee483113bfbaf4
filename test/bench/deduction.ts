import { BATCH_SIZE, runDeduction } from "../../src/billing/deduction.ts";
import { tariffOf } from "../../src/billing/fee.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { addAccounts, PRICING } from "../support/billing.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { findPostgresPrograms } from "../support/postgres-programs.ts";
import { inSession, sql, startPostgres, type TestPostgres } from "../support/postgres-server.ts";
import { type Contender, timePairs } from "./pairs.ts";
import type { Bench } from "./report.ts";

const ACCOUNTS = 1_000_000;
/** Accounts that pay in a transaction each, as upstream does it. */
const SAMPLE = 20_000;
const ROUNDS = 2;

/**
 * One hour of 1,000,000 accounts that pay, in batches, against one statement that writes the same rows. Beside it, the
 * rate of one transaction per account. The server waits for the disk.
 */
export const benches: readonly Bench[] = [
  {
    name: "deduction",
    run: async () => {
      const programs = await findPostgresPrograms();
      if (typeof programs === "string") throw new Error(programs);
      const postgres = await startPostgres(programs, {
        durable: true,
        // A checkpoint in the middle of one of the two would decide the ratio.
        settings: ["max_wal_size=8GB", "checkpoint_timeout=1h"],
        template: async (target) => {
          await migrate(target);
          await addAccounts(target, ACCOUNTS);
          await sql(target, "CHECKPOINT");
        },
      });
      try {
        const pairs = await timePairs(
          ROUNDS,
          onCopy(postgres, charge),
          onCopy(postgres, chargeInOneStatement),
        );
        return [
          {
            name: "hour of 1,000,000 accounts",
            what: `the deduction of one hour from ${ACCOUNTS} accounts, in batches of ${BATCH_SIZE}`,
            against: "one statement with the same rows",
            unit: "ms",
            target: { of: "ratio", bound: "at most", value: 3 },
            ...pairs,
          },
          {
            name: "accounts per second",
            what: "the same, as a rate",
            against: `one transaction each, ${SAMPLE}`,
            unit: "accounts/s",
            target: null,
            ours: pairs.ours.map((ms) => (ACCOUNTS * 1_000) / ms),
            anchor: await rates(postgres),
          },
        ];
      } finally {
        await postgres.stop();
      }
    },
  },
];

/** Each run gets its own copy. The time to make it does not count. */
function onCopy(
  postgres: Pick<TestPostgres, "createDatabase">,
  run: (target: PostgresTarget) => Promise<void>,
): Contender {
  let target: PostgresTarget | null = null;
  return {
    prepare: async () => {
      if (target !== null) await sql({ ...target, database: "postgres" }, `DROP DATABASE ${target.database}`);
      target = await postgres.createDatabase();
      await sql(target, "CHECKPOINT");
    },
    run: async () => {
      if (target === null) throw new Error("no database was made");
      await run(target);
    },
  };
}

async function charge(target: PostgresTarget): Promise<void> {
  const bank = openPool(target, 2);
  try {
    const log = (): void => {};
    const { hours } = await runDeduction({ bank, tariff: tariffOf(PRICING), log, batchSize: BATCH_SIZE });
    if (hours.at(-1)?.charged !== ACCOUNTS) throw new Error(`charged ${hours.at(-1)?.charged} accounts`);
  } finally {
    await bank.close();
  }
}

/** Fee, history, exact balance and its rounding, without batches, locks, or anything that is looked at twice. */
async function chargeInOneStatement(target: PostgresTarget): Promise<void> {
  const { freeBytes, unitsPerGibMonth } = tariffOf(PRICING);
  const [row] = await sql<{ count: number }>(
    target,
    `WITH fees AS (
       SELECT account, div((sum(bytes) - ${freeBytes}) * ${unitsPerGibMonth}, 773094113280) * 1e-18 AS fee
       FROM account_usage GROUP BY account HAVING sum(bytes) > ${freeBytes}
     ), state AS (
       SELECT f.account, fee, c.balance_fula::text::numeric - fee AS rest FROM fees f JOIN user_credits c ON c.user_id = f.account
     ), noted AS (
       INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
         SELECT account, 'hourly_deduction', -fee, rest, 'hour:bench' FROM state
         ON CONFLICT (user_id, reference_id) WHERE tx_type = 'hourly_deduction' DO NOTHING
     ), kept AS (
       INSERT INTO exact_credits SELECT account, rest, 0, fee, 0 FROM state
         ON CONFLICT (account) DO UPDATE SET balance = excluded.balance
     ), shown AS (
       UPDATE user_credits c SET balance_fula = rest, total_deducted_fula = fee, last_deduction_at = now(),
           is_suspended = CASE WHEN rest < 0 THEN 1 ELSE c.is_suspended END
         FROM state WHERE c.user_id = state.account RETURNING 1
     )
     SELECT count(*)::int AS count FROM shown`,
  );
  if (row?.count !== ACCOUNTS) throw new Error(`changed ${row?.count} accounts`);
}

/** Accounts per second of one transaction per account, with upstream's statements. */
async function rates(postgres: Pick<TestPostgres, "createDatabase">): Promise<readonly number[]> {
  const target = await postgres.createDatabase();
  const accounts = await sql<{ user_id: string }>(target, "SELECT user_id FROM user_credits LIMIT $1", [
    SAMPLE * ROUNDS,
  ]);
  const measured: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const startedAt = performance.now();
    await inSession(target, async (client) => {
      for (const { user_id } of accounts.slice(round * SAMPLE, (round + 1) * SAMPLE)) {
        await client.query("BEGIN");
        await client.query(
          "SELECT balance_fula, is_suspended FROM user_credits WHERE user_id = $1 FOR UPDATE",
          [user_id],
        );
        await client.query(
          `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
           VALUES ($1, 'hourly_deduction', -0.004, 1, 'hour:bench')
           ON CONFLICT (user_id, reference_id) WHERE tx_type = 'hourly_deduction' DO NOTHING`,
          [user_id],
        );
        await client.query(
          `UPDATE user_credits SET balance_fula = balance_fula - 0.004, total_deducted_fula = total_deducted_fula + 0.004,
             last_deduction_at = now() WHERE user_id = $1`,
          [user_id],
        );
        await client.query("COMMIT");
      }
    });
    measured.push((SAMPLE * 1_000) / (performance.now() - startedAt));
  }
  return measured;
}
