import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { PostgresTarget } from "../settings/master.ts";

interface Seen {
  readonly recorded: readonly string[];
}

type RetractChange = Change & { readonly kind: "retract-flags"; readonly master: string };

/**
 * The flags that a master is recorded with in a database that others use too: while they stand there, no
 * master can take back what serves them. A database that can't be asked keeps them.
 */
export function leaveFlags(target: PostgresTarget, master: string): StepSpec<Seen, RetractChange> {
  const place = `${target.host}:${target.port}`;

  async function look(host: HostReader): Promise<readonly string[] | null> {
    if ((await host.postgres.ask(target)).kind !== "open") return null;
    return (await host.migrations.readFlags(target, master)) ?? [];
  }

  return {
    id: "flags",
    title: "flags that the schema guards",
    touches: "Takes this master's flags out of a database elsewhere, so that down files of others may pass.",

    async probe(host): Promise<Finding<Seen>> {
      const recorded = await look(host);
      const evidence = { [place]: recorded === null ? "can't be asked" : recorded.join(" ") || "none" };
      const seen = { recorded: recorded ?? [] };
      if (seen.recorded.length === 0) return { state: "ours", seen, evidence };
      return { state: "drifted", seen, drift: [`${place} has flags of ${master}`], evidence };
    },

    plan: ({ seen: { recorded } }) =>
      recorded.length === 0
        ? []
        : [
            {
              kind: "retract-flags",
              summary: `take the flags of ${master} out of the database at ${place}`,
              master,
            },
          ],

    apply: (_change, host) => host.migrations.recordFlags(target, master, []),

    async verify(host) {
      if (((await look(host)) ?? []).length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The database at ${place} still has flags of ${master}.`,
        remedy: "Run again.",
      });
    },
  };
}
