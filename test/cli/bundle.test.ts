import { transform } from "esbuild";
import { execa } from "execa";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { listenAnywhere, startClusterPeer } from "../services/serving.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The package as it would be published, where no node_modules is near. */
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "fula-node-bundle-"));
  await execa("node", ["scripts/build.mjs", join(directory, "dist")], { cwd: root });
  const entries = ["package.json", "bin", "compose", "migrations", "docs"];
  for (const entry of entries) await cp(join(root, entry), join(directory, entry), { recursive: true });
});

afterAll(() => rm(directory, { recursive: true, force: true }));

const program = (): string => join(directory, "bin/fula-node.js");
const readManifest = async () =>
  JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
    readonly version: string;
    readonly dependencies?: unknown;
  };

describe("the artifact", () => {
  it("tells its version", async () => {
    const { stdout, stderr } = await execa("node", [program(), "--version"]);
    expect({ stdout, stderr }).toEqual({ stdout: (await readManifest()).version, stderr: "" });
  });

  it("tells its verbs", async () => {
    const { stdout } = await execa("node", [program(), "--help"]);
    expect(stdout).toContain("join-as-master");
  });

  it("loads nothing to tell its version", async () => {
    const cli = await readFile(join(directory, "dist/cli.js"), "utf8");
    expect(cli.length).toBeLessThan(2_000);
    expect(cli).not.toMatch(/^import /m);
  });

  it("takes from each part that it loads later only what that part has", async () => {
    const dist = join(directory, "dist");
    const taken: { part: string; name: string }[] = [];
    for (const file of (await readdir(dist)).filter((name) => name.endsWith(".js"))) {
      const text = await readFile(join(dist, file), "utf8");
      for (const [, names = "", part = ""] of text.matchAll(
        /\{ ([^{}=]+) \} = await import\("\.\/([^"]+)"\)/g,
      ))
        taken.push(...names.split(", ").map((name) => ({ part, name: name.replace(/:.*/, "") })));
    }
    const modules = new Map<string, object>();
    for (const { part } of taken) modules.set(part, (await import(join(dist, part))) as object);
    expect(taken.length).toBeGreaterThan(10);
    expect(taken.filter(({ part, name }) => !(name in (modules.get(part) ?? {})))).toEqual([]);
  });

  it("has every compose fragment parsed, by the hash of its text", async () => {
    const parsed = JSON.parse(await readFile(join(directory, "dist/fragments.json"), "utf8")) as object;
    const fragments = (await readdir(join(root, "compose"))).filter((name) => name.endsWith(".yml"));
    const texts = await Promise.all(fragments.map((name) => readFile(join(root, "compose", name), "utf8")));
    const expected = texts.map((text) => [createHash("sha256").update(text).digest("hex"), parse(text)]);
    expect(parsed).toEqual(Object.fromEntries(expected));
  });

  it("lies in one directory, from which modules find the package's root", async () => {
    const entries = await readdir(join(directory, "dist"), { withFileTypes: true });
    expect(entries.filter((entry) => !entry.isFile())).toEqual([]);
  });

  it("passes on the licences of what is bundled", async () => {
    const licenses = await readFile(join(directory, "dist/licenses.txt"), "utf8");
    for (const name of ["commander", "dockerode", "hono", "@hono/node-server", "pg", "yaml", "zod"]) {
      expect(licenses).toMatch(new RegExp(`^${name} [0-9.]+ \\((MIT|ISC|Apache-2\\.0)\\)$`, "m"));
    }
  });

  it("has no part of dockerode that it never uses, and asks an engine without printing its requests", async () => {
    const texts = await Promise.all(
      (await readdir(join(directory, "dist")))
        .filter((name) => name.endsWith(".js"))
        .map((name) => readFile(join(directory, "dist", name), "utf8")),
    );
    const withModem = texts.filter((text) => text.includes("node_modules/docker-modem/lib/modem.js"));
    expect(withModem).toHaveLength(1);
    expect(withModem[0]).not.toContain("__dirname");
    for (const name of ["ssh2", "cpu-features", "@grpc/grpc-js", "protobufjs"])
      expect(texts.join("\n")).not.toContain(`node_modules/${name}/`);

    const asked: string[] = [];
    const engine = createServer((request, answer) => {
      asked.push(request.url ?? "");
      const version = { Version: "26.1.5", ApiVersion: "1.45", MinAPIVersion: "1.24" };
      answer.setHeader("content-type", "application/json");
      answer.end(JSON.stringify(request.url === "/version" ? version : []));
    });
    const socket = join(directory, "engine.sock");
    await new Promise<void>((resolve) => engine.listen(socket, resolve));
    try {
      const args = ["join-as-storage-node", "--dry-run", "--base-dir", join(directory, "none")];
      const env = { DOCKER_HOST: `unix://${socket}`, DEBUG: "*" };
      const { stdout, stderr } = await execa("node", [program(), ...args], { env, reject: false });
      expect(asked).toContain("/version");
      expect(asked.some((url) => url.startsWith("/v1.44/"))).toBe(true);
      expect(stdout + stderr).not.toMatch(/modem|__dirname|is not part of fula-node/);
    } finally {
      engine.close();
    }
  });

  it("hashes blocks in native code where it has some for this machine", async () => {
    const free = await listenAnywhere(() => {});
    await free.close();
    const env = {
      INGEST_PORT: String(free.port),
      STORAGE_API_URL: "http://127.0.0.1:1",
      NODE_ENV: "production",
    };
    const service = execa("node", [program(), "serve", "ingest"], { env, reject: false });
    let printed = "";
    for await (const line of service) {
      printed = line;
      if (line.includes("BLAKE3")) service.kill();
    }
    const native = process.platform === "linux" && process.arch === "x64";
    expect(printed).toContain("ingest has stopped");
    expect((await service).stdout).toContain(
      native ? "BLAKE3 by native code" : "BLAKE3 by WebAssembly, without native code",
    );
  });

  it("packs into one small file without dependencies", async () => {
    expect((await readManifest()).dependencies).toBeUndefined();
    const args = ["pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error"];
    const { stdout } = await execa("npm", args, { cwd: directory });
    const [packed] = JSON.parse(stdout) as [
      { readonly size: number; readonly files: readonly { readonly path: string }[] },
    ];
    expect(packed.size).toBeLessThan(2_500_000);
    const paths = packed.files.map(({ path }) => path);
    const wanted = ["bin/fula-node.js", "dist/cli.js", "dist/licenses.txt", "compose/Dockerfile"];
    wanted.push("compose/cluster-start.sh", "docs/troubleshooting.md");
    for (const path of wanted) expect(paths).toContain(path);
  });
});

