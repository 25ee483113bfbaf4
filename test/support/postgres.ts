import { afterAll, beforeAll, describe } from "vitest";
import { findPostgresPrograms } from "./postgres-programs.ts";
import { type PostgresOptions, startPostgres, type TestPostgres } from "./postgres-server.ts";

const programs = await findPostgresPrograms();
if (typeof programs === "string" && process.env["CI"] !== undefined) throw new Error(programs);

/**
 * `describe` for tests that need a real PostgreSQL: one server for the block, from before its first test until after its
 * last. If the machine has none, the block is skipped with a line that says so; if CI is set, it fails.
 */
export function describeOnPostgres(
  name: string,
  tests: (postgres: Omit<TestPostgres, "stop">) => void,
  options: PostgresOptions = {},
): void {
  if (typeof programs === "string") console.warn(`skipped: ${name}: ${programs}`);
  describe.skipIf(typeof programs === "string")(name, () => {
    let running: TestPostgres | null = null;
    const started = (): TestPostgres => {
      if (running === null) throw new Error("PostgreSQL is there from the first test on");
      return running;
    };
    beforeAll(async () => {
      if (typeof programs !== "string") running = await startPostgres(programs, options);
    });
    afterAll(() => running?.stop());
    tests({
      get target() {
        return started().target;
      },
      createDatabase: () => started().createDatabase(),
    });
  });
}
