import { execa } from "execa";
import { SHIPPED } from "./migrations.ts";
import { bundleChild } from "./bundle-child.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const program = await bundleChild(new URL("./migrate-child.ts", import.meta.url));

/** A runner in its own process, which can be killed. It prints what it did, or its error. */
export function startChild(target: PostgresTarget, directory: string = SHIPPED) {
  return execa(process.execPath, ["--input-type=module"], {
    input: program,
    env: { MIGRATE_DIRECTORY: directory, MIGRATE_TARGET: JSON.stringify(target) },
    reject: false,
  });
}
