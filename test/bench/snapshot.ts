import { fulaNode, makeBase, measure, median, spread, startServer } from "./snapshot-measure.ts";
import type { Measured } from "./snapshot-measure.ts";

/** One measured pair, ours and the anchor's, run by turns. */
interface Row {
  readonly what: string;
  readonly ours: readonly Measured[];
  readonly anchor: readonly number[];
  readonly bound: number;
}

const MEMORY_MIB = 200;

/**
 * `take`, `verify` and `sweep` against their anchors: curl of the same listings, and sha256sum with
 * gzip -dc of the same body. Gives false where a bound is passed. `pace`: see snapshot-server.ts.
 */
export async function benchSnapshots(pins: number, pace: number, runs: number): Promise<boolean> {
  const server = await startServer(pins, pace);
  const base = makeBase(server.url);
  const at = ["--base-dir", base.dir, "--json"];
  const curl = async (path: string): Promise<number> =>
    (await measure("curl", ["-sf", "-o", "/dev/null", `${server.url}${path}`])).seconds;
  try {
    const take: Measured[] = [];
    const takeAnchor: number[] = [];
    let body = "";
    for (let run = 0; run < runs; run++) {
      takeAnchor.push(await curl("/allocations"));
      const taken = await fulaNode(["snapshot", "take", ...at]);
      take.push(taken);
      body = (JSON.parse(taken.stdout) as { file: string }).file;
    }
    const verify: Measured[] = [];
    const verifyAnchor: number[] = [];
    for (let run = 0; run < runs; run++) {
      const hashed = await measure("sha256sum", [body]);
      const unpacked = await measure("sh", ["-c", `gzip -dc ${body} >/dev/null`]);
      verifyAnchor.push(hashed.seconds + unpacked.seconds);
      verify.push(await fulaNode(["snapshot", "verify", body, ...at]));
    }
    const sweep: Measured[] = [];
    const sweepAnchor: number[] = [];
    for (let run = 0; run < runs; run++) {
      sweepAnchor.push((await curl("/allocations")) + (await curl("/pins")));
      sweep.push(await fulaNode(["sweep", ...at]));
    }
    const title = `${pins} pins, ${pace === 0 ? "unpaced" : `${pace} lines/s`}`;
    return [
      show(title, { what: "take", ours: take, anchor: takeAnchor, bound: 1.25 }),
      show(title, { what: "verify", ours: verify, anchor: verifyAnchor, bound: 1.3 }),
      show(title, { what: "sweep", ours: sweep, anchor: sweepAnchor, bound: 1.3 }),
    ].every(Boolean);
  } finally {
    base.remove();
    server.stop();
  }
}

function show(title: string, { what, ours, anchor, bound }: Row): boolean {
  const seconds = ours.map((run) => run.seconds);
  const ratio = median(seconds) / median(anchor);
  const peak = Math.max(...ours.map((run) => run.peakMiB));
  const holds = ratio <= bound && peak <= MEMORY_MIB;
  console.log(
    `${what.padEnd(7)} ${title}: ours ${spread(seconds)} s, anchor ${spread(anchor)} s (min / median / max), ` +
      `ratio ${ratio.toFixed(2)} (<= ${bound}), peak ${peak.toFixed(0)} MiB (<= ${MEMORY_MIB}): ${holds ? "holds" : "PASSED"}`,
  );
  return holds;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [pins = "1000000", pace = "0", runs = "5"] = process.argv.slice(2);
  if (!(await benchSnapshots(Number(pins), Number(pace), Number(runs)))) process.exitCode = 1;
}
