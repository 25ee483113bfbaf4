import { execa } from "execa";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, openSync, closeSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { generateSigningKeyPem, parseSigningKey } from "../../src/machine/signing.ts";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The package as it would be published: what loads TypeScript fails in a directory that was removed. */
let artifact: string;
beforeAll(async () => {
  artifact = mkdtempSync(join(tmpdir(), "fula-shell-"));
  await execa("node", ["scripts/build.mjs", join(artifact, "dist")], { cwd: root });
  for (const entry of ["package.json", "bin", "compose", "migrations"])
    cpSync(join(root, entry), join(artifact, entry), { recursive: true });
});
afterAll(() => rmSync(artifact, { recursive: true }));

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn("skipped: the verbs over pins need root, since the settings hold secrets");

const program = (): string => join(artifact, "bin/fula-node.js");

interface Ended {
  readonly exitCode: number | null;
  readonly stderr: string;
}

/** Runs the program with a standard output that nobody reads: its pipe is closed before the first byte. */
async function runUnread(
  args: readonly string[],
  options: { readonly alsoStderr?: boolean } = {},
): Promise<Ended> {
  const child = spawn(process.execPath, [program(), ...args], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  if (options.alsoStderr === true) child.stderr.destroy();
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  const [exitCode] = (await once(child, "close")) as [number | null];
  return { exitCode, stderr };
}

test.each([[["--help"]], [["--version"]], [["status", "--help"]]])("%j ends quietly", async (args) => {
  expect(await runUnread(args)).toEqual({ exitCode: 0, stderr: "" });
});

describe.skipIf(!isRoot)("an output that is closed (| head)", () => {
  let base: string;
  let double: ClusterDouble;
  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), "fula-output-"));
    double = await startClusterDouble({ pins: [{ cid: cidOf("one"), name: "one" }], peers: 3 });
    const pem = generateSigningKeyPem();
    writeFileSync(join(base, "snapshot-ed25519.pem"), pem, { mode: 0o600 });
    writeFileSync(join(base, "snapshot-ed25519.pub.pem"), parseSigningKey(pem, "").publicPem);
    writeFileSync(
      join(base, ".env"),
      `CLUSTERNAME=lab\nIPFS_CLUSTER_API_ADDR=/ip4/127.0.0.1/tcp/${new URL(double.url).port}\nCLUSTER_SECRET=${"ab".repeat(32)}\n`,
      { mode: 0o600 },
    );
  });
  afterEach(async () => {
    await double.stop();
    rmSync(base, { recursive: true });
  });

  test.each([[["snapshot", "list"]], [["snapshot", "list", "--json"]]])(
    "ends %j quietly, as SIGPIPE would",
    async (args) => {
      expect(await runUnread([...args, "--base-dir", base])).toEqual({ exitCode: 141, stderr: "" });
    },
  );

  test.each([false, true])(
    "a run that changes something goes on to its end (stderr too: %s)",
    async (alsoStderr) => {
      const { exitCode } = await runUnread(["snapshot", "take", "--base-dir", base], { alsoStderr });
      expect(exitCode).toBe(0);
      expect(existsSync(join(base, "heartbeats/snapshot.json"))).toBe(true);
    },
  );

  test("an error keeps its exit code although nobody reads it", async () => {
    const missing = ["snapshot", "take", "--base-dir", join(base, "none")];
    expect((await runUnread(missing, { alsoStderr: true })).exitCode).toBe(21);
  });

  test("a full disk behind the output is said, and never success for a verb that only reads", async () => {
    const full = openSync("/dev/full", "w");
    const run = async (args: readonly string[]): Promise<Ended> => {
      const child = spawn(process.execPath, [program(), ...args, "--base-dir", base], {
        stdio: ["ignore", full, "pipe"],
      });
      let stderr = "";
      child.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
      const [exitCode] = (await once(child, "close")) as [number | null];
      return { exitCode, stderr };
    };
    expect(await run(["snapshot", "list"])).toEqual({
      exitCode: 29,
      stderr: expect.stringContaining("The output can't be written: ENOSPC"),
    });
    const take = await run(["snapshot", "take"]);
    expect(take.exitCode, take.stderr).toBe(0);
    closeSync(full);
  });
});

describe("a current directory that was removed", () => {
  const runThere = async (args: readonly string[]): Promise<Ended> => {
    const directory = mkdtempSync(join(tmpdir(), "fula-removed-"));
    const script = 'cd "$1" && rmdir "$1" && shift && exec "$@"';
    const child = spawn("sh", ["-c", script, "sh", directory, process.execPath, program(), ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const [exitCode] = (await once(child, "close")) as [number | null];
    return { exitCode, stderr };
  };

  test.each([
    ["status", "--base-dir", "/opt/none"],
    ["join-as-master", "--dry-run", "--base-dir", "/opt/none"],
    ["snapshot", "list", "--base-dir", "/opt/none"],
    ["leave", "--dry-run", "--base-dir", "/opt/none"],
  ])("does not matter to %s %s", async (...args) => {
    const { exitCode, stderr } = await runThere(args);
    expect(stderr).not.toContain("bug");
    expect(stderr).not.toContain("current directory");
    expect(exitCode).not.toBe(1);
  });

  test.each([
    [["snapshot", "list", "--dir", "copies"], "copies"],
    [["snapshot", "verify", "x", "--key", "key.pem"], "key.pem"],
    [["invite", "show", "@invite"], "invite"],
  ])("is named for the relative path in %j", async (args, path) => {
    const { exitCode, stderr } = await runThere(args);
    expect(stderr).toContain(`${path} is relative to the current directory, which was removed.`);
    expect(exitCode).toBe(2);
  });
});
