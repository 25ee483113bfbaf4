import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { claimWork } from "../../src/pinning/queue.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const PLACES = 4;

describeOnPostgres(
  "the places of an account's requests in the cluster",
  (postgres) => {
    /** Requests of one account, in the cluster or waiting, and tried so often. */
    async function fill(target: PostgresTarget, count: number, where: "look" | "send", attempts: number) {
      const pool = poolOf(target);
      for (let at = 0; at < count; at++) {
        const id = await accept(pool, {
          account: "a",
          cid: cidOf(randomUUID()),
          name: `${where} ${attempts}`,
        });
        await sql(
          target,
          "UPDATE pin_work SET attempts = $2, due_at = now() + $4 * interval '1 hour', sent_at = CASE WHEN $3 THEN now() END WHERE requestid = $1",
          [id, attempts, where === "look", where === "look" ? 1 : 0],
        );
      }
    }

    /** What gets a turn now. */
    async function claimed(target: PostgresTarget): Promise<readonly string[]> {
      const names: string[] = [];
      for (let round = 0; round < 3; round++) {
        const { work } = await claimWork(poolOf(target), {
          phases: ["send"],
          limit: 8,
          cursor: "",
          busy: [],
          claim: randomUUID(),
          leaseMs: 60_000,
          window: PLACES,
          windows: {},
          searches: PLACES,
        });
        names.push(...work.map(({ name }) => name));
      }
      return names.sort((a, b) => (a < b ? -1 : 1));
    }

    test.each([
      ["none is taken: both get turns", 0, 0, ["send 0", "send 0", "send 0", "send 1", "send 1", "send 1"]],
      [
        "those of new requests are taken: searched ones still get turns",
        PLACES,
        0,
        ["send 1", "send 1", "send 1"],
      ],
      [
        "those of searched requests are taken: new ones still get turns",
        0,
        PLACES,
        ["send 0", "send 0", "send 0"],
      ],
      ["all are taken: nothing gets a turn", PLACES, PLACES, []],
      ["one of each is left: one of each gets a turn", PLACES - 1, PLACES - 1, ["send 0", "send 1"]],
    ] as const)("%s", async (_, fresh, searched, turns) => {
      const target = await postgres.createDatabase();
      await fill(target, fresh, "look", 0);
      await fill(target, searched, "look", 2);
      await fill(target, 3, "send", 0);
      await fill(target, 3, "send", 1);
      expect(await claimed(target)).toEqual(turns);
    });
  },
  { template: migrate },
);
