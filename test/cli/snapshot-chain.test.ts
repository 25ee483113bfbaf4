import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { generateSigningKeyPem, parseSigningKey } from "../../src/machine/signing.ts";
import { endorsementOf, parseMemory, retireKey, serialiseMemory } from "../../src/pinset/snapshot/memory.ts";
import { release010 } from "../support/artifact.ts";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { runVerb, type VerbRun } from "../support/run-verb.ts";

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn("skipped: the verbs over pins need root, since the settings hold secrets");

describe.skipIf(!isRoot)("the chain of snapshots of an installed master", () => {
  let base: string;
  let double: ClusterDouble;
  let old: string;
  const fula = (...args: string[]): Promise<VerbRun> => runVerb([...args, "--base-dir", base]);
  const take = async (...more: string[]): Promise<VerbRun & { name: string; removed: string[] }> => {
    const run = await fula("snapshot", "take", "--json", ...more);
    expect([0, 20], run.stderr).toContain(run.exitCode);
    return { ...run, ...(JSON.parse(run.stdout) as { name: string; removed: string[] }) };
  };
  const manifestOf = (name: string): { sequence: number; previous: { name: string } | null } =>
    JSON.parse(readFileSync(join(base, "snapshots", `${name}.manifest.json`), "utf8")) as never;
  /** In the order of the chain. */
  const snapshots = (): readonly string[] => {
    const names = readdirSync(join(base, "snapshots")).map((file) => file.replace(/\..*$/, ""));
    return [...new Set(names)].sort((a, b) => manifestOf(a).sequence - manifestOf(b).sequence);
  };
  const alerts = (): string => readFileSync(join(base, "replication-alerts.log"), "utf8");

  beforeAll(async () => {
    old = mkdtempSync(join(tmpdir(), "fula-010-"));
    execFileSync("tar", ["-xzf", await release010(), "-C", old]);
  });
  afterAll(() => rmSync(old, { recursive: true }));
  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), "fula-chain-"));
    double = await startClusterDouble({
      pins: Array.from({ length: 40 }, (_, index) => ({
        cid: cidOf(`chain ${index}`),
        name: `a rather long name of a file, number ${index}`,
      })),
    });
    const pem = generateSigningKeyPem();
    writeFileSync(join(base, "snapshot-ed25519.pem"), pem, { mode: 0o600 });
    writeFileSync(join(base, "snapshot-ed25519.pub.pem"), parseSigningKey(pem, "").publicPem);
    const { port } = new URL(double.url);
    writeFileSync(
      join(base, ".env"),
      `CLUSTERNAME=lab\nKEEP=3\nIPFS_CLUSTER_API_ADDR=/ip4/127.0.0.1/tcp/${port}\nCLUSTER_SECRET=${"ab".repeat(32)}\n`,
      { mode: 0o600 },
    );
  });
  afterEach(async () => {
    await double.stop();
    rmSync(base, { recursive: true });
  });

  /** Takes a snapshot with the packed 0.1.0. Gives its exit code. */
  const takeWith010 = async (): Promise<number> => {
    const child = spawn(
      process.execPath,
      [join(old, "package/bin/fula-node.js"), "snapshot", "take", "--base-dir", base],
      { stdio: "ignore", env: { PATH: process.env["PATH"] ?? "" } },
    );
    const [exitCode] = (await once(child, "close")) as [number];
    return exitCode;
  };

  test("that 0.1.0 began goes on, and its first run here removes no more than 0.1.0 would have", async () => {
    for (let turn = 0; turn < 4; turn++) expect(await takeWith010()).toBe(0);
    const before = snapshots();
    expect(before).toHaveLength(3);
    const first = await take();
    expect(first.exitCode).toBe(0);
    expect(first.removed).toEqual(before.slice(0, 1));
    expect(manifestOf(first.name)).toMatchObject({ sequence: 5, previous: { name: before[2] } });
    expect(existsSync(join(base, "state/snapshot-chain.json"))).toBe(true);
    expect((await fula("snapshot", "list")).exitCode).toBe(0);
    expect(await takeWith010(), "0.1.0 again").toBe(0);
    expect(await take()).toMatchObject({ exitCode: 0 });
  });

  test("in which 0.1.0 found a drop still has the last full snapshot, and the alarm goes on", async () => {
    expect(await takeWith010()).toBe(0);
    const [full = ""] = snapshots();
    for (const cid of [...double.pins.keys()].slice(20)) double.pins.delete(cid);
    expect(await takeWith010()).toBe(20);
    for (let turn = 0; turn < 5; turn++) expect((await take()).exitCode).toBe(20);
    expect(snapshots()).toContain(full);
    expect(alerts()).toContain(`before=40 removed=20 reference=${full}`);
    const text = await fula("snapshot", "take");
    expect(text.stdout).toContain(`20 of the 40 pins of ${full} are gone`);
    expect(text.stdout).toContain("fula-node snapshot take --accept");
    expect((await take("--accept")).exitCode).toBe(0);
    expect((await take()).exitCode).toBe(0);
  });

  test("whose directory was emptied alarms once: exit 20, a line, the heartbeat", async () => {
    await take();
    await take();
    rmSync(join(base, "snapshots"), { recursive: true });
    expect(await fula("snapshot", "list")).toMatchObject({
      exitCode: 27,
      stderr: expect.stringMatching(
        /snapshots of this master are gone: [^]*number 2[^]*Look for the missing/,
      ),
    });
    const text = await fula("snapshot", "take");
    expect(text).toMatchObject({
      exitCode: 20,
      stdout: expect.stringContaining("the chain of snapshots was restarted"),
    });
    expect(alerts()).toContain("snapshot-chain-restarted");
    expect(readFileSync(join(base, "heartbeats/snapshot.json"), "utf8")).toContain("was restarted");
    expect((await take()).exitCode).toBe(0);
  });

  test.each([
    { which: 1, says: /number 2/, row: "1 missing before it" },
    { which: 2, says: /number 3 is\s+missing[^]*look for the missing/, row: "linked" },
  ])("of which one was removed is listed with what is missing, and its exit says so: $says", async (gone) => {
    const taken = [await take(), await take(), await take()];
    for (const file of readdirSync(join(base, "snapshots")))
      if (file.startsWith(`${taken[gone.which]?.name}.`)) rmSync(join(base, "snapshots", file));
    expect(snapshots()).toHaveLength(2);
    expect(await fula("snapshot", "list")).toMatchObject({
      exitCode: 20,
      stdout: expect.stringContaining(gone.row),
      stderr: expect.stringMatching(new RegExp(`Snapshots are missing: [^]*${gone.says.source}`)),
    });
  });

  test("whose record is damaged is not silent, also if the newest one is gone", async () => {
    await take();
    const { name } = await take();
    writeFileSync(join(base, "state/snapshot-chain.json"), "{}");
    for (const file of readdirSync(join(base, "snapshots")))
      if (file.startsWith(`${name}.`)) rmSync(join(base, "snapshots", file));
    expect(await fula("snapshot", "list")).toMatchObject({
      exitCode: 20,
      stderr: expect.stringMatching(/the record of\s+the last\s+snapshot is damaged/),
    });
  });

  test("that is gone is told also where one of upstream's is left", async () => {
    const { name } = await take();
    const upstream = join(base, "snapshots/pinset-20260101-000000.json");
    const body = JSON.stringify({ cid: cidOf("one"), name: "one" });
    for (const file of readdirSync(join(base, "snapshots")))
      if (file.startsWith(name)) rmSync(join(base, "snapshots", file));
    const key = parseSigningKey(readFileSync(join(base, "snapshot-ed25519.pem"), "utf8"), "");
    writeFileSync(upstream, body);
    writeFileSync(`${upstream}.sig`, key.sign(Buffer.from(body)));
    const list = await fula("snapshot", "list");
    expect(list.stdout).toContain("pinset-20260101-000000");
    expect(list).toMatchObject({ exitCode: 27, stderr: expect.stringContaining("number 1") });
  });

  test("a second take while one runs is refused, and changes nothing", async () => {
    await take();
    double.faults.allocations = { kind: "stall", afterLines: 10 };
    const running = fula("snapshot", "take");
    const partial = (): boolean => readdirSync(join(base, "snapshots")).some((file) => file.startsWith("."));
    await expect.poll(partial, { timeout: 10_000 }).toBe(true);
    delete double.faults.allocations;
    const files = readdirSync(join(base, "snapshots"));
    const second = await fula("snapshot", "take");
    expect(second).toMatchObject({ exitCode: 25, stderr: expect.stringContaining("snapshot take") });
    expect(readdirSync(join(base, "snapshots"))).toEqual(files);
    await double.stop();
    expect((await running).exitCode).toBe(29);
    expect(readdirSync(join(base, "snapshots")), "nothing is left of it").toHaveLength(3);
  });

  test("a body that unpacks to 300 MB, swapped in, is refused in no time by every verb", async () => {
    const { name } = await take();
    const bomb = gzipSync(Buffer.alloc(300 * 1024 * 1024), { level: 9 });
    writeFileSync(join(base, "snapshots", `${name}.ndjson.gz`), bomb);
    const started = performance.now();
    for (const verb of [["verify", name], ["restore", name], ["diff", name, "live"], ["list"]])
      expect((await fula("snapshot", ...verb)).exitCode, verb.join(" ")).toBe(28);
    expect(performance.now() - started).toBeLessThan(10_000);
    const posts = double.requests.filter((request) => request.startsWith("POST"));
    expect(posts).toEqual([]);
  });

  test("a manifest that was overwritten with {} is named by list and by the next take", async () => {
    const { name } = await take();
    await take();
    writeFileSync(join(base, "snapshots", `${name}.manifest.json`), "{}");
    expect(await fula("snapshot", "list")).toMatchObject({
      exitCode: 28,
      stdout: expect.stringMatching(new RegExp(`${name} +refused`)),
    });
    const next = await fula("snapshot", "take");
    expect(next).toMatchObject({ exitCode: 20, stdout: expect.stringContaining(`${name} is not valid`) });
    expect(alerts()).toContain(`snapshot-damaged snapshot="${name}"`);
  });

  test("across a new key that the old one named: this master knows both, elsewhere both are given", async () => {
    const first = await take();
    const keyFile = join(base, "snapshot-ed25519.pem");
    const current = parseSigningKey(readFileSync(keyFile, "utf8"), keyFile);
    copyFileSync(join(base, "snapshot-ed25519.pub.pem"), join(base, "old.pub.pem"));
    const pem = generateSigningKeyPem();
    const next = parseSigningKey(pem, "");
    const record = join(base, "state/snapshot-chain.json");
    const memory = parseMemory(readFileSync(record, "utf8"));
    if (memory === null || memory === "damaged") throw new Error("no record");
    const endorsement = Buffer.from(current.sign(Buffer.from(endorsementOf(next.publicPem)))).toString("hex");
    const retired = { keyId: current.id, publicPem: current.publicPem, successorId: next.id, endorsement };
    writeFileSync(record, serialiseMemory(retireKey(memory, retired)));
    writeFileSync(keyFile, pem, { mode: 0o600 });
    writeFileSync(join(base, "snapshot-ed25519.pub.pem"), next.publicPem);

    const second = await take();
    expect(second.exitCode).toBe(0);
    expect((await fula("snapshot", "verify", second.name)).stdout).toMatch(/which replaced [0-9a-f]{16}/);
    expect((await fula("snapshot", "verify", first.name)).exitCode).toBe(0);
    expect((await fula("snapshot", "list")).stdout).toMatch(/verified .* first\n.*verified .* linked/);

    const away = join(base, "away");
    mkdirSync(away);
    for (const file of readdirSync(join(base, "snapshots")))
      copyFileSync(join(base, "snapshots", file), join(away, file));
    const keys = ["--key", join(base, "snapshot-ed25519.pub.pem"), "--key", join(base, "old.pub.pem")];
    expect((await fula("snapshot", "list", "--dir", away, ...keys)).exitCode).toBe(0);
    expect((await fula("snapshot", "list", "--dir", away, ...keys.slice(0, 2))).exitCode).toBe(28);
  });

  test("its lines fit 80 columns", async () => {
    const runs: VerbRun[] = [];
    const run = async (...args: string[]): Promise<void> => void runs.push(await fula("snapshot", ...args));
    const { name } = await take();
    await run("take");
    await run("verify", name);
    for (const cid of [...double.pins.keys()].slice(10)) double.pins.delete(cid);
    await run("take");
    await run("diff", name, "live");
    await run("restore", name, "--dry-run");
    await run("verify", snapshots().at(-1) ?? "");
    await run("restore", snapshots().at(-1) ?? "");
    await run("list");
    const lines = runs.flatMap(({ stdout, stderr }) => `${stdout}${stderr}`.split("\n"));
    expect(lines.length).toBeGreaterThan(40);
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });
});
