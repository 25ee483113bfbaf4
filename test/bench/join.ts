import { FIRST_JOIN, PROGRAM } from "../support/artifact.ts";
import { timePairsInBox, withMaster } from "./box-pairs.ts";
import type { Bench } from "./report.ts";

const ROUNDS = 7;
const KEPT = "/root/anchor";
const MASTER = "/opt/fula-master";
const WRITER = "/opt/fula-writer";

/** Copies what the anchor needs from a joined box: the two compose files, the writer's scripts, `.env`. */
const KEEP = `mkdir -p ${KEPT}/master ${KEPT}/writer
cp -a ${MASTER}/.env ${MASTER}/docker-compose.yml ${KEPT}/master/
cp -a ${WRITER}/docker-compose.yml ${WRITER}/*.sh ${KEPT}/writer/`;

/** Removes everything except the images. */
const RESET = `docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
docker volume ls --quiet | xargs --no-run-if-empty docker volume rm >/dev/null
docker network prune --force >/dev/null
rm -rf ${MASTER} ${WRITER} /etc/cron.d/fula-*
sync`;

const PUT_BACK = `${RESET}
mkdir -p ${MASTER} ${WRITER}
cp -a ${KEPT}/master/. ${MASTER}/
cp -a ${KEPT}/writer/. ${WRITER}/`;

const up = (directory: string): string =>
  `docker compose --file ${directory}/docker-compose.yml --env-file ${MASTER}/.env up --detach --wait`;

/** psql in the database's container, since the box has none. */
const PSQL =
  "docker exec --interactive postgres-pinning psql -X -q -v ON_ERROR_STOP=1 -U pinning_user -d pinning_service";
const MIGRATE = `cd /root/package/migrations
ls [0-9]*.sql | grep -v '\\.down\\.sql$' | xargs cat | ${PSQL} -f - >/dev/null`;

/** A first join with every image on the box, against Compose with the same two files, and psql. */
export const benches: readonly Bench[] = [
  {
    name: "join",
    run: () =>
      withMaster("bench-join", async (box) => {
        await box.run(KEEP);
        const pairs = await timePairsInBox(box, {
          rounds: ROUNDS,
          ours: { prepare: RESET, run: `node ${PROGRAM} ${FIRST_JOIN.join(" ")}` },
          anchor: { prepare: PUT_BACK, run: [up(WRITER), up(MASTER), MIGRATE].join("\n") },
        });
        return [
          {
            name: "whole join, images there",
            what: `${FIRST_JOIN.join(" ")}, fresh state, every image on the box`,
            against: "compose up --wait x2, then psql",
            unit: "ms",
            target: { of: "ratio", bound: "at most", value: 1.3 },
            ...pairs,
          },
        ];
      }),
  },
];
