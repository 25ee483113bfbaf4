import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { main } from "../../src/main.ts";
import { eventually } from "../support/cluster-real.ts";

/** A master's directory, whose database takes connections and never answers. */
async function masterThatHangs(): Promise<string> {
  const server = createServer(() => {}).listen(0, "127.0.0.1");
  await once(server, "listening");
  const baseDir = await mkdtemp(join(tmpdir(), "fula-node-drill-"));
  onTestFinished(async () => {
    server.close();
    await rm(baseDir, { recursive: true });
  });
  const values = {
    CLUSTERNAME: "pool-a",
    CLUSTER_PEERNAME: "m1",
    MASTER_ID: "0123456789abcdef".repeat(2),
    POSTGRES_HOST: "127.0.0.1",
    POSTGRES_PORT: (server.address() as AddressInfo).port,
    POSTGRES_PASSWORD: "password-of-the-test",
  };
  const lines = Object.entries(values).map(([key, value]) => `${key}=${value}\n`);
  await writeFile(join(baseDir, ".env"), lines.join(""), { mode: 0o600 });
  return baseDir;
}

test.skipIf(process.getuid?.() !== 0)(
  "the first signal lets drill clean up and end with 26, a second one ends it at once",
  async () => {
    const baseDir = await masterThatHangs();
    const handlers = new Map<string, (signal: string) => void>();
    const exits: number[] = [];
    let [stdout, stderr] = ["", ""];
    const double = {
      argv: ["node", "fula-node", "drill", "D2", "--base-dir", baseDir],
      env: {},
      execPath: process.execPath,
      pid: process.pid,
      stdin: { isTTY: false },
      stdout: { isTTY: false, write: (text: string) => ((stdout += text), true) },
      stderr: { isTTY: false, write: (text: string) => ((stderr += text), true) },
      once: (signal: string, handler: (signal: string) => void) => void handlers.set(signal, handler),
      off: () => undefined,
    };
    const signal = (name: string): void => {
      const handler = handlers.get(name);
      handlers.delete(name);
      handler?.(name);
    };
    const ended = main({
      process: double as unknown as NodeJS.Process,
      output: { onLost: () => undefined },
      version: "0.1.0",
      exit: (exitCode) => void exits.push(exitCode),
    });
    await eventually("it listens for signals", async () => handlers.has("SIGINT") && handlers.has("SIGTERM"));
    signal("SIGINT");
    expect(exits).toEqual([]);
    expect(stderr).toContain("Stopped by SIGINT: it cleans up, then ends. A second signal ends it at once.");
    signal("SIGINT");
    expect(exits).toEqual([130]);
    signal("SIGTERM");
    expect(exits).toEqual([130, 143]);
    // The double lets it go on: it still ends as after the first signal.
    expect(await ended, stderr).toBe(26);
    expect(exits.at(-1)).toBe(26);
    expect(stdout).toContain("(exit 26)");
  },
);
