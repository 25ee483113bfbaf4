import { execa } from "execa";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type Rendered, requiredKeys } from "../../../src/docker/compose-render.ts";
import { findCompose } from "../../support/compose-program.ts";
import { masterOf, writerOf } from "./compose-fragments.ts";

interface Verdict {
  readonly exitCode?: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Keys of the documents that this shell happens to have would be taken for settings. */
const ENVIRONMENT = Object.fromEntries(
  ["PATH", "HOME", "DOCKER_CONFIG"].map((key) => [key, process.env[key]]),
);

const compose = await findCompose();
if (typeof compose === "string") console.warn(`skipped: what docker compose makes of our files: ${compose}`);

const SECRET = "s$3cr'et #\"x\\y";

const directories: string[] = [];
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
});

async function judged(
  rendered: Rendered,
  env: Readonly<Record<string, string>>,
  args: readonly string[],
): Promise<Verdict> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-judge-"));
  directories.push(directory);
  await writeFile(join(directory, "docker-compose.yml"), rendered.text);
  const lines = Object.entries(env).map(([key, value]) => `${key}=${quote(value)}\n`);
  await writeFile(join(directory, ".env"), lines.join(""));
  return await execa("docker", ["compose", ...args], {
    cwd: directory,
    env: ENVIRONMENT,
    extendEnv: false,
    reject: false,
  });
}

function quote(value: string): string {
  return `"${value.replace(/["\\$]/g, String.raw`\$&`)}"`;
}

const CONFIG = ["--profile", "*", "config", "--format", "json"];

describe.skipIf(typeof compose === "string")("docker compose", () => {
  it.each([
    ["master", masterOf()],
    ["writer", writerOf()],
  ])("refuses the %s while any required key is missing, and says which", async (_name, rendered) => {
    const keys = requiredKeys(rendered.document);
    const missing = keys.at(-1) ?? "";
    const given = Object.fromEntries(keys.slice(0, -1).map((key) => [key, "x"]));
    const { exitCode, stderr } = await judged(rendered, given, CONFIG);
    expect(exitCode).not.toBe(0);
    expect(stderr).toContain(`required variable ${missing} is missing a value: `);
    expect(stderr).toContain("fula-node join-as-master");
  });

  it("reads the master's file as we mean it", async () => {
    const given = { FULA_NODE_VERSION: "1.2.3", POSTGRES_PASSWORD: SECRET, VAULT_ADDRESS: "0xabc" };
    const others = { JWT_SECRET: "j", SESSION_SECRET: "s", SYSTEM_KEY: "k", ENCRYPTION_KEY: "e" };
    const { stdout, stderr } = await judged(
      masterOf(),
      { ...given, ...others, PINNING_API_PORT: "6001" },
      CONFIG,
    );
    expect(stderr).toBe("");
    const { services, volumes } = JSON.parse(stdout) as {
      services: Record<string, { image: string; environment: Record<string, string | null>; ports: unknown }>;
      volumes: Record<string, { name: string }>;
    };
    expect(services["pinning-api"]?.image).toBe("fula-node:1.2.3");
    // What `config` prints could be read again, so it doubles every dollar sign.
    expect(services["webui"]?.environment["POSTGRES_PASSWORD"]).toBe(SECRET.replaceAll("$", "$$$$"));
    expect(services["webui"]?.environment["PINNING_SERVICE_URL"]).toBe("http://127.0.0.1:6001");
    expect(services["webui"]?.environment["VAULT_ADDRESS"]).toBe("0xabc");
    expect(services["webui"]?.environment["GOOGLE_CLIENT_ID"]).toBeNull();
    expect(services["postgres"]?.ports).toMatchObject([
      { host_ip: "127.0.0.1", published: "5432", target: 5432 },
    ]);
    expect(volumes["pgdata"]?.name).toBe("fula-master_pgdata");
  });

  it("reads the writer's file as we mean it", async () => {
    const { stdout, stderr } = await judged(writerOf(), { CLUSTER_SECRET: "0".repeat(64) }, CONFIG);
    expect(stderr).toBe("");
    const { services } = JSON.parse(stdout) as {
      services: Record<string, { environment: Record<string, string | null>; command: unknown }>;
    };
    expect(services["ipfs-cluster"]?.environment).toMatchObject({
      CLUSTER_CRDT_TRUSTEDPEERS: "",
      CLUSTER_CRDT_CLUSTERNAME: "ipfs-cluster",
      CLUSTER_REPLICATIONFACTORMIN: "-1",
      CLUSTER_REPLICATIONFACTORMAX: "-1",
      CLUSTER_PEERNAME: null,
    });
    expect(services["kubo"]?.environment["IPFS_TELEMETRY"]).toBe("off");
  });
});
