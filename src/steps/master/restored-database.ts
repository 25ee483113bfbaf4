import { dumpOf, readStage } from "../../backup/restore-stage.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { type MasterContext, readValues, requireTarget } from "../../settings/context.ts";
import { NAMES } from "../../settings/layout.ts";
import { isDatabaseElsewhere, postgresTarget } from "../../settings/postgres-target.ts";

type RestoreDatabase = Change & { readonly kind: "restore-database" };

const DEADLINE_MS = 24 * 3_600_000;
/**
 * Roles that the dump names must be there first; no backup has their passwords. The dump comes by standard input: it is a file of the
 * machine, not of the container.
 */
const SCRIPT = `set -e
container=$1 user=$2 database=$3 dump=$4
shift 4
for role; do
  docker exec --interactive "$container" psql --quiet --no-psqlrc --username="$user" --dbname="$database" --no-password \\
    --set=ON_ERROR_STOP=1 --set=role="$role" <<'EOF'
SELECT format('CREATE ROLE %I NOLOGIN', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \\gexec
EOF
done
exec docker exec --interactive "$container" pg_restore --username="$user" --dbname="$database" --no-password \\
  --single-transaction --exit-on-error <"$dump"`;

/** The database of a backup. It is restored in one transaction, so that there is all of it or nothing. */
export function restoredDatabase(context: MasterContext): StepSpec<readonly string[], RestoreDatabase> {
  const { baseDir } = context.layout;

  /** Null: there is nothing to restore, because no restore goes on or the database is on another machine. */
  async function hasIt(host: HostReader): Promise<boolean | null> {
    const values = await readValues(host, context);
    if ((await readStage(host.files, baseDir)) === null || isDatabaseElsewhere(values)) return null;
    const target = postgresTarget(values);
    const answer = target === null ? null : await host.postgres.ask(target);
    if (target === null || answer?.kind !== "open") return false;
    return (await host.migrations.status(target)).hasLedger;
  }

  return {
    id: "restored-database",
    title: "database of the backup",
    touches: "Restores the database of a backup into the new one, in one transaction.",
    reprobeAfter: true,

    async probe(host): Promise<Finding<readonly string[]>> {
      const found = await hasIt(host);
      const evidence = { ledger: found === null ? "not looked at" : found ? "present" : "absent" };
      const stage = found === false ? await readStage(host.files, baseDir) : null;
      const seen = stage?.manifest.database.roles ?? [];
      return { state: found === false ? "absent" : "ours", seen, evidence };
    },

    plan({ state, seen: roles }) {
      if (state === "ours") return [];
      const without = roles.length === 0 ? "" : `; without their passwords: the roles ${roles.join(", ")}`;
      return [{ kind: "restore-database", summary: `restore the database of the backup${without}` }];
    },

    async apply(_change, host, report) {
      const stage = await readStage(host.files, baseDir);
      if (stage === null) return;
      const { user, database } = requireTarget(await readValues(host, context), context);
      report("restoring the database, in one transaction");
      await host.system.runCommand(
        [
          "sh",
          "-c",
          SCRIPT,
          "sh",
          NAMES.postgres,
          user,
          database,
          dumpOf(stage),
          ...stage.manifest.database.roles,
        ],
        { timeoutMs: DEADLINE_MS },
      );
    },

    async verify(host) {
      if ((await hasIt(host)) !== false) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: "The database of the backup is not there: it has no ledger of migrations.",
        remedy: "Run again. If it stays so, look at `docker logs postgres-pinning`.",
      });
    },
  };
}
