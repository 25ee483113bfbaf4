import type { Change, Evidence, Finding, StepSpec } from "../../engine/step.ts";
import { reasonOf } from "../../database/connection-fault.ts";
import type { MasterRecord, MasterRow } from "../../database/masters.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { isDatabaseElsewhere, postgresTarget } from "../../settings/postgres-target.ts";
import { type MasterContext, readValues, requireTarget } from "../../settings/context.ts";

interface Seen {
  /** What this master is. `id` is empty before `.env` has one. */
  readonly wanted: MasterRecord;
  /** Its row; null if there is none, or no database or table yet. */
  readonly recorded: MasterRow | null;
}

type FlagsChange = Change & {
  readonly kind: "record-flags";
  readonly master: string;
  readonly flags: readonly string[];
};

/** Flags that need database objects. A down migration must not remove those while any master uses the flag. */
const GUARDED = ["BILLING_IDEMPOTENCY", "FULA_BUCKET_ROOT_CAS"];

/** systemd's: unique to an installation, and the same on a clone of it (machine-id(5)). */
const MACHINE_ID = "/etc/machine-id";

/** Records in the database that this master exists, and which guarded flags it uses. The down migrations read it. */
export function flags(context: MasterContext): StepSpec<Seen, FlagsChange> {
  const { settings, hash, version } = context;
  const name = settings.get("CLUSTER_PEERNAME")?.value ?? "";

  /** False if the database is ours and has no volume: a join was interrupted before it was created. */
  async function hasData(host: HostReader): Promise<boolean> {
    const isElsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
    return isElsewhere || (await host.docker.volume(context.postgresVolume)) !== null;
  }

  async function readSeen(
    host: HostReader,
  ): Promise<Seen & { readonly place: string; readonly unknown?: string | null }> {
    const [values, machineId] = await Promise.all([
      readValues(host, context),
      host.files.readText(MACHINE_ID),
    ]);
    const id = values("MASTER_ID") ?? "";
    const wanted = {
      pool: values("CLUSTERNAME") ?? "",
      id,
      name,
      flags: GUARDED.filter((key) => values(key) === "true"),
      machine: hash(`fula-node machine\n${machineId?.trim() ?? "unknown"}`).slice(0, 32),
    };
    const target = postgresTarget(values);
    const answer = target === null ? null : await host.postgres.ask(target);
    if (target === null || answer === null) return { wanted, recorded: null, place: "no password yet" };
    if (answer.kind !== "open") {
      // Whether it is recorded is known once the database answers. Before it was created, it is not.
      const unknown =
        id === "" || !(await hasData(host))
          ? null
          : `the table of masters can't be read now: ${reasonOf(answer)}`;
      return { wanted, recorded: null, place: answer.kind, unknown };
    }
    const masters = await host.migrations.readMasters(target);
    const recorded = masters?.find((one) => one.id === id && one.pool === wanted.pool) ?? null;
    return { wanted, recorded, place: masters === null ? "no table of masters yet" : "not recorded" };
  }

  return {
    id: "flags",
    title: "flags that protect the schema",
    touches:
      "Records in the database this master, by its own identity, and which flags it uses, so that no down migration removes what they need.",

    async probe(host): Promise<Finding<Seen>> {
      const { place, unknown = null, ...seen } = await readSeen(host);
      const { wanted, recorded } = seen;
      const evidence: Evidence = {
        master: name,
        identity: wanted.id === "" ? "not generated yet" : wanted.id,
        wanted: wanted.flags.join(" ") || "none",
        recorded: recorded === null ? place : recorded.flags.join(" ") || "none",
      };
      if (unknown !== null) return { state: "drifted", seen, drift: [unknown], evidence };
      if (recorded === null) return { state: "absent", seen, evidence };
      const drift = compare(wanted, recorded, version);
      return drift.length === 0
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift, evidence };
    },

    plan({ state, seen: { wanted } }) {
      if (state === "ours") return [];
      const summary = `record the flags of ${name}: ${wanted.flags.join(", ") || "none"}`;
      return [{ kind: "record-flags", summary, master: name, flags: wanted.flags }];
    },

    async apply(_change, host) {
      const target = requireTarget(await readValues(host, context), context);
      const { wanted } = await readSeen(host);
      if (wanted.id === "") {
        throw new OperatorError({
          exit: "interrupted",
          what: `${context.layout.envFile} has no MASTER_ID.`,
          remedy: "Run again: it generates one.",
        });
      }
      await host.migrations.recordMaster(target, wanted);
    },

    async verify(host) {
      const { wanted, recorded } = await readSeen(host);
      if (recorded !== null && compare(wanted, recorded, version).length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: "This master and its flags are not recorded in the database.",
        remedy: "Run again. If it stays so, another machine uses the same MASTER_ID.",
      });
    },
  };
}

function compare(wanted: MasterRecord, recorded: MasterRow, version: string): readonly string[] {
  const [uses, has] = [wanted.flags, recorded.flags].map((some) => some.join(" ") || "none");
  return [
    ...(uses === has ? [] : [`recorded: ${has ?? ""}; in use: ${uses ?? ""}`]),
    ...(wanted.name === recorded.name ? [] : [`recorded as ${recorded.name}`]),
    ...(recorded.version === version ? [] : [`recorded by fula-node ${recorded.version}`]),
    ...(recorded.machine === wanted.machine
      ? []
      : [
          `recorded by another machine, ${recorded.heartbeatAt}. If this one was cloned from it and both run, remove MASTER_ID from .env here and run again`,
        ]),
  ];
}
