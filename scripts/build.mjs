// Bundles src/cli.ts into dist/: cli.js, small enough to answer --version at once, and chunks that are
// loaded when a verb needs them. Fails if anything besides Node's own modules would have to be installed.
// Usage: node scripts/build.mjs [DIRECTORY]
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire, isBuiltin } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { parse } from "yaml";
import { collectLicenses } from "./licenses.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const target = resolve(root, process.argv[2] ?? "dist");

/**
 * Optional parts of dependencies that we never use, and undici's parser for processors without SIMD, which are rare with
 * Node 20. A dependency that requests one of them continues without it.
 */
const ABSENT = [
  "pg-native",
  "pg-cloudflare",
  "node:sqlite",
  "../llhttp/llhttp-wasm.js",
  "../web/fetch/body.js",
];

/**
 * What dockerode loads at its start and we never use: its connections over SSH (ssh2, cpu-features) and to BuildKit
 * (@grpc/grpc-js, protobufjs), which look for files in their own directory, its packing of directories, which does not report
 * errors, attaching to containers, and certificates of an engine on another machine (split-ca). A use of one of them throws an error that names it.
 */
const UNUSED =
  /\/node_modules\/(?:docker-modem\/lib\/(?:ssh|http_duplex)|dockerode\/lib\/(?:session|buildkit))\.js$/;
const PACKING = /^(?:tar-fs|@balena\/dockerignore|split-ca)$/;
/**
 * What pino and prom-client load at their start and we never use: logging in a thread of its own, which needs files beside
 * the bundle, summaries with quantiles, and exemplars.
 */
const LOGGING = /^(?:thread-stream|tdigest|@opentelemetry\/api)$/;
/** Web sockets of viem, whose chains are asked over HTTP. */
const SOCKETS = /^isows$/;
/** With `DEBUG=modem` it would print the headers, which contain a registry's login. */
const DEBUG = /\/node_modules\/debug\/src\/index\.js$/;

/** CommonJS dependencies call `require` for Node's own modules; a module has no such function. */
const REQUIRE = `import { createRequire as makeRequire } from "node:module";
const require = makeRequire(import.meta.url);
`;

const absentModules = {
  name: "absent-modules",
  setup({ onLoad, onResolve }) {
    onResolve({ filter: new RegExp(`^(${ABSENT.join("|")})$`) }, ({ path }) => ({
      path,
      namespace: "absent",
    }));
    onLoad({ filter: /.*/, namespace: "absent" }, ({ path }) => ({
      contents: `throw new Error("${path} is not part of fula-node");`,
    }));
  },
};

