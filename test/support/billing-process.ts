import { execa } from "execa";
import { onTestFinished } from "vitest";
import { bundleChild } from "./bundle-child.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { BillingSettings } from "../../src/settings/billing.ts";
import { BILLING, PRICING } from "./billing.ts";

const program = await bundleChild(new URL("./billing-child.ts", import.meta.url));

/** A master's billing in its own process. */
export interface BillingProcess {
  readonly output: () => string;
  signal(name: "SIGSTOP" | "SIGCONT" | "SIGKILL" | "SIGTERM"): void;
  /** Resolves with the signal that ended it, or its exit code. */
  readonly ended: Promise<string | number>;
}

/** How a master of a test differs from a real one: it beats and loses its lease much faster. */
export interface BillingOptions {
  readonly master: string;
  /** One deduction without a lease, then it ends. */
  readonly once?: boolean;
  readonly intervalMs?: number;
  readonly beatMs?: number;
  readonly silentAfterMs?: number;
  readonly batchSize?: number;
  /** How it scans for deposits. Default: no chain. */
  readonly billing?: Partial<BillingSettings>;
}

/** Starts it, and waits until it is connected. It is killed after the test. */
export async function startBilling(
  target: PostgresTarget,
  {
    master,
    once = false,
    intervalMs = 1_000,
    beatMs = 200,
    silentAfterMs = 1_500,
    batchSize = 500,
    billing = {},
  }: BillingOptions,
): Promise<BillingProcess> {
  const settings = {
    billing: { ...BILLING, deductionIntervalMs: intervalMs, scannerIntervalMs: intervalMs, ...billing },
    postgres: { ...target, maxConnections: 4, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 },
    pricing: PRICING,
    masterId: master,
  };
  let output = "";
  const child = execa(process.execPath, ["--input-type=module"], {
    input: program,
    env: {
      BILLING: JSON.stringify({ settings, once, times: { beatMs, retryMs: 500, silentAfterMs, batchSize } }),
    },
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
      if (output.includes("up\n")) resolve();
    });
    void child.then(() => reject(new Error(`the master ended:\n${output}`)));
  });
  return {
    output: () => output,
    signal: (name) => void process.kill(child.pid ?? 0, name),
    ended: child.then(({ signal, exitCode }) => signal ?? exitCode ?? -1),
  };
}
