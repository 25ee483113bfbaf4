// Bundles src/cli.ts into dist/: the small cli.js that answers --version, and chunks that are loaded when needed.
import { builtinModules, createRequire } from "node:module";
import { mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));

/** Optional parts of dependencies that we never use: without them a dependency takes its plain way. */
const ABSENT = new Set(["pg-native", "pg-cloudflare"]);

const absentModules = {
  name: "absent-modules",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^pg-/ }, ({ path }) =>
      ABSENT.has(path) ? { path, namespace: "absent" } : undefined,
    );
    onLoad({ filter: /.*/, namespace: "absent" }, ({ path }) => ({
      contents: `throw new Error(${JSON.stringify(`${path} is not part of fula-node`)});`,
      loader: "js",
    }));
  },
};

await rm(join(root, "dist"), { recursive: true, force: true });
await mkdir(join(root, "dist"));
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: ["src/cli.ts"],
  outdir: "dist",
  chunkNames: "chunks/[name]-[hash]",
  bundle: true,
  splitting: true,
  platform: "node",
  format: "esm",
  target: "node20",
  minify: true,
  metafile: true,
  logLevel: "warning",
  define: { FULA_NODE_VERSION: JSON.stringify(version) },
  plugins: [absentModules],
});
console.log(metafile.outputs);
