import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { generateSigningKeyPem, parseSigningKey } from "../../src/machine/signing.ts";
import { createLines } from "../../src/ui/lines.ts";
import { createTerminal } from "../../src/ui/terminal.ts";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, type DoublePeer, startClusterDouble } from "../support/cluster-double.ts";
import { runVerb, type VerbRun } from "../support/run-verb.ts";

/** The program from its source, in its own process. */
const SOURCE = [
  "--import",
  "tsx",
  "--import",
  'data:text/javascript,globalThis.FULA_NODE_VERSION="0.1.0"',
  fileURLToPath(new URL("../../src/cli.ts", import.meta.url)),
];
const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn("skipped: the verbs over pins need root, since the settings hold secrets");

describe.skipIf(!isRoot)("the verbs over pins, in an installed master", () => {
  let base: string;
  let double: ClusterDouble;
  const fula = (...args: string[]): Promise<VerbRun> => runVerb([...args, "--base-dir", base]);
  const setEnv = (extra: string): void =>
    writeFileSync(
      join(base, ".env"),
      `CLUSTERNAME=lab\nIPFS_CLUSTER_API_ADDR=/ip4/127.0.0.1/tcp/${new URL(double.url).port}\n${extra}`,
      { mode: 0o600 },
    );
  const take = async (): Promise<string> => {
    const { exitCode, stdout, stderr } = await fula("snapshot", "take", "--json");
    expect([0, 20], stderr).toContain(exitCode);
    return (JSON.parse(stdout) as { name: string }).name;
  };

  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), "fula-verbs-"));
    double = await startClusterDouble({
      pins: Array.from({ length: 30 }, (_, index) => ({ cid: cidOf(`verb ${index}`), name: `pin ${index}` })),
      peers: 3,
    });
    const pem = generateSigningKeyPem();
    writeFileSync(join(base, "snapshot-ed25519.pem"), pem, { mode: 0o600 });
    writeFileSync(join(base, "snapshot-ed25519.pub.pem"), parseSigningKey(pem, "").publicPem);
    setEnv(`CLUSTER_SECRET=${"ab".repeat(32)}\n`);
  });
  afterEach(async () => {
    await double.stop();
    rmSync(base, { recursive: true });
  });

  test("take, list, verify, diff and restore work as docs/lost-pinset.md describes", async () => {
    const name = await take();
    expect((await fula("snapshot", "verify", name)).stdout).toMatch(/^Verified: pinset-.*: 30 pins/);
    const all = [...double.pins];
    double.pins.clear();
    expect((await fula("snapshot", "diff", name, "live", "--limit", "2")).stdout).toContain(
      "... and 28 more",
    );
    const dry = await fula("snapshot", "restore", name, "--dry-run");
    expect(dry).toMatchObject({ exitCode: 20, stdout: expect.stringContaining("30 pins would be restored") });
    expect(double.pins.size).toBe(0);
    const restored = await fula("snapshot", "restore", name);
    expect(restored).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("30 pins restored") });
    expect([...double.pins.keys()].sort()).toEqual(all.map(([cid]) => cid).sort());
    expect((await fula("snapshot", "diff", name, "live")).exitCode).toBe(0);
    expect((await fula("snapshot", "list")).stdout).toMatch(/verified +\d+ s +30 pins +first/);
  });

  test("a killed restore releases its lock, and the next one sends only what is missing", async () => {
    const COUNT = 2_000;
    double.pins.clear();
    for (let index = 0; index < COUNT; index++)
      double.pins.set(cidOf(`killed ${index}`), { cid: cidOf(`killed ${index}`) });
    const name = await take();
    double.pins.clear();
    const child = spawn(process.execPath, [...SOURCE, "snapshot", "restore", name, "--base-dir", base]);
    const ended = once(child, "close");
    const add = double.pins.set.bind(double.pins);
    double.pins.set = (cid, pin) => {
      if (double.pins.size === COUNT / 4) child.kill("SIGKILL");
      return add(cid, pin);
    };
    expect(await ended).toEqual([null, "SIGKILL"]);
    expect(double.pins.size).toBeGreaterThan(COUNT / 4);
    expect(double.pins.size).toBeLessThan(COUNT);
    const again = await fula("snapshot", "restore", name);
    const restored = Number(/(\d+) pins restored/.exec(again.stdout)?.[1]);
    expect(restored).toBeGreaterThan(0);
    expect(restored).toBeLessThan((COUNT * 3) / 4);
    expect(again.exitCode).toBe(0);
    expect(double.pins.size).toBe(COUNT);
    const sent = double.requests.filter((request) => request.startsWith("POST /pins/"));
    expect(sent.length, "requests that were running at the kill may be sent twice").toBeLessThan(COUNT + 65);
  });

  test("the cluster is identified by a hash of its secret, not by its secret", async () => {
    const name = await take();
    const manifest = readFileSync(join(base, "snapshots", `${name}.manifest.json`), "utf8");
    expect((JSON.parse(manifest) as { cluster: unknown }).cluster).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{64}$/),
      name: "lab",
    });
    expect(manifest).not.toContain("abab");
    double.pins.clear();
    setEnv(`CLUSTER_SECRET=${"cd".repeat(32)}\n`);
    const refused = await fula("snapshot", "restore", name);
    expect(refused).toMatchObject({ exitCode: 23, stderr: expect.stringContaining("--from-other-cluster") });
    expect((await fula("snapshot", "restore", name, "--from-other-cluster")).exitCode).toBe(0);
  });

  test("each refusal has its exit code", async () => {
    const name = await take();
    const body = join(base, "snapshots", `${name}.ndjson.gz`);
    const whole = readFileSync(body);
    writeFileSync(body, whole.subarray(1));
    for (const verb of [["verify", name], ["restore", name], ["diff", name, "live"], ["list"]])
      expect((await fula("snapshot", ...verb)).exitCode, verb.join(" ")).toBe(28);
    writeFileSync(body, whole);
    expect((await fula("snapshot", "verify", "pinset-none")).exitCode).toBe(2);
    expect((await fula("snapshot", "diff", name, "live", "--limit", "many")).exitCode).toBe(2);
    expect((await fula("snapshot", "restore", name, "--concurrency", "0")).exitCode).toBe(2);
    chmodSync(join(base, "snapshot-ed25519.pub.pem"), 0o666);
    expect((await fula("snapshot", "verify", name)).exitCode).toBe(21);
    rmSync(join(base, "snapshot-ed25519.pub.pem"));
    expect((await fula("snapshot", "verify", name)).exitCode).toBe(0);
    chmodSync(join(base, "snapshot-ed25519.pem"), 0o640);
    expect((await fula("snapshot", "verify", name)).exitCode).toBe(21);
    expect((await fula("snapshot", "take")).exitCode).toBe(21);
    rmSync(join(base, "snapshot-ed25519.pem"));
    expect(await fula("snapshot", "verify", name)).toMatchObject({
      exitCode: 21,
      stderr: expect.stringContaining("no key"),
    });
  });

  test("a restore that could not finish exits 26 and names the file", async () => {
    const name = await take();
    const [[cid]] = [...double.pins] as [[string, unknown]];
    double.pins.clear();
    double.refusals.set(cid, { status: 500, message: "no room", times: Infinity });
    const result = await fula("snapshot", "restore", name, "--json");
    expect(result.exitCode).toBe(26);
    const { failedFile } = JSON.parse(result.stdout) as { failedFile: string };
    expect(readFileSync(failedFile, "utf8")).toContain("no room");
    expect(JSON.parse(result.stderr)).toMatchObject({
      error: { exit: "interrupted", changed: expect.stringContaining("29 pins") },
    });
  });

  test("the list of an empty directory is empty, without an error", async () => {
    expect(await fula("snapshot", "list")).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining("no snapshot"),
    });
  });

  /** The list of known nodes as 0.1.0 wrote it. This master's database is not known, so the names are not. */
  const knowNodes = (): void => {
    const at = "2026-01-01T00:00:00.000Z";
    const nodes = double.peers.map(({ id, name }) => ({ id, name, first_seen: at, last_seen: at }));
    writeFileSync(join(base, "known-nodes.json"), JSON.stringify({ nodes }));
  };

  test("sweep --strict reports a missing node until it is forgotten", async () => {
    expect(await fula("sweep")).toMatchObject({
      exitCode: 29,
      stderr: expect.stringContaining("registered names"),
    });
    knowNodes();
    expect((await fula("sweep", "--strict")).exitCode).toBe(0);
    const gone = double.peers[2] as { present: boolean; name: string };
    gone.present = false;
    expect((await fula("sweep", "--strict")).exitCode).toBe(20);
    expect((await fula("sweep", "--strict", "--forget", "nobody")).exitCode).toBe(2);
    expect((await fula("sweep", "--strict", "--forget", gone.name)).exitCode).toBe(0);
    expect((await fula("sweep", "--strict")).exitCode).toBe(0);
  });

  test("node list shows who is expected; a stranger is kept by its peer id only, and can be forgotten", async () => {
    knowNodes();
    const id = `12D3KooW${"S".repeat(44)}`;
    const [peer] = double.peers as [DoublePeer];
    double.peers.push({ ...peer, id, name: "follower-1\u001b[2J\u202e" });
    const lists = async () => {
      const { exitCode, stdout } = await fula("node", "list", "--json");
      expect(exitCode).toBe(0);
      const { nodes, strangers } = JSON.parse(stdout) as Record<
        string,
        { id: string; expectedBy?: string }[]
      >;
      return [nodes?.find((node) => node.id === id)?.expectedBy, strangers?.some((one) => one.id === id)];
    };
    expect(await lists()).toEqual([undefined, true]);
    const { stdout } = await fula("node", "list");
    expect(stdout).toContain("3 expected nodes:");
    expect(stdout).toMatch(/not expected\. .*\n +follower-1\\u001b\[2J\\u202e/);
    const byName = await fula("node", "keep", "follower-1\\u001b[2J\\u202e");
    expect(byName).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(id) });
    expect((await fula("node", "keep", id, "--name", "no such name")).exitCode).toBe(2);
    expect(await lists()).toEqual([undefined, true]);
    expect((await fula("node", "keep", id, "--name", "mine")).exitCode).toBe(0);
    expect(await lists()).toEqual(["operator", false]);
    expect((await fula("node", "forget", "nobody")).exitCode).toBe(2);
    expect((await fula("node", "forget", "mine")).exitCode).toBe(0);
    expect(await lists()).toEqual([undefined, false]);
  });

  test("an alarm runs ALERT_COMMAND; one that may not be run ends the sweep with 29 after its result", async () => {
    knowNodes();
    (double.peers[2] as { present: boolean }).present = false;
    // Not below /tmp: others can write to it.
    const home = mkdtempSync(join(process.env["HOME"] ?? "/root", "fula-verbs-"));
    try {
      const command = join(home, "alert");
      writeFileSync(command, `#!/bin/sh\ncat >>${home}/got\n`, { mode: 0o755 });
      setEnv(`ALERT_COMMAND=${command}\n`);
      expect((await fula("sweep")).exitCode).toBe(0);
      expect(readFileSync(`${home}/got`, "utf8").trim().split("\n")).toHaveLength(1);
      chmodSync(command, 0o777);
      const refused = await fula("sweep");
      expect(refused).toMatchObject({ exitCode: 29, stdout: expect.stringContaining("30 unknown") });
      expect(refused.stderr).toContain("can write to");
      expect((await fula("sweep", "--strict")).exitCode).toBe(20);
    } finally {
      rmSync(home, { recursive: true });
    }
  });

  test("the log of the cron job is rotated by the job itself", async () => {
    knowNodes();
    writeFileSync(join(base, "sweep.log"), Buffer.alloc(17 * 1024 ** 2, "x"));
    writeFileSync(join(base, "snapshot.log"), Buffer.alloc(17 * 1024 ** 2, "x"));
    expect((await fula("sweep")).exitCode).toBe(0);
    await take();
    expect(readdirSync(base).filter((name) => name.includes(".log"))).toEqual([
      "snapshot.log.1",
      "sweep.log.1",
    ]);
  });
});

describe("progress of a long run", () => {
  const output: string[] = [];
  const streams = {
    out: (line: string) => void output.push(line),
    err: (line: string) => void output.push(line),
  };
  afterEach(() => output.splice(0));

  test("is one line every ten seconds in a log", () => {
    let now = 1_000_000;
    const lines = createLines(streams, () => now);
    for (let second = 0; second < 25; second++) {
      lines.progress(`${second}`);
      now += 1000;
    }
    expect(output).toEqual(["0", "10", "20"]);
  });

  test("replaces the previous progress line on a terminal, but no other line", () => {
    const terminal = createTerminal(streams, () => 0);
    for (const text of ["1", "2"]) terminal.progress(text);
    terminal.note("note");
    terminal.progress("3");
    expect(output).toEqual(["1", "\u001b[1A\u001b[2K2", "note", "3"]);
  });
});
