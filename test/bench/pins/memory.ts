import { readFile } from "node:fs/promises";
import { setTimeout as wait } from "node:timers/promises";
import type { Bench, Measurement } from "../report.ts";
import { runLoad, type Sent } from "./load.ts";
import { createAccount, makeBlocks, type Sides, startSides } from "./sides.ts";

/** The memory of `serve pinning-api` under load. FULA_BENCH_MINUTES is the length, 10 by default and at least 2. */
export const benches: readonly Bench[] = [{ name: "pins-memory", onlyByName: true, run: measureMemory }];

const MIB = 1_048_576;
const SAMPLE_MS = 2_000;
const CLIENTS = 16;
const CONTENTS = 200;

async function measureMemory(): Promise<readonly Measurement[]> {
  const minutes = Math.max(2, Number(process.env["FULA_BENCH_MINUTES"] ?? 10));
  const sides = await startSides();
  try {
    const over = new AbortController();
    const loaded = keepLoaded(sides, over.signal);
    const samples: { readonly minute: number; readonly mib: number }[] = [];
    const startedAt = performance.now();
    for (;;) {
      const minute = (performance.now() - startedAt) / 60_000;
      if (minute >= minutes) break;
      samples.push({ minute, mib: (await residentBytes(sides.ours.pid)) / MIB });
      // Ends early if the load fails.
      await Promise.race([wait(SAMPLE_MS), loaded]);
    }
    over.abort();
    const requests = await loaded;
    const between = (from: number, to: number): readonly number[] =>
      samples.filter(({ minute }) => minute >= from && minute < to).map(({ mib }) => mib);
    const late = samples.filter(({ minute }) => minute >= 1);
    const what = `${requests} requests (POST, GET, DELETE) by ${CLIENTS} clients in ${minutes} minutes`;
    const common = { what, against: null, anchor: [] };
    return [
      {
        ...common,
        name: "memory after 1 minute",
        unit: "MiB",
        ours: between(1, 1.5),
        target: null,
      },
      {
        ...common,
        name: "memory at the end",
        unit: "MiB",
        ours: between(minutes - 0.5, minutes),
        target: null,
      },
      {
        ...common,
        name: "growth after 1 minute",
        unit: "MiB/min",
        ours: [slope(late.map(({ minute, mib }) => [minute, mib]))],
        target: { of: "ours", bound: "at most", value: 1 },
      },
    ];
  } finally {
    await sides.stop();
  }
}

/** The same contents again and again: pinned, listed, asked for and deleted. Returns the number of requests. */
async function keepLoaded(sides: Sides, stop: AbortSignal): Promise<number> {
  const { headers } = await createAccount(sides.database, "somebody");
  const json = { ...headers, "content-type": "application/json" };
  const cids = await makeBlocks(sides.peer, CONTENTS);
  let requests = 0;
  while (!stop.aborted) {
    const ids: string[] = [];
    const run = async (status: number, all: readonly Sent[]): Promise<void> => {
      const load = { url: sides.ours.url, clients: CLIENTS, requests: all.length, status };
      await runLoad({
        ...load,
        request: (nth) => all[nth] ?? { method: "GET", path: "/pins", headers },
        onAnswer: (text) => {
          const id = /^\{"requestid":"([^"]+)"/.exec(text)?.[1];
          if (id !== undefined) ids.push(id);
        },
      });
      requests += all.length;
    };
    await run(
      202,
      cids.map((cid) => ({ method: "POST", path: "/pins", headers: json, body: JSON.stringify({ cid }) })),
    );
    const made = [...new Set(ids)];
    await run(
      200,
      made.flatMap((id) => [
        { method: "GET", path: "/pins?limit=10&status=queued,pinning,pinned", headers } as const,
        { method: "GET", path: `/pins/${id}`, headers } as const,
      ]),
    );
    await run(
      202,
      made.map((id) => ({ method: "DELETE", path: `/pins/${id}`, headers })),
    );
  }
  return requests;
}

/** VmRSS of a process (proc(5)). */
async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) * 1_024;
}

/** The slope of the line with the least squares. */
function slope(points: readonly (readonly [number, number])[]): number {
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, one) => sum + one, 0) / values.length;
  const x = mean(points.map(([at]) => at));
  const y = mean(points.map(([, value]) => value));
  const covariance = points.reduce((sum, [at, value]) => sum + (at - x) * (value - y), 0);
  return covariance / points.reduce((sum, [at]) => sum + (at - x) ** 2, 0);
}
