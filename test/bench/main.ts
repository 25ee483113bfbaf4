import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { bedEnvironment } from "../support/bed.ts";
import { benches as bucketRoots } from "./bucket-roots.ts";
import { benches as deduction } from "./deduction.ts";
import { benches as dumpRestore } from "./dump-restore.ts";
import { benches as ingest } from "./ingest.ts";
import { benches as join } from "./join.ts";
import { benches as migrations } from "./migrations.ts";
import { benches as noop } from "./noop.ts";
import { benches as page } from "./page.ts";
import { benches as pinsMemory } from "./pins/memory.ts";
import { benches as pins } from "./pins/pins.ts";
import { type Bench, describeMachine, judge, renderTable, type Verdict } from "./report.ts";
import { benches as restore } from "./restore.ts";
import { benches as snapshot } from "./snapshot.ts";
import { benches as status } from "./status.ts";
import { benches as tarball } from "./tarball.ts";
import { benches as version } from "./version.ts";

// npm run bench [-- [--json FILE] [NAME...]]: a table, and the same as JSON. A missed target is
// reported, but is not a failure. If a bench can't run, the exit code is 1.

// Boxes use the test bed's engine, never the machine's own.
Object.assign(process.env, bedEnvironment());

const BENCHES: readonly Bench[] = [
  ...version,
  ...tarball,
  ...migrations,
  ...noop,
  ...status,
  ...join,
  ...snapshot,
  ...restore,
  ...ingest,
  ...pins,
  ...pinsMemory,
  ...deduction,
  ...dumpRestore,
  ...bucketRoots,
  ...page,
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "string", default: "bench.json" } },
});
const known = BENCHES.map(({ name }) => name);
const unknown = positionals.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`Unknown bench: ${unknown.join(", ")}. Possible names: ${known.join(", ")}.`);
  process.exitCode = 2;
} else {
  const isAll = positionals.length === 0;
  await runAll(
    BENCHES.filter(({ name, onlyByName = false }) => (isAll ? !onlyByName : positionals.includes(name))),
  );
}

async function runAll(benches: readonly Bench[]): Promise<void> {
  const before = describeMachine();
  const verdicts: Verdict[] = [];
  const failures: { bench: string; why: string }[] = [];
  for (const { name, run } of benches) {
    console.error(`${name} ...`);
    try {
      verdicts.push(...(await run()).map((measured) => judge(name, measured)));
    } catch (thrown) {
      failures.push({ bench: name, why: thrown instanceof Error ? thrown.message : String(thrown) });
    }
  }
  const machine = { ...before, loadAfter: describeMachine().load };
  const report = { at: new Date().toISOString(), machine, benches: verdicts, failures };
  await writeFile(values.json, `${JSON.stringify(report, null, 2)}\n`);
  console.log(renderTable(verdicts));
  for (const { bench, why } of failures) console.log(`NOT RUN  ${bench}: ${why}`);
  const { node, cpus, load, loadAfter } = machine;
  console.log(`Node ${node}, ${cpus} CPUs, load ${load} before and ${loadAfter} after. JSON: ${values.json}`);
  if (failures.length > 0) process.exitCode = 1;
}
