import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { generateSigningKeyPem, parseSigningKey, type SigningKey } from "../../../src/machine/signing.ts";
import { parseHeartbeat } from "../../../src/pinset/heartbeat.ts";
import { trustedKeys } from "../../../src/pinset/snapshot/links.ts";
import { parseManifest, serialiseManifest } from "../../../src/pinset/snapshot/manifest.ts";
import {
  type ChainMemory,
  endorsementOf,
  parseMemory,
  retireKey,
  serialiseMemory,
} from "../../../src/pinset/snapshot/memory.ts";
import type { TakeOptions, TakeResult } from "../../../src/pinset/snapshot/take.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { takeFrom, verifyPath } from "../../support/taken-snapshot.ts";

let double: ClusterDouble;
let deps: OperationDeps;

beforeEach(async () => {
  deps = operationDeps();
  double = await startClusterDouble({
    pins: Array.from({ length: 100 }, (_, index) => ({ cid: cidOf(`chain ${index}`) })),
  });
});
afterEach(async () => {
  await double.stop();
  deps.clear();
});

const take = (over: Partial<TakeOptions> = {}): Promise<TakeResult> => takeFrom(double.url, deps, over);
const names = async (): Promise<readonly string[]> => (await deps.store.list()).map(({ name }) => name);
const manifestOf = ({ name }: TakeResult): ReturnType<typeof parseManifest> => {
  const file = join(deps.store.directory, `${name}.manifest.json`);
  return parseManifest(readFileSync(file, "utf8"), file);
};
const alerts = async (): Promise<string> => (await deps.alertLines()).join("\n");
const heartbeat = async () => parseHeartbeat(await deps.files.readText(deps.heartbeat("take").path));
const memory = async (): Promise<ChainMemory> =>
  parseMemory(await deps.files.readText(deps.memory.path)) as ChainMemory;
/** Unpins so many, the oldest first. */
const unpin = (count: number): void => {
  for (const cid of [...double.pins.keys()].slice(0, count)) double.pins.delete(cid);
};
const pin = (prefix: string, count: number): void => {
  for (let index = 0; index < count; index++) {
    const cid = cidOf(`${prefix} ${index}`);
    double.pins.set(cid, { cid });
  }
};

