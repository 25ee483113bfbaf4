import { PROGRAM } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { withMaster } from "./box-pairs.ts";
import type { Bench, Measurement } from "./report.ts";

const HEALTHY_ROUNDS = 15;
const DEAD_ROUNDS = 5;

/** Stands before the Docker CLI and notes how long each call took, since status asks Compose through it. */
const SHIM = `#!/bin/bash
begin=$(date +%s%N)
/usr/bin/docker "$@"
code=$?
echo $(( ($(date +%s%N) - begin) / 1000000 )) >> /run/questions
exit $code
`;

/** Prints the milliseconds of status, its parts as JSON, and the milliseconds of each call of the Docker CLI. */
const ROUND = `
: > /run/questions
begin=$(date +%s%N)
node ${PROGRAM} status --json > /run/status.json
code=$?
echo $(( ($(date +%s%N) - begin) / 1000000 )) $code
cat /run/questions | tr '\\n' ' '
echo
cat /run/status.json
`;

/** These parts ask many questions, one after another; the others ask theirs at the same time. */
const STEPS = new Set(["cron", "settings"]);

interface Status {
  readonly parts: readonly { readonly name: string; readonly state: string; readonly durationMs: number }[];
}

/** Times status, and the slowest question that the same run asked. */
async function measure(
  box: Box,
  task: { readonly name: string; readonly what: string; readonly rounds: number; readonly exitCode: number },
): Promise<Measurement> {
  const ours: number[] = [];
  const anchor: number[] = [];
  for (let round = 0; round < task.rounds; round += 1) {
    const { stdout } = await box.run(ROUND);
    const [first = "", second = "", json = ""] = stdout.split("\n");
    const [tookMs = 0, exitCode] = first.split(" ").map(Number);
    if (exitCode !== task.exitCode)
      throw new Error(`${task.name}: status ended with ${exitCode}, not ${task.exitCode}: ${json}`);
    const { parts } = JSON.parse(json) as Status;
    const questions = [
      ...second.split(" ").map(Number),
      ...parts.filter(({ name }) => !STEPS.has(name)).map(({ durationMs }) => durationMs),
    ];
    ours.push(tookMs);
    anchor.push(Math.max(...questions));
  }
  return {
    name: task.name,
    what: `status --json, ${task.what}`,
    against: "its slowest single question",
    unit: "ms",
    target: { of: "ratio", bound: "at most", value: 1.5 },
    ours,
    anchor,
  };
}

/** How long status takes, compared with the slowest question that it asks: also while half of the stack is dead. */
export const benches: readonly Bench[] = [
  {
    name: "status",
    run: () =>
      withMaster("bench-status", async (box) => {
        await box.writeFile("/usr/local/sbin/docker", SHIM);
        await box.run("chmod 755 /usr/local/sbin/docker");
        const healthy = await measure(box, {
          name: "status, all well",
          what: "everything works",
          rounds: HEALTHY_ROUNDS,
          exitCode: 0,
        });
        await box.run("/usr/bin/docker pause postgres-pinning ipfs_cluster");
        const paused = await measure(box, {
          name: "status, two paused",
          what: "database and ipfs-cluster paused",
          rounds: DEAD_ROUNDS,
          exitCode: 27,
        });
        await box.run("/usr/bin/docker unpause postgres-pinning ipfs_cluster");
        await box.run("pkill -STOP -x dockerd");
        const hanging = await measure(box, {
          name: "status, Docker hangs",
          what: "the engine is stopped by a signal",
          rounds: DEAD_ROUNDS,
          exitCode: 29,
        });
        await box.run("pkill -CONT -x dockerd");
        return [healthy, paused, hanging];
      }),
  },
];
