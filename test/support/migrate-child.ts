import { OperatorError } from "../../src/errors.ts";
import { createMigrator } from "../../src/database/migrator.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** Runs `up` in its own process, and prints what it did, or the error. `startChild` starts it. */
const { MIGRATE_DIRECTORY: directory = "", MIGRATE_TARGET: target = "{}" } = process.env;
const migrator = createMigrator({ directory, toolVersion: "0.0.0-child" });
try {
  const { done } = await migrator.up(JSON.parse(target) as PostgresTarget, { report: () => {} });
  process.stdout.write(JSON.stringify(done.map(({ version, action }) => `${version} ${action}`)));
} catch (thrown) {
  if (!(thrown instanceof OperatorError)) throw thrown;
  process.stdout.write(JSON.stringify({ exit: thrown.exit, what: thrown.what, why: thrown.why }));
  process.exitCode = 1;
}
