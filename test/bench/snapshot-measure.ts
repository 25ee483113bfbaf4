import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateSigningKeyPem, parseSigningKey } from "../../src/machine/signing.ts";

/** The result of one run of a program. */
export interface Measured {
  readonly seconds: number;
  /** The maximum of resident memory (VmHWM). */
  readonly peakMiB: number;
  readonly stdout: string;
}

/** Runs a program to its end. Throws if its exit code is neither 0 nor another expected one. */
export async function measure(
  command: string,
  args: readonly string[],
  expected: readonly number[] = [0],
): Promise<Measured> {
  const started = performance.now();
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (part: Buffer) => (stdout += part.toString()));
  child.stderr.on("data", (part: Buffer) => (stderr += part.toString()));
  let peakKiB = 0;
  const look = setInterval(() => {
    try {
      const match = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"));
      peakKiB = Math.max(peakKiB, Number(match?.[1] ?? 0));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
    }
  }, 50);
  const code = await new Promise((resolve) => child.once("close", resolve));
  clearInterval(look);
  if (!expected.includes(code as number))
    throw new Error(`${command} ${args.join(" ")}: exit ${String(code)}\n${stdout}${stderr}`);
  return { seconds: (performance.now() - started) / 1000, peakMiB: peakKiB / 1024, stdout };
}

/** The generated cluster in its own process. */
export async function startServer(
  pins: number,
  pace: number,
): Promise<{ readonly url: string; stop(): void }> {
  const script = new URL("snapshot-server.ts", import.meta.url).pathname;
  const child: ChildProcess = spawn(
    process.execPath,
    ["--import", "tsx", script, String(pins), String(pace)],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const port = await new Promise<string>((resolve) =>
    child.stdout?.once("data", (part: Buffer) => resolve(part.toString().trim())),
  );
  return { url: `http://127.0.0.1:${port}`, stop: () => void child.kill() };
}

/** The ids of the peers of the server (snapshot-server.ts). */
const PEERS = ["A", "B"].map((letter) => `12D3KooW${letter.repeat(44)}`);

/** A base directory with everything of an installed master that the verbs need. */
export function makeBase(clusterUrl: string): { readonly dir: string; remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), "fula-bench-"));
  const pem = generateSigningKeyPem();
  writeFileSync(join(dir, "snapshot-ed25519.pem"), pem, { mode: 0o600 });
  writeFileSync(join(dir, "snapshot-ed25519.pub.pem"), parseSigningKey(pem, "bench").publicPem, {
    mode: 0o644,
  });
  const port = new URL(clusterUrl).port;
  const env = `CLUSTERNAME=bench\nCLUSTER_SECRET=${"5".repeat(64)}\nIPFS_CLUSTER_API_ADDR=/ip4/127.0.0.1/tcp/${port}\n`;
  writeFileSync(join(dir, ".env"), env, { mode: 0o600 });
  // The benchmark has no database with registered names. The nodes are in a list as 0.1.0 wrote it.
  const at = "2026-01-01T00:00:00.000Z";
  const nodes = PEERS.map((id, index) => ({ id, name: `node-${index}`, first_seen: at, last_seen: at }));
  writeFileSync(join(dir, "known-nodes.json"), JSON.stringify({ nodes }));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

/** Runs the built artifact. */
export function fulaNode(args: readonly string[], expected?: readonly number[]): Promise<Measured> {
  const program = new URL("../../bin/fula-node.js", import.meta.url).pathname;
  return measure(process.execPath, [program, ...args], expected);
}