describe("erosion", () => {
  test("of 9 % before each snapshot alarms at the second one, and the full pinset is never removed", async () => {
    const full = await take({ keep: 2 });
    const verdicts: string[] = [];
    for (let turn = 0; turn < 8; turn++) {
      unpin(Math.floor(double.pins.size * 0.09));
      verdicts.push((await take({ keep: 2 })).verdict);
    }
    expect(verdicts).toEqual(["steady", ...Array.from({ length: 7 }, () => "dropped")]);
    expect(await names()).toContain(full.name);
    expect((await names()).length).toBe(4);
    expect(await alerts()).toContain(`before=100 removed=17 reference=${full.name}`);
    expect((await heartbeat())?.summary).toContain(`of the 100 pins of ${full.name} are gone`);
  });

  test("its alarm goes to ALERT_COMMAND, and a command that fails is in the result", async () => {
    const sent: string[] = [];
    const channels = {
      ...deps.channels,
      command: {
        path: "/usr/local/sbin/on-alarm",
        run: async (input: string) => {
          sent.push(input);
          return "it ended with exit code 3";
        },
      },
    };
    await take();
    expect(sent).toEqual([]);
    unpin(20);
    const taken = await take({ channels });
    expect(sent.map((input) => JSON.parse(input))).toMatchObject([
      { kind: "pinset-dropped", counts: { alarms: 1 }, worst: [{ kind: "pinset-dropped" }] },
    ]);
    expect(taken.alarm).toMatchObject({ command: "failed", why: "it ended with exit code 3" });
    expect(taken.exit).toBe("pending");
  });

  test("all replaced by other pins, even by more: an alarm until the pins are back", async () => {
    const full = await take({ keep: 1 });
    const before = [...double.pins];
    double.pins.clear();
    pin("other", 150);
    const replaced = await take({ keep: 1 });
    expect(replaced).toMatchObject({
      exit: "pending",
      verdict: "dropped",
      compared: { reference: full.name, from: 100, removed: 100 },
    });
    for (let turn = 0; turn < 3; turn++)
      expect(await take({ keep: 1 }), "compared with the same").toMatchObject({
        compared: { reference: full.name, removed: 100 },
      });
    for (const [cid, one] of before) double.pins.set(cid, one);
    expect(await take({ keep: 1 })).toMatchObject({ exit: "ok", verdict: "steady" });
    expect(await names()).toContain(full.name);
  });

  test("that is right: --accept ends the alarm, and later snapshots are compared with this one", async () => {
    const full = await take({ keep: 1 });
    unpin(50);
    expect((await take({ keep: 1 })).verdict).toBe("dropped");
    const accepted = await take({ keep: 1, accept: true });
    expect(accepted).toMatchObject({ exit: "ok", verdict: "accepted" });
    expect(manifestOf(accepted)).toMatchObject({ accepted: true, drop: null });
    expect(await names()).toEqual([accepted.name]);
    expect(await take({ keep: 1 })).toMatchObject({ exit: "ok", compared: { reference: accepted.name } });
    unpin(10);
    expect(await take({ keep: 1 })).toMatchObject({ verdict: "dropped", compared: { removed: 10 } });
    expect(await names()).not.toContain(full.name);
  });

  test("is measured by CID: other options, another order and new pins are none", async () => {
    await take();
    const reversed = [...double.pins].toReversed();
    double.pins.clear();
    for (const [cid, one] of reversed) double.pins.set(cid, { ...one, name: "renamed" });
    pin("more", 20);
    expect(await take()).toMatchObject({ exit: "ok", compared: { from: 100, removed: 0 } });
  });

  test("is measured by the next largest if the body of the largest was swapped, which is named", async () => {
    const full = await take();
    unpin(5);
    const second = await take();
    writeFileSync(full.file, gzipSync("{}\n".repeat(100)));
    unpin(1);
    const third = await take();
    expect(third).toMatchObject({
      exit: "pending",
      verdict: "damaged",
      compared: { reference: second.name, from: 95, removed: 1 },
    });
    expect(await alerts()).toContain(`snapshot-damaged snapshot="${full.name}"`);
    expect(await names()).toContain(full.name);
  });
});

describe("retention", () => {
  test("counts only intact snapshots, and removes nothing when the run fails", async () => {
    const first = await take({ keep: 2 });
    const second = await take({ keep: 2 });
    writeFileSync(second.file, "damaged");
    const third = await take({ keep: 2 });
    expect(third.removed).toEqual([]);
    expect(await names()).toEqual([first.name, second.name, third.name]);
    double.faults.allocations = { kind: "cut", afterLines: 60, how: "reset" };
    await expect(take({ keep: 1 })).rejects.toMatchObject({ exit: "unavailable" });
    expect(await names()).toEqual([first.name, second.name, third.name]);
    delete double.faults.allocations;
    const fourth = await take({ keep: 2 });
    expect(fourth.removed).toEqual([first.name]);
    expect(await names()).toEqual([second.name, third.name, fourth.name]);
  });
});

