import { execa } from "execa";
import { onTestFailed, onTestFinished } from "vitest";
import type { PinWorkerSettings } from "../../src/pinning/worker.ts";
import { bundleChild } from "./bundle-child.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const program = await bundleChild(new URL("./pin-worker-child.ts", import.meta.url));

/** A worker in its own process. */
export interface WorkerProcess {
  readonly pid: number;
  readonly output: () => string;
  /** Sends a signal to it alone. */
  signal(name: "SIGSTOP" | "SIGCONT" | "SIGKILL" | "SIGTERM"): void;
  /** Resolves with the signal that ended it, or its exit code. */
  readonly ended: Promise<string | number>;
}

/** Starts a worker in its own process, and waits until it runs. It is killed after the test. */
export async function startWorkerProcess(
  target: PostgresTarget,
  endpoint: string,
  own: Partial<PinWorkerSettings> = {},
): Promise<WorkerProcess> {
  const settings = {
    deadlineMs: 3_600_000,
    slots: 4,
    leaseMs: 1_500,
    pollMs: 50,
    forgottenAfterMs: 500,
    ...own,
  };
  const postgres = { ...target, maxConnections: 10, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 };
  let output = "";
  const child = execa(process.execPath, ["--input-type=module"], {
    input: program,
    env: { PIN_WORKER: JSON.stringify({ postgres, endpoint, settings }) },
    reject: false,
    all: true,
  });
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await child;
  });
  onTestFailed(() => console.error(`the worker said:\n${output}`));
  const up = new Promise<void>((resolve, reject) => {
    child.all.on("data", (data: Buffer) => {
      output += data.toString();
      if (output.includes("up\n")) resolve();
    });
    void child.then(() => reject(new Error(`the worker ended:\n${output}`)));
  });
  await up;
  return {
    pid: child.pid ?? 0,
    output: () => output,
    signal: (name) => void process.kill(child.pid ?? 0, name),
    ended: child.then(({ signal, exitCode }) => signal ?? exitCode ?? -1),
  };
}
