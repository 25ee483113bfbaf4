import { PROGRAM } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { timePairsInBox, withMaster } from "./box-pairs.ts";
import type { Bench } from "./report.ts";

const ROUNDS = 15;
const BASE = "/opt/fula-master";
const UP = `docker compose --file ${BASE}/docker-compose.yml --env-file ${BASE}/.env up --detach --wait`;

/** A run without changes, against Compose without changes for the master's file. */
export const benches: readonly Bench[] = [
  {
    name: "noop",
    run: () =>
      withMaster("bench-noop", async (box) => {
        const before = await describeContainers(box);
        const pairs = await timePairsInBox(box, {
          rounds: ROUNDS,
          ours: { run: `node ${PROGRAM} join-as-master --yes` },
          anchor: { run: UP },
        });
        if ((await describeContainers(box)) !== before)
          throw new Error("containers changed, so it was not a no-op");
        return [
          {
            name: "join again, nothing to do",
            what: "join-as-master --yes on a master",
            against: "compose up -d --wait, no-op",
            unit: "ms",
            target: { of: "ratio", bound: "at most", value: 2 },
            ...pairs,
          },
        ];
      }),
  },
];

/** The running containers with their start times. */
async function describeContainers(box: Box): Promise<string> {
  const format = "{{.Name}} {{.Id}} {{.State.StartedAt}}";
  const { stdout } = await box.run(`docker inspect --format '${format}' $(docker ps --quiet) | sort`);
  return stdout;
}
