import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { execa } from "execa";
import { SHIPPED } from "./migrations.ts";
import type { PostgresTarget } from "../../src/settings/master.ts";

/** The program of every child, bundled once: twenty of them start together on few processors. */
const program = await build({
  entryPoints: [fileURLToPath(new URL("./migrate-child.ts", import.meta.url))],
  bundle: true,
  write: false,
  platform: "node",
  format: "esm",
  external: ["pg-native"],
  banner: { js: "import { createRequire } from 'node:module'; const require = createRequire('/');" },
});

/** A runner as a process of its own: one that can be killed. Its output is what it did, or its error. */
export function startChild(target: PostgresTarget, directory: string = SHIPPED) {
  return execa(process.execPath, ["--input-type=module"], {
    input: program.outputFiles[0]?.text ?? "",
    env: { MIGRATE_DIRECTORY: directory, MIGRATE_TARGET: JSON.stringify(target) },
    reject: false,
  });
}