describe("the end of the chain is remembered", () => {
  test("so an emptied directory alarms, and the numbers go on", async () => {
    for (let turn = 0; turn < 3; turn++) await take();
    const kept = readdirSync(deps.store.directory);
    for (const file of kept) rmSync(join(deps.store.directory, file));
    const restarted = await take();
    expect(restarted).toMatchObject({ exit: "pending", verdict: "restarted", before: null });
    expect(manifestOf(restarted)).toMatchObject({
      sequence: 4,
      previous: { name: expect.stringContaining("pinset-") },
      restart: { expected: 3 },
    });
    expect(await alerts()).toContain(`snapshot-chain-restarted snapshot=${restarted.name} expected=3`);
    expect(await heartbeat()).toMatchObject({
      outcome: "pending",
      summary: expect.stringContaining("the chain of snapshots was restarted"),
    });
    expect((await verifyPath(restarted.file, deps.key)).order.state).toBe("gap");
    expect(await take()).toMatchObject({ exit: "ok", verdict: "steady" });
  });

  test("and without that record the last run tells that there were snapshots", async () => {
    expect(await take()).toMatchObject({ exit: "ok", verdict: "first" });
    for (const file of readdirSync(deps.store.directory)) rmSync(join(deps.store.directory, file));
    rmSync(deps.memory.path);
    const restarted = await take();
    expect(restarted).toMatchObject({ exit: "pending", verdict: "restarted" });
    expect(restarted.summary).toContain("the first of a new chain");
    expect(await alerts()).toContain(`snapshot-chain-restarted snapshot=${restarted.name} expected=unknown`);
  });

  test("so the snapshots that were taken away can be put back: no new one has the name of the last", async () => {
    const { name } = await take();
    for (const file of readdirSync(deps.store.directory)) rmSync(join(deps.store.directory, file));
    deps.clock.move(-1000);
    expect((await take()).name).toBe(`${name}-2`);
  });

  test("so the newest ones taken away alarm, and nothing is removed by that run", async () => {
    const taken = [await take(), await take(), await take()];
    for (const { name } of taken.slice(1))
      for (const end of [".ndjson.gz", ".manifest.json", ".manifest.sig"])
        rmSync(join(deps.store.directory, `${name}${end}`));
    const restarted = await take({ keep: 1 });
    expect(restarted).toMatchObject({ verdict: "restarted", removed: [] });
    expect(restarted.alarms.join()).toContain("number 3 is missing; the newest one is number 1");
    expect(await names()).toEqual([taken[0]?.name, restarted.name]);
  });

  test("so another snapshot with the same number alarms", async () => {
    await take();
    const away = join(deps.base, "away");
    mkdirSync(away);
    const remembered = await deps.files.readText(deps.memory.path);
    await take();
    const record = (await deps.files.readText(deps.memory.path)) ?? "";
    for (const file of readdirSync(deps.store.directory).slice(3))
      renameSync(join(deps.store.directory, file), join(away, file));
    writeFileSync(deps.memory.path, remembered ?? "");
    unpin(1);
    await take();
    writeFileSync(deps.memory.path, record);
    expect((await take()).alarms.join()).toContain("number 2 is another snapshot");
  });

  test("and a snapshot that was committed just before a crash is only the newest one", async () => {
    await take();
    const before = (await deps.files.readText(deps.memory.path)) ?? "";
    const second = await take();
    writeFileSync(deps.memory.path, before);
    const third = await take();
    expect(third).toMatchObject({ exit: "ok", verdict: "steady" });
    expect(manifestOf(third)).toMatchObject({ sequence: 3, previous: { name: second.name } });
  });

  test("in a file of its own: damaged, it alarms once and is written again", async () => {
    await take();
    writeFileSync(deps.memory.path, '{"version":1,"last":{}}');
    expect(await take()).toMatchObject({ verdict: "restarted", alarms: [expect.stringContaining("record")] });
    expect(await take()).toMatchObject({ verdict: "steady" });
    expect((await memory()).last).toMatchObject({ sequence: 3, keyId: deps.key.id });
  });

  test("and accepted by the operator, a restart is no alarm", async () => {
    await take();
    rmSync(deps.store.directory, { recursive: true });
    expect(await take({ accept: true })).toMatchObject({ exit: "ok", verdict: "accepted" });
  });
});