describe("bin/fula-node.js", () => {
  it("is written in a syntax that every Node can read", async () => {
    const source = await readFile(program(), "utf8");
    const es5 = await transform(source, { target: "es5" });
    expect(es5.warnings).toEqual([]);
    expect(es5.code).toBe((await transform(source, { target: "esnext" })).code);
    expect(source, "a comma after the last argument is ES2017").not.toMatch(/,\s*\)/);
  });

  it.each(["20.18.3", "18.20.8", "8.17.0", "0.10.48"])("refuses Node %s and says why", async (version) => {
    const { exitCode, stdout, stderr } = await runAs(version);
    expect({ exitCode, stdout }).toEqual({ exitCode: 22, stdout: "" });
    expect(stderr).toContain(`fula-node needs Node.js 20.19 or newer; this is ${version} (`);
    expect(stderr).toMatch(/^Why: .*Nothing was changed/m);
    expect(stderr).toMatch(/^What to do: /m);
  });

  it.each(["20.19.0", "22.0.0", "100.1.0"])("lets Node %s in", async (version) => {
    expect(await runAs(version)).toMatchObject({ exitCode: 0, stderr: "" });
  });

  it("refuses a newer Node that lacks what the program needs, as 21.0 does", async () => {
    const lacking =
      'import crypto from "node:crypto"; import { syncBuiltinESMExports } from "node:module"; delete crypto.hash; syncBuiltinESMExports()';
    const { exitCode, stdout, stderr } = await runAs("21.0.0", lacking);
    expect({ exitCode, stdout }).toEqual({ exitCode: 22, stdout: "" });
    expect(stderr).toContain("this is 21.0.0 (");
    expect(stderr).toMatch(/^Why: it uses crypto\.hash, .*Nothing was changed/m);
  });

  async function runAs(version: string, more = "") {
    const versions = `Object.defineProperty(process, "versions", { value: { node: "${version}" } })`;
    const preload = `data:text/javascript,${encodeURIComponent(`${more};\n${versions}`)}`;
    return await execa("node", ["--import", preload, program(), "--version"], { reject: false });
  }
});