const unusedModules = {
  name: "unused-modules",
  setup({ onLoad, onResolve }) {
    const unused = ({ path }) => {
      const name = path.replace(/^.*\/node_modules\//, "");
      return {
        contents: `module.exports = () => { throw new Error("${name} is not part of fula-node"); };`,
      };
    };
    onResolve({ filter: PACKING }, ({ path, importer }) =>
      /\/node_modules\/docker(?:ode|-modem)\//.test(importer) ? { path, namespace: "unused" } : undefined,
    );
    onResolve({ filter: LOGGING }, ({ path, importer }) =>
      /\/node_modules\/(?:pino|prom-client)\//.test(importer) ? { path, namespace: "unused" } : undefined,
    );
    onResolve({ filter: SOCKETS }, ({ path }) => ({ path, namespace: "unused" }));
    onLoad({ filter: /.*/, namespace: "unused" }, unused);
    onLoad({ filter: UNUSED }, unused);
    onLoad({ filter: DEBUG }, () => ({ contents: "module.exports = () => () => {};" }));
  },
};

/**
 * pg creates a Response to find out whether it runs in a Cloudflare worker, and Node loads all of its fetch for that: 20 ms
 * of every command that uses the database. Without `Response`, pg recognizes Node correctly.
 */
const plainStream = {
  name: "plain-stream",
  setup({ onLoad }) {
    onLoad({ filter: /\/node_modules\/pg\/lib\/stream\.js$/ }, async ({ path }) => ({
      contents: `const Response = undefined;\n${await readFile(path, "utf8")}`,
    }));
  },
};

/** The parts of undici's main file that src/machine/http-client.ts needs, and their dependencies. */
const UNDICI_PARTS = /^\.\/lib\/(core\/.*|dispatcher\/(client|dispatcher|pool))$/;

/**
 * undici's main file also loads fetch, web sockets, caches, mocks and HTTP/2: 30 ms of every command that sends a
 * request. The bundle has empty classes in their place.
 */
const slimUndici = {
  name: "slim-undici",
  setup({ onLoad, onResolve }) {
    const leaveOut = () => ({ path: "part-of-undici", namespace: "left-out" });
    onResolve({ filter: /^\.\/lib\// }, (wanted) => {
      const isMain = wanted.importer.endsWith("/node_modules/undici/index.js");
      return isMain && !UNDICI_PARTS.test(wanted.path) ? leaveOut() : undefined;
    });
    onResolve({ filter: /^\.\/client-h2(\.js)?$/ }, leaveOut);
    onLoad({ filter: /.*/, namespace: "left-out" }, () => ({
      contents: "class LeftOut {}\nmodule.exports = new Proxy(LeftOut, { get: () => LeftOut });",
    }));
  },
};

/** Native BLAKE3, which src/ingest/blake3.ts loads; other processors hash in WebAssembly. */
const NATIVES = { "linux-x64": require.resolve("@napi-rs/blake-hash-linux-x64-gnu") };

const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
const { metafile, outputFiles } = await build({
  absWorkingDir: root,
  entryPoints: ["src/cli.ts"],
  outdir: target,
  // All in one directory: a module finds the package's root one level up, as in src/.
  chunkNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  platform: "node",
  format: "esm",
  target: "node20.19",
  // Names and lines are not minified, so that stack traces are readable, and an operator can read what runs as root.
  minifySyntax: true,
  legalComments: "none",
  define: { FULA_NODE_VERSION: JSON.stringify(version) },
  plugins: [absentModules, unusedModules, plainStream, slimUndici],
  metafile: true,
  write: false,
  logLevel: "warning",
});

refuseExternals(metafile);
const licenses = await collectLicenses({ root, inputs: filesOf(metafile) });
await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
for (const { path, text } of outputFiles) {
  await writeFile(path, /\btypeof require\b/.test(text) ? REQUIRE + text : text);
}
await copyNatives();
await writeFile(join(target, "fragments.json"), await parseFragments());
await writeFile(join(target, "licenses.txt"), licenses);
report(outputFiles);

/** Everything that is not in the bundle must be part of Node. */
function refuseExternals({ outputs }) {
  const foreign = Object.entries(outputs).flatMap(([file, { imports }]) =>
    imports
      .filter(({ external, path }) => external === true && !isBuiltin(path))
      .map(({ path }) => `${path} (in ${file})`),
  );
  if (foreign.length > 0) throw new Error(`not bundled, and not part of Node: ${foreign.join(", ")}`);
}

/** Every file whose code the package ships: bundled files and native modules. */
function filesOf({ outputs }) {
  const bundled = Object.values(outputs).flatMap(({ inputs }) => Object.keys(inputs));
  return [...bundled, ...Object.values(NATIVES).map((module) => relative(root, module))];
}

/** The compose fragments, parsed, by the sha256 of their texts: to parse YAML takes `status` longer than most of its questions. */
async function parseFragments() {
  const directory = join(root, "compose");
  const names = (await readdir(directory)).filter((name) => name.endsWith(".yml")).toSorted();
  const texts = await Promise.all(names.map((name) => readFile(join(directory, name), "utf8")));
  const sha256 = (text) => createHash("sha256").update(text).digest("hex");
  return JSON.stringify(Object.fromEntries(texts.map((text) => [sha256(text), parse(text)])));
}

/** Copies the native modules next to the bundle, where src/ingest/blake3.ts looks for them. */
async function copyNatives() {
  for (const [processor, module] of Object.entries(NATIVES)) {
    await copyFile(module, join(target, `blake3-${processor}.node`));
  }
}

function report(files) {
  const rows = files
    .map(({ path, contents }) => ({
      name: relative(target, path),
      bytes: contents.length,
      packed: gzipSync(contents).length,
    }))
    .toSorted((a, b) => b.bytes - a.bytes);
  const total = (column) => rows.reduce((sum, row) => sum + row[column], 0);
  const shown = rows.filter(({ name, bytes }) => bytes > 20_000 || name === "cli.js");
  const all = { name: `${rows.length} files`, bytes: total("bytes"), packed: total("packed") };
  for (const { name, bytes, packed } of [...shown, all]) {
    console.log(`${name.padEnd(40)}${String(bytes).padStart(9)} B${String(packed).padStart(9)} B gzip`);
  }
}
