import { execa } from "execa";
import { onTestFinished } from "vitest";
import { bundleChild } from "./bundle-child.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const program = await bundleChild(new URL("./serve-child.ts", import.meta.url));

/** A pinning API in its own process. */
export interface ServeProcess {
  readonly pid: number;
  readonly url: string;
  readonly output: () => string;
  signal(name: "SIGTERM" | "SIGKILL"): void;
  /** Resolves with the signal that ended it, or its exit code. */
  readonly ended: Promise<string | number>;
}

/** Starts `serve pinning-api` on a database, and waits until it listens. It is killed after the test. */
export async function startServeProcess(
  target: PostgresTarget,
  given: {
    readonly ports: readonly [own: number, edge: number, metrics: number];
    readonly cluster: string;
    readonly environment?: Readonly<Record<string, string>>;
  },
): Promise<ServeProcess> {
  const [port, edge, metrics] = given.ports;
  const environment = {
    PORT: String(port),
    PINNING_EDGE_PORT: String(edge),
    PINNING_METRICS_PORT: String(metrics),
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    POSTGRES_CONNECTION_TIMEOUT: "2000",
    SYSTEM_KEY: "system-key-for-tests",
    CREDIT_GATE: "open",
    IPFS_CLUSTER_API_ADDR: `/ip4/127.0.0.1/tcp/${new URL(given.cluster).port}`,
    IPFS_API_ADDR: "/ip4/127.0.0.1/tcp/9",
    ...given.environment,
  };
  let output = "";
  const child = execa(process.execPath, ["--input-type=module"], {
    input: program,
    env: environment,
    reject: false,
    all: true,
  });
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await child;
  });
  await new Promise<void>((resolve, reject) => {
    child.all.on("data", (data: Buffer) => {
      output += data.toString();
      if (output.includes(` listens on 127.0.0.1:${port}`)) resolve();
    });
    void child.then(() => reject(new Error(`the service ended:\n${output}`)));
  });
  return {
    pid: child.pid ?? 0,
    url: `http://127.0.0.1:${port}`,
    output: () => output,
    signal: (name) => void child.kill(name),
    ended: child.then(({ signal, exitCode }) => signal ?? exitCode ?? -1),
  };
}
