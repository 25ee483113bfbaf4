import { expect } from "vitest";
import { doctor } from "../../src/commands/doctor.ts";
import type { Finding } from "../../src/doctor/finding.ts";
import type { VerbExit } from "../../src/errors.ts";
import type { Result } from "../../src/ui/reporter.ts";
import type { World } from "../../src/world.ts";
import { table, wrap } from "../../src/ui/text.ts";
import { join, LAYOUT } from "./master-boxes.ts";
import type { OperationDeps } from "./operation-deps.ts";
import { FakeStorage, MASTER_ID, worldOf } from "./storage-fake.ts";
import { oneSnapshot } from "./taken-snapshot.ts";

/** A joined master on which nothing is wrong, and what `doctor` says on copies of it. */
export interface DoctorBench {
  /** A copy of it, with one thing changed. */
  master(change?: (host: FakeStorage) => void): FakeStorage;
  doctorOn(
    host: FakeStorage,
    flags?: Partial<Parameters<typeof doctor>[0]>,
    world?: Partial<World>,
  ): Promise<Diagnosed>;
  clear(): void;
}

/** What it said. */
export interface Diagnosed {
  readonly exit: VerbExit;
  readonly lines: readonly string[];
  readonly data: Result["data"];
  readonly findings: readonly Finding[];
  /** What is not ok, by id: `error: what -> remedy`. */
  readonly wrong: ReadonlyMap<string, string>;
}

const PINS = { total: 2, complete: 2, syncing: 0, below: 0, lackingNodes: 0 };
const NODE = {
  id: "12D3",
  name: "node",
  state: "up",
  sync: "synced",
  pinsDone: 1,
  pinsDue: 1,
  lastSeen: null,
};
const FACTS = { pins: PINS, nodes: [NODE], nodesExpected: 1, strangers: 0, namesFault: null };

/** Joins a master, with a snapshot and a sweep that went well. */
export async function openDoctorBench(): Promise<DoctorBench> {
  const whole = new FakeStorage();
  await join(whole);
  const snapshots = await oneSnapshot(whole.clock.now());
  whole.files.put(LAYOUT.snapshotMemory, (await snapshots.files.readText(snapshots.memory.path)) ?? "");
  beat(whole, "snapshot", LAYOUT.snapshotHeartbeat);
  beat(whole, "sweep", LAYOUT.sweepHeartbeat);
  whole.files.put("/run/systemd/system/x", "");
  whole.registered = [{ owner: MASTER_ID, name: "other", announced_at: null }];
  whole.revive();
  return {
    master: (change = () => {}) => {
      const host = whole.copy();
      change(host);
      return host;
    },
    doctorOn: (host, flags = {}, parts = {}) => doctorOn(host, flags, { snapshots, parts }),
    clear: () => snapshots.clear(),
  };
}

function beat(host: FakeStorage, operation: string, path: string): void {
  const at = new Date(host.clock.now().getTime() - 600_000).toISOString();
  const good = { operation, at, outcome: "ok", summary: "as it should", duration_ms: 1, last_good_at: at };
  host.files.put(path, JSON.stringify({ ...good, facts: FACTS }));
}

async function doctorOn(
  host: FakeStorage,
  flags: Partial<Parameters<typeof doctor>[0]>,
  { snapshots, parts }: { readonly snapshots: OperationDeps; readonly parts: Partial<World> },
): Promise<Diagnosed> {
  const results: Result[] = [];
  const world = worldOf(host, parts);
  const report = (result: Result): void => {
    results.push(result);
    parts.reporter?.result(result);
  };
  const reporter = { ...world.reporter, table, wrap, result: report };
  const exit = await doctor(
    { verbose: false, fix: false, yes: false, ...flags },
    {
      ...world,
      reporter,
      stop: new AbortController().signal,
      openSnapshots: async () => snapshots.store,
      readVerifyingKey: async () => snapshots.key,
    },
  );
  const { data, lines } = results.at(-1) as Result;
  expect(results).toHaveLength(1);
  const findings = data["findings"] as readonly Finding[];
  const wrong = findings
    .filter(({ severity }) => severity !== "ok")
    .map(
      ({ id, severity, what, remedy }) =>
        [id, `${severity}: ${what}${remedy === null ? "" : ` -> ${remedy}`}`] as const,
    );
  return { exit, lines, data, findings, wrong: new Map(wrong) };
}
