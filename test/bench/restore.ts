import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createHost } from "../../src/world.ts";
import { openAlertLog } from "../../src/pinset/alerts.ts";
import { openCluster } from "../../src/cluster/client.ts";
import { parseSigningKey } from "../../src/machine/signing.ts";
import { openSnapshotStore } from "../../src/pinset/snapshot/store.ts";
import { takeSnapshot } from "../../src/pinset/snapshot/take.ts";
import { openWorkspace } from "../../src/pinset/workspace.ts";
import { machineAddress } from "../support/bed.ts";
import { cidOf } from "../support/cids.ts";
import { startClusterDouble } from "../support/cluster-double.ts";
import { findPrograms, startRealCluster } from "../support/cluster-real.ts";
import type { Bench, Measurement } from "./report.ts";
import { fulaNode, makeBase, measure, startServer } from "./snapshot-measure.ts";

const DOUBLE_PINS = 200_000;
const REAL_PINS = 20_000;
const ROUNDS = 3;
const CTL_PINS = 30;
const GENERATOR = new URL("restore-generator.ts", import.meta.url).pathname;

/** Restores against a simple load generator, with the generated cluster and with a real one. */
export const benches: readonly Bench[] = [
  {
    name: "restore",
    run: async () => {
      const server = await startServer(0, 0);
      try {
        const pairs = await takeTurns(server.url, DOUBLE_PINS, async () => {
          await fetch(`${server.url}/empty`, { method: "POST" });
        });
        return describe(`${DOUBLE_PINS} pins, generated cluster`, pairs);
      } finally {
        server.stop();
      }
    },
  },
  {
    name: "restore-real",
    run: async () => {
      const programs = await findPrograms();
      if (typeof programs === "string") throw new Error(programs);
      // The anchor's container is in the test bed's engine, which can't reach this machine's loopback interface.
      const real = await startRealCluster(programs, { peers: 1, apiHost: "0.0.0.0" });
      try {
        const url = real.peers[0]?.apiUrl ?? "";
        const pairs = await takeTurns(url, REAL_PINS, () => Promise.resolve());
        return [...describe(`${REAL_PINS} pins, real ipfs-cluster`, pairs), pinOneByOne(url, pairs.rates)];
      } finally {
        await real.stop();
      }
    },
  },
];

interface Turns {
  readonly rates: readonly number[];
  readonly anchor: readonly number[];
  readonly peaks: readonly number[];
}

async function takeTurns(url: string, pins: number, empty: () => Promise<void>): Promise<Turns> {
  const turns = { rates: [] as number[], anchor: [] as number[], peaks: [] as number[] };
  for (let round = 0; round <= ROUNDS; round++) {
    const prefix = `turn ${round} ${Date.now()}`;
    await empty();
    const generated = await measure(process.execPath, [
      "--import",
      "tsx",
      GENERATOR,
      url,
      `${prefix} a`,
      String(pins),
      "32",
    ]);
    await empty();
    const base = makeBase(url);
    try {
      const name = await makeSnapshot(base.dir, `${prefix} b`, pins);
      const restored = await fulaNode(["snapshot", "restore", name, "--base-dir", base.dir, "--json"]);
      const { run } = JSON.parse(restored.stdout) as { run: { ratePerSecond: number; pinned: number } };
      if (run.pinned !== pins) throw new Error(`restored ${run.pinned} of ${pins}`);
      if (round === 0) continue;
      turns.anchor.push(Number(generated.stdout));
      turns.rates.push(run.ratePerSecond);
      turns.peaks.push(restored.peakMiB);
    } finally {
      base.remove();
    }
  }
  return turns;
}

/** Creates a signed snapshot of invented pins in a base directory, and returns its name. */
async function makeSnapshot(dir: string, prefix: string, pins: number): Promise<string> {
  const double = await startClusterDouble({
    pins: Array.from({ length: pins }, (_, index) => ({
      cid: cidOf(`${prefix} ${index}`),
      name: `file-${index}`,
      metadata: { owner: `user-${index % 1000}` },
    })),
  });
  const cluster = openCluster({ endpoint: double.url });
  const { files, clock } = createHost({ env: {}, migrationsDir: dir, toolVersion: "0" });
  const keyPath = `${dir}/snapshot-ed25519.pem`;
  try {
    const { name } = await takeSnapshot({
      cluster,
      clock,
      store: openSnapshotStore(`${dir}/snapshots`),
      key: parseSigningKey(readFileSync(keyPath, "utf8"), keyPath),
      channels: {
        log: openAlertLog(`${dir}/alerts.log`),
        command: null,
        source: { host: "box", pool: "bench" },
      },
      heartbeat: { files, clock, path: `${dir}/heartbeat.json` },
      workspace: openWorkspace(dir),
      memory: { files, path: `${dir}/state/snapshot-chain.json` },
      accept: false,
      clusterName: "bench",
      clusterId: null,
      keep: 28,
      dropShare: 1,
      toolVersion: "0",
      report: () => undefined,
    });
    return name;
  } finally {
    cluster.close();
    await double.stop();
  }
}

function describe(what: string, { rates, anchor, peaks }: Turns): readonly Measurement[] {
  return [
    {
      name: `restore, ${what}`,
      what: `snapshot restore of ${what}, rate of the pins sent`,
      against: "POSTs from a plain generator, 32 at once",
      unit: "pins/s",
      ours: rates,
      anchor,
      target: { of: "ratio", bound: "at least", value: 0.8 },
    },
    {
      name: "  peak memory",
      what: `snapshot restore of ${what}, VmHWM`,
      against: null,
      unit: "MiB",
      ours: peaks,
      anchor: [],
      target: null,
    },
  ];
}

/** The method of the bash scripts: one `docker exec ... ipfs-cluster-ctl pin add` per CID. */
function pinOneByOne(url: string, rates: readonly number[]): Measurement {
  const { port } = new URL(url);
  const image = "ipfs/ipfs-cluster:v1.1.6";
  const container = execFileSync("docker", [
    "run",
    "-d",
    "--network=host",
    "--entrypoint=sleep",
    image,
    "600",
  ])
    .toString()
    .trim();
  const anchor: number[] = [];
  try {
    for (const _ of rates) {
      const started = performance.now();
      for (let index = 0; index < CTL_PINS; index++) {
        const cid = cidOf(`ctl ${anchor.length} ${index}`);
        const host = `/ip4/${machineAddress()}/tcp/${port}`;
        execFileSync("docker", [
          "exec",
          container,
          "ipfs-cluster-ctl",
          "--host",
          host,
          "pin",
          "add",
          "--no-status",
          cid,
        ]);
      }
      anchor.push(CTL_PINS / ((performance.now() - started) / 1000));
    }
  } finally {
    execFileSync("docker", ["rm", "-f", container]);
  }
  return {
    name: "restore, beside ctl",
    what: "snapshot restore, rate of the pins sent",
    against: "docker exec ipfs-cluster-ctl pin add",
    unit: "pins/s",
    ours: rates,
    anchor,
    target: null,
  };
}
