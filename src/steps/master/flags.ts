import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { postgresTarget } from "../../settings/master.ts";
import { type MasterContext, readValues, requireTarget } from "../../settings/context.ts";

interface Seen {
  readonly wanted: readonly string[];
  /** Null if there is no database or no ledger yet. */
  readonly recorded: readonly string[] | null;
}

type FlagsChange = Change & {
  readonly kind: "record-flags";
  readonly master: string;
  readonly flags: readonly string[];
};

/** Flags that need database objects. A down migration must not remove those while any master uses the flag. */
const GUARDED = ["BILLING_IDEMPOTENCY", "FULA_BUCKET_ROOT_CAS"];

/** Records in the database which guarded flags this master uses. The down migrations read it. */
export function flags(context: MasterContext): StepSpec<Seen, FlagsChange> {
  const master = context.settings.get("CLUSTER_PEERNAME")?.value ?? "";

  async function readSeen(host: HostReader): Promise<Seen> {
    const values = await readValues(host, context);
    const wanted = GUARDED.filter((key) => values(key) === "true");
    const target = postgresTarget(values);
    if (target === null || (await host.postgres.ask(target)).kind !== "open")
      return { wanted, recorded: null };
    return { wanted, recorded: await host.migrations.readFlags(target, master) };
  }

  return {
    id: "flags",
    title: "flags that protect the schema",
    touches:
      "Records in the database which flags this master uses, so that no down migration removes what they need.",

    async probe(host): Promise<Finding<Seen>> {
      const seen = await readSeen(host);
      const { wanted, recorded } = seen;
      const evidence = {
        master,
        wanted: wanted.join(" ") || "none",
        recorded: recorded === null ? "no ledger yet" : recorded.join(" ") || "none",
      };
      if (recorded === null) return { state: "absent", seen, evidence };
      if (recorded.join(" ") === wanted.join(" ")) return { state: "ours", seen, evidence };
      if (recorded.length === 0) return { state: "absent", seen, evidence };
      return {
        state: "drifted",
        seen,
        drift: [`recorded: ${evidence.recorded}; in use: ${evidence.wanted}`],
        evidence,
      };
    },

    plan({ state, seen: { wanted } }) {
      if (state === "ours") return [];
      return [
        {
          kind: "record-flags",
          summary: `record the flags of ${master}: ${wanted.join(", ") || "none"}`,
          master,
          flags: wanted,
        },
      ];
    },

    async apply(change, host) {
      const target = requireTarget(await readValues(host, context), context);
      await host.migrations.recordFlags(target, change.master, change.flags);
    },

    async verify(host) {
      const { wanted, recorded } = await readSeen(host);
      if (recorded !== null && recorded.join(" ") === wanted.join(" ")) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: "The flags of this master are not recorded in the database.",
        remedy: "Run again.",
      });
    },
  };
}
