import { LEDGER_SQL } from "../../src/database/ledger.ts";
import { FIRST_JOIN, PROGRAM } from "../support/artifact.ts";
import { timePairsInBox, withMaster } from "./box-pairs.ts";
import type { Bench } from "./report.ts";

const ROUNDS = 7;
const KEPT = "/root/anchor";
const MASTER = "/opt/fula-master";
const WRITER = "/opt/fula-writer";

/** Copies what the anchor needs from a joined box: the two compose files, the writer's scripts, `.env`, and the directories in which containers write. Those of the writer are empty, as before its first start. */
const KEEP = `mkdir -p ${KEPT}/master ${KEPT}/writer
{ find ${MASTER} -maxdepth 2 -type d -print0; find ${WRITER} -maxdepth 1 -type d -print0; } | tar -cPf ${KEPT}/directories.tar --null --no-recursion -T -
cp -a ${MASTER}/.env ${MASTER}/docker-compose.yml ${KEPT}/master/
cp -a ${WRITER}/docker-compose.yml ${WRITER}/*.sh ${KEPT}/writer/`;

/** Removes everything except the images. */
const RESET = `docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
docker volume ls --quiet | xargs --no-run-if-empty docker volume rm >/dev/null
docker network prune --force >/dev/null
rm -rf ${MASTER} ${WRITER} /etc/cron.d/fula-*
sync`;

const PUT_BACK = `${RESET}
tar -xpPf ${KEPT}/directories.tar
cp -a ${KEPT}/master/. ${MASTER}/
cp -a ${KEPT}/writer/. ${WRITER}/`;

const up = (directory: string): string =>
  `docker compose --file ${directory}/docker-compose.yml --env-file ${MASTER}/.env up --detach --wait`;

/** psql in the database's container, since the box has none. */
const PSQL =
  "docker exec --interactive postgres-pinning psql -X -q -v ON_ERROR_STOP=1 -U pinning_user -d pinning_service";
const MIGRATE = `cd /root/package/migrations
{
  cat ${KEPT}/ledger.sql
  for file in $(ls [0-9]*.sql | grep -v '\\.down\\.sql$'); do
    if grep -q 'fula-node:transaction one' $file; then echo 'BEGIN;'; cat $file; echo 'COMMIT;'; else cat $file; fi
  done
} | ${PSQL} -f - >/dev/null`;

/** A first join with every image on the box, against Compose with the same two files, and psql: without tables no service is healthy. */
export const benches: readonly Bench[] = [
  {
    name: "join",
    run: () =>
      withMaster("bench-join", async (box) => {
        await box.run(KEEP);
        await box.writeFile(`${KEPT}/ledger.sql`, `${LEDGER_SQL};\n`, 0o644);
        const pairs = await timePairsInBox(box, {
          rounds: ROUNDS,
          ours: { prepare: RESET, run: `node ${PROGRAM} ${FIRST_JOIN.join(" ")}` },
          anchor: {
            prepare: PUT_BACK,
            run: [up(WRITER), `${up(MASTER)} postgres`, MIGRATE, up(MASTER)].join("\n"),
          },
        });
        return [
          {
            name: "whole join, images there",
            what: `${FIRST_JOIN.join(" ")}, fresh state, every image on the box`,
            against: "compose up --wait, psql before the services",
            unit: "ms",
            target: { of: "ratio", bound: "at most", value: 1.3 },
            ...pairs,
          },
        ];
      }),
  },
];
