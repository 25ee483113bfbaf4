import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/**
 * Bundles a program, for `node --input-type=module` with the text as its input. Once for all children:
 * many of them start at the same time on few processors.
 */
export async function bundleChild(file: URL): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(file)],
    bundle: true,
    write: false,
    platform: "node",
    format: "esm",
    external: ["pg-native"],
    // A name of its own: packages bring a createRequire, too.
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom('/');",
    },
  });
  return outputFiles[0]?.text ?? "";
}