describeOnPostgres("a service from the artifact", (postgres) => {
  beforeAll(() => migrate(postgres.target));

  it("serves until SIGTERM, and then exits with 0", async () => {
    const peer = await startClusterPeer();
    try {
      const service = await startPinningApi(postgres.target, new URL(peer.url).port);
      const response = await fetch(`${service.url}/health`);
      expect(await response.json()).toMatchObject({ status: "ok", version: (await readManifest()).version });
      expect(await service.terminate()).toEqual({ code: 0, signal: null });
    } finally {
      await peer.close();
    }
  });

  it("lists what is missing, and exits with 21", async () => {
    const { exitCode, stderr } = await execa("node", [program(), "serve", "webui"], {
      env: { PATH: process.env["PATH"], NODE_ENV: "production" },
      extendEnv: false,
      reject: false,
    });
    expect(exitCode).toBe(21);
    for (const key of ["JWT_SECRET", "SESSION_SECRET", "POSTGRES_PASSWORD", "PINNING_SYSTEM_KEY"])
      expect(stderr).toContain(`${key} is missing`);
  });

  async function startPinningApi(target: PostgresTarget, clusterPort: string) {
    const [free, edge, metrics] = await Promise.all([1, 2, 3].map(() => listenAnywhere(() => {})));
    if (free === undefined || edge === undefined || metrics === undefined) throw new Error("no free ports");
    await Promise.all([free, edge, metrics].map((one) => one.close()));
    const port = String(free.port);
    const env = {
      PATH: process.env["PATH"],
      NODE_ENV: "production",
      PORT: port,
      PINNING_EDGE_PORT: String(edge.port),
      PINNING_METRICS_PORT: String(metrics.port),
      POSTGRES_HOST: target.host,
      POSTGRES_PORT: String(target.port),
      POSTGRES_DB: target.database,
      POSTGRES_USER: target.user,
      POSTGRES_PASSWORD: target.password,
      JWT_SECRET: "j".repeat(16),
      SESSION_SECRET: "s".repeat(16),
      SYSTEM_KEY: "k".repeat(12),
      IPFS_CLUSTER_API_ADDR: `/ip4/127.0.0.1/tcp/${clusterPort}`,
    };
    const child = spawn("node", [program(), "serve", "pinning-api"], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    const exited = once(child, "exit");
    const listening = new Promise<void>((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (chunk) => {
          said += String(chunk);
          if (said.includes(`listens on 127.0.0.1:${port}`)) resolve();
        });
      }
      child.once("exit", (code) => reject(new Error(`it exited with ${code}: ${said}`)));
    });
    await listening;
    return {
      url: `http://127.0.0.1:${port}`,
      async terminate() {
        child.kill("SIGTERM");
        const [code, signal] = (await exited) as [number | null, string | null];
        return { code, signal };
      },
    };
  }
});
