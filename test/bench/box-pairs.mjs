// Runs inside a box, so that nothing but the two commands is timed. Reads {rounds, ours, anchor} as JSON from
// its standard input, each {prepare, run} of bash scripts; prints {ours, anchor}: milliseconds, taken in turns
// after a pair that does not count. If a script fails, it ends with the output of that script.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const { rounds, ours, anchor } = JSON.parse(readFileSync(0, "utf8"));
const times = { ours: [], anchor: [] };
for (let round = 0; round <= rounds; round += 1) {
  const pair = { ours: time(ours), anchor: time(anchor) };
  if (round === 0) continue;
  times.ours.push(pair.ours);
  times.anchor.push(pair.anchor);
}
console.log(JSON.stringify(times));

function time({ prepare, run }) {
  if (prepare !== undefined) bash(prepare);
  const startedAt = performance.now();
  bash(run);
  return performance.now() - startedAt;
}

function bash(script) {
  const { status, stdout, stderr } = spawnSync("bash", ["-euc", script], {
    encoding: "utf8",
    maxBuffer: 64 * 1024 ** 2,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (status !== 0) throw new Error(`exit code ${status} from: ${script}\n${stdout}\n${stderr}`);
}
