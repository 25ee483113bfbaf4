import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { bedEnvironment } from "../support/bed.ts";
import { BENCHES } from "./catalogue.ts";
import { type Bench, describeMachine, judge, renderTable, type Verdict } from "./report.ts";
import { record } from "./results.ts";

// npm run bench [-- [--json FILE] [--record] [NAME...]]: a table, and the same as JSON. A missed target is
// reported, but is not a failure. If a bench can't run, the exit code is 1. --record also writes what was measured into
// results.json, of which npm run docs makes docs/benchmarks.md.

// Boxes use the test bed's engine, never the machine's own.
Object.assign(process.env, bedEnvironment());

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "string", default: "bench.json" }, record: { type: "boolean", default: false } },
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
  if (values.record) await record(verdicts, { at: report.at, machine });
  console.log(renderTable(verdicts));
  for (const { bench, why } of failures) console.log(`NOT RUN  ${bench}: ${why}`);
  const { node, cpus, load, loadAfter } = machine;
  console.log(`Node ${node}, ${cpus} CPUs, load ${load} before and ${loadAfter} after. JSON: ${values.json}`);
  if (failures.length > 0) process.exitCode = 1;
}
