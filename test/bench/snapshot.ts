import { apiPin } from "../support/cluster-double.ts";
import { cidOf } from "../support/cids.ts";
import { findPrograms, startRealCluster } from "../support/cluster-real.ts";
import type { Bench, Measurement } from "./report.ts";
import { fulaNode, makeBase, measure, type Measured, startServer } from "./snapshot-measure.ts";

/** Lines per second of the generated /allocations, as a real ipfs-cluster 1.1.6 sends on a machine like this. */
const PACE = 100_000;
/** So many that the start of node (0.2 s) has little weight. */
const REAL_PINS = 300_000;
const MEMORY_MIB = 200;

/** take, verify and sweep, against curl of the same lists, and against sha256sum and gzip of the same body. */
export const benches: readonly Bench[] = [
  {
    name: "snapshot",
    run: async () => {
      const server = await startServer(1_000_000, PACE);
      try {
        return await measureVerbs(server.url, "1000000 pins", 5);
      } finally {
        server.stop();
      }
    },
  },
  { name: "snapshot-5m", run: measureMemory },
  {
    name: "snapshot-real",
    run: async () => {
      const programs = await findPrograms();
      if (typeof programs === "string") throw new Error(programs);
      const pinset = Array.from({ length: REAL_PINS }, (_, index) => {
        const metadata = { owner: `user-${index % 1000}` };
        return `${JSON.stringify(apiPin({ cid: cidOf(`bench ${index}`), name: `file-${index}`, metadata }))}\n`;
      }).join("");
      const real = await startRealCluster(programs, { peers: 1, pinset });
      try {
        return await measureVerbs(real.peers[0]?.apiUrl ?? "", `${REAL_PINS} pins, real ipfs-cluster`, 5);
      } finally {
        await real.stop();
      }
    },
  },
];

/** Peak memory when pins come as fast as possible. The restore compares both sides and has nothing to send. */
async function measureMemory(): Promise<readonly Measurement[]> {
  const server = await startServer(5_000_000, 0);
  const base = makeBase(server.url);
  const at = ["--base-dir", base.dir, "--json"];
  try {
    const taken = await fulaNode(["snapshot", "take", ...at]);
    const { name } = JSON.parse(taken.stdout) as { name: string };
    return [
      peak("take, 5000000 pins", [taken]),
      peak("verify, 5000000 pins", [await fulaNode(["snapshot", "verify", name, ...at])]),
      peak("restore --dry-run, 5000000 pins", [
        await fulaNode(["snapshot", "restore", name, "--dry-run", ...at]),
      ]),
      peak("sweep, 5000000 pins", [await fulaNode(["sweep", ...at])]),
    ];
  } finally {
    base.remove();
    server.stop();
  }
}

async function measureVerbs(url: string, title: string, rounds: number): Promise<readonly Measurement[]> {
  const base = makeBase(url);
  const at = ["--base-dir", base.dir, "--json"];
  const curl = async (path: string): Promise<number> =>
    (await measure("curl", ["-sf", "-o", "/dev/null", `${url}${path}`])).seconds;
  const turns = { take: [] as Turn[], verify: [] as Turn[], sweep: [] as Turn[] };
  try {
    for (let round = 0; round < rounds; round++) {
      const listed = await curl("/allocations");
      const taken = await fulaNode(["snapshot", "take", ...at]);
      turns.take.push({ ours: taken, anchor: listed });
      const body = (JSON.parse(taken.stdout) as { file: string }).file;
      const hashed = await measure("sha256sum", [body]);
      const unpacked = await measure("sh", ["-c", `gzip -dc ${body} >/dev/null`]);
      const verified = await fulaNode(["snapshot", "verify", body, ...at]);
      turns.verify.push({ ours: verified, anchor: hashed.seconds + unpacked.seconds });
      const both = (await curl("/allocations")) + (await curl("/pins"));
      turns.sweep.push({ ours: await fulaNode(["sweep", ...at]), anchor: both });
    }
  } finally {
    base.remove();
  }
  return [
    ...describe(`take, ${title}`, "curl of /allocations", turns.take, 1.25),
    ...describe(`verify, ${title}`, "sha256sum + gzip -dc", turns.verify, 1.3),
    ...describe(`sweep, ${title}`, "curl of /allocations and /pins", turns.sweep, 1.3),
  ];
}

interface Turn {
  readonly ours: Measured;
  /** Seconds. */
  readonly anchor: number;
}

function describe(
  name: string,
  against: string,
  turns: readonly Turn[],
  bound: number,
): readonly Measurement[] {
  return [
    {
      name,
      what: `fula-node ${name}, wall time with the start of node`,
      against,
      unit: "ms",
      ours: turns.map(({ ours }) => ours.seconds * 1000),
      anchor: turns.map(({ anchor }) => anchor * 1000),
      target: { of: "ratio", bound: "at most", value: bound },
    },
    peak(
      `peak of ${name}`,
      turns.map(({ ours }) => ours),
    ),
  ];
}

function peak(name: string, runs: readonly Measured[]): Measurement {
  return {
    name,
    what: `fula-node ${name}, VmHWM`,
    against: null,
    unit: "MiB",
    ours: runs.map(({ peakMiB }) => peakMiB),
    anchor: [],
    target: { of: "ours", bound: "at most", value: MEMORY_MIB },
  };
}
