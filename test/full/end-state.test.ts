import { expect } from "vitest";
import { FIRST_JOIN, fulaNode } from "../support/artifact.ts";
import { endStateOf, lostSince, stateDifference } from "../support/end-state.ts";
import { bootForKills } from "../support/kill-boxes.ts";
import { expectExit, psql } from "../support/master-box.ts";
import { matrix } from "./cases.ts";

// Everything else here compares with the end state of a clean run. So first: two clean runs are equal, and one change of any kind is seen.
matrix("the end state", [
  {
    name: "is equal for two clean joins, and shows one change of each kind",
    run: async () => {
      const boxes = await Promise.all([bootForKills("docker"), bootForKills("docker")]);
      try {
        for (const box of boxes) expectExit(await fulaNode(box, FIRST_JOIN), 0);
        const [one, two] = boxes;
        const [clean, other] = [await endStateOf(one), await endStateOf(two)];
        expect(stateDifference(clean, other)).toEqual([]);
        expect(lostSince(clean, await endStateOf(one))).toEqual([]);
        expect(Object.keys(other.kept)).toEqual(expect.arrayContaining(["MASTER_ID", "peer id of kubo"]));

        await two.run("chmod 644 /opt/fula-master/.env && touch /etc/cron.d/.fula-x.tmp");
        await two.run("docker volume create other");
        await psql(two, "ALTER TABLE pins ADD COLUMN more text");
        const found = stateDifference(clean, await endStateOf(two));
        expect(found).toEqual([
          "more: file /etc/cron.d/.fula-x.tmp",
          expect.stringMatching(/^changed: file \/opt\/fula-master\/\.env: file 600 .* -> file 644 /),
          ...["", "/_data"].map((part) => `more: file /var/lib/docker/volumes/other${part}`),
          expect.stringMatching(/^changed: schema pins; Type: TABLE; Schema: public: /),
          "more: volume other",
        ]);
        return `${Object.keys(clean.things).length} things compared, ${Object.keys(clean.kept).length} kept`;
      } finally {
        await Promise.all(boxes.map((box) => box.destroy()));
      }
    },
  },
]);