describe("a new key", () => {
  const newKey = (): SigningKey => parseSigningKey(generateSigningKeyPem(), "new");
  /** What `secret rotate` does: the old key names the new one. */
  const rotate = async (from: SigningKey, to: SigningKey, signer = from): Promise<void> => {
    const endorsement = Buffer.from(signer.sign(Buffer.from(endorsementOf(to.publicPem)))).toString("hex");
    const retired = { keyId: from.id, publicPem: from.publicPem, successorId: to.id, endorsement };
    await deps.files.writeAtomic(deps.memory.path, serialiseMemory(retireKey(await memory(), retired)), {
      mode: 0o644,
    });
  };

  test("that does not name the old one alarms", async () => {
    const first = await take();
    const result = await take({ key: newKey() });
    expect(result).toMatchObject({ exit: "pending", verdict: "restarted" });
    expect(result.alarms.join("\n")).toContain(`the key ${deps.key.id} was replaced by`);
    expect(await names()).toContain(first.name);
  });

  test("that the old one named continues the chain, and both keys verify across it", async () => {
    const [first, next] = [await take(), newKey()];
    await rotate(deps.key, next);
    const second = await take({ key: next });
    expect(second).toMatchObject({ exit: "ok", verdict: "steady", before: 100 });
    expect(manifestOf(second)).toMatchObject({ sequence: 2, key_rotation: { from_key_id: deps.key.id } });
    const keys = trustedKeys(next, await memory());
    expect(keys.map(({ id }) => id)).toEqual([next.id, deps.key.id]);
    expect((await verifyPath(second.file, ...keys)).order.state).toBe("linked");
    expect((await verifyPath(first.file, ...keys)).keyId).toBe(deps.key.id);
    expect((await verifyPath(second.file, next)).order.state).toBe("gap");
    await expect(verifyPath(first.file, next)).rejects.toMatchObject({ exit: "integrity" });
    const third = await take({ key: next, keep: 1 });
    expect(await names(), "the proof of the new key stays").toEqual([second.name, third.name]);
    expect(manifestOf(third).key_rotation).toBeUndefined();
    expect((await verifyPath(third.file, ...keys)).order.state).toBe("linked");
  });

  test("named by a key that only pretends to be the old one alarms, and verify refuses it", async () => {
    const [next, thief] = [newKey(), newKey()];
    await take();
    await rotate(deps.key, next, thief);
    expect(trustedKeys(next, await memory()).map(({ id }) => id)).toEqual([next.id]);
    expect(await take({ key: next })).toMatchObject({ verdict: "restarted" });
  });

  test("is only believed with the right names in the signed manifest", async () => {
    const [next, thief] = [newKey(), newKey()];
    await take();
    await rotate(deps.key, next);
    const { file, name } = await take({ key: next });
    const path = join(deps.store.directory, `${name}.manifest.json`);
    const manifest = parseManifest(readFileSync(path, "utf8"), path);
    const sign = (changed: typeof manifest): void => {
      const bytes = Buffer.from(serialiseManifest(changed));
      writeFileSync(path, bytes);
      writeFileSync(join(deps.store.directory, `${name}.manifest.sig`), next.sign(bytes));
    };
    sign({ ...manifest, key_id: deps.key.id });
    await expect(verifyPath(file, next, deps.key)).rejects.toMatchObject({
      what: expect.stringContaining(`names the key ${deps.key.id}, but ${next.id} signed it`),
    });
    const endorsement = Buffer.from(thief.sign(Buffer.from(endorsementOf(next.publicPem)))).toString("hex");
    sign({ ...manifest, key_rotation: { from_key_id: deps.key.id, endorsement } });
    await expect(verifyPath(file, next, deps.key)).rejects.toMatchObject({
      what: expect.stringContaining("which did not sign that"),
    });
  });

  test("ends the old one: what the old key signs later is refused", async () => {
    const next = newKey();
    await take();
    await rotate(deps.key, next);
    const rotated = await take({ key: next });
    const forged = await take();
    const keys = [next, deps.key];
    await expect(verifyPath(forged.file, ...keys)).rejects.toMatchObject({
      exit: "integrity",
      what: expect.stringContaining(`which ${rotated.name} had replaced before`),
    });
    expect((await verifyPath(rotated.file, ...keys)).order.state).toBe("linked");
  });
});
