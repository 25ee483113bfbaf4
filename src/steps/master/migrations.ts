import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { reasonOf } from "../../database/connection-fault.ts";
import { isDatabaseElsewhere, postgresTarget } from "../../settings/postgres-target.ts";
import { type MasterContext, readValues, requireTarget } from "../../settings/context.ts";

/** That a file is new is what the change itself says. */
const NEW = "not applied";

function describePending(
  pending: readonly { readonly file: string; readonly reason: string }[],
): readonly string[] {
  const fresh = pending.filter(({ reason }) => reason === NEW);
  return [
    ...(fresh.length === 0 ? [] : [`${fresh.length} of them ${fresh.length === 1 ? "is" : "are"} new`]),
    ...pending.filter(({ reason }) => reason !== NEW).map(({ file, reason }) => `${file}: ${reason}`),
  ];
}

interface Seen {
  /** Each file and its action: "018_deduction_idempotency.sql: apply". Null if the ledger can't be read now. */
  readonly pending: readonly string[] | null;
}

type MigrationsChange = Change & { readonly kind: "migrate"; readonly pending: readonly string[] | null };

/** The database schema, migrated file by file. */
export function migrations(context: MasterContext): StepSpec<Seen, MigrationsChange> {
  return {
    id: "migrations",
    title: "database schema",
    touches: "Migrates the database schema, file by file. Keeps a ledger in the schema `fula_node`.",

    async probe(host): Promise<Finding<Seen>> {
      const target = postgresTarget(await readValues(host, context));
      const answer = target === null ? null : await host.postgres.ask(target);
      if (target === null || answer?.kind !== "open") {
        const evidence = { database: answer === null ? "no password yet" : answer.kind };
        const values = await readValues(host, context);
        const hasData =
          context.isRestoring ||
          isDatabaseElsewhere(values) ||
          (await host.docker.volume(context.postgresVolume)) !== null;
        // The ledger is in the database: what is pending is known once it answers.
        if (hasData) {
          const drift = [
            `the ledger can't be read now: ${answer === null || answer.kind === "open" ? "no password" : reasonOf(answer)}`,
          ];
          return { state: "drifted", seen: { pending: null }, drift, evidence };
        }
        const files = (await host.files.list(`${context.packageDir}/migrations`)) ?? [];
        const ups = files.filter((name) => name.endsWith(".sql") && !name.endsWith(".down.sql"));
        return { state: "absent", seen: { pending: ups.map((file) => `${file}: apply`) }, evidence };
      }
      const status = await host.migrations.status(target);
      const pending = status.items.filter(({ action }) => action !== "none");
      const seen = { pending: pending.map(({ file, action }) => `${file}: ${action}`) };
      const evidence = {
        ledger: status.hasLedger ? "present" : "absent",
        database: `Postgres ${answer.serverVersion}, system identifier ${answer.systemIdentifier}`,
        ...Object.fromEntries(status.items.map(({ file, state, reason }) => [file, `${state}: ${reason}`])),
      };
      if (pending.length === 0) return { state: "ours", seen, evidence };
      if (!status.hasLedger) return { state: "absent", seen, evidence };
      return {
        state: "drifted",
        seen,
        drift: describePending(pending),
        evidence,
      };
    },

    plan({ seen: { pending } }) {
      if (pending === null)
        return [
          {
            kind: "migrate",
            summary: "migrate the database, if anything is pending: unknown until it answers",
            pending,
          },
        ];
      if (pending.length === 0) return [];
      return [{ kind: "migrate", summary: `migrate the database: ${pending.join(", ")}`, pending }];
    },

    async apply(_change, host, report) {
      await host.migrations.up(requireTarget(await readValues(host, context), context), { report });
    },

    async verify(host) {
      const status = await host.migrations.status(requireTarget(await readValues(host, context), context));
      if (status.pending === 0) return;
      const remaining = status.items.filter(({ action }) => action !== "none").map(({ file }) => file);
      throw new OperatorError({
        exit: "unhealthy",
        what: `These migrations are not applied: ${remaining.join(", ")}.`,
        remedy: "Run `fula-node migrate status` for the reasons.",
      });
    },
  };
}
