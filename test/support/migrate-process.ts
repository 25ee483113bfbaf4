import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { execa } from "execa";
import { SHIPPED } from "./migrations.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** The program of every child, bundled once, since twenty of them start at the same time on few processors. */
const program = await build({
  entryPoints: [fileURLToPath(new URL("./migrate-child.ts", import.meta.url))],
  bundle: true,
  write: false,
  platform: "node",
  format: "esm",
  external: ["pg-native"],
  banner: {
    js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom('/');",
  },
});

/** A runner in its own process, which can be killed. It prints what it did, or its error. */
export function startChild(target: PostgresTarget, directory: string = SHIPPED) {
  return execa(process.execPath, ["--input-type=module"], {
    input: program.outputFiles[0]?.text ?? "",
    env: { MIGRATE_DIRECTORY: directory, MIGRATE_TARGET: JSON.stringify(target) },
    reject: false,
  });
}
