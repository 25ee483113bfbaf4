import { describe, expect, it } from "vitest";
import type { MigrationStatus } from "../../../src/database/migration-plan.ts";
import { type DatabaseFacts, judgeDatabase, readDatabaseFacts } from "../../../src/database/state.ts";
import { OperatorError } from "../../../src/errors.ts";
import { postgresTarget } from "../../../src/settings/postgres-target.ts";
import { joinedBox, savedValues } from "../../support/master-boxes.ts";

const NOW = "2026-01-01T12:00:00Z";
const ID = "0a".repeat(16);
const target = postgresTarget((key) => (key === "POSTGRES_PASSWORD" ? "long enough" : undefined));
if (target === null) throw new Error("there is a password");
const schema: MigrationStatus = { items: [], pending: 0, hasLedger: true, ledgerSince: null, running: null };
const own = {
  pool: "p",
  id: ID,
  name: "a",
  flags: [],
  peer: null,
  machine: "m",
  version: "1",
  heartbeatAt: "2026-01-01T11:58:00Z",
  heartbeatAgeMs: 2 * 60_000,
};
const good: DatabaseFacts = {
  target,
  answer: { kind: "open", serverVersion: "16.9", systemIdentifier: "7" },
  schema,
  masters: [own],
};
const judge = (facts: Partial<DatabaseFacts>) => judgeDatabase({ ...good, ...facts }, { id: ID });

describe("judgeDatabase", () => {
  it.each<[Partial<DatabaseFacts>, string, RegExp]>([
    [{}, "ok", /^Postgres 16\.9, 0 migrations applied$/],
    [{ masters: [own, { ...own, id: "b" }] }, "ok", /shared with 1 other master/],
    [{ masters: null }, "ok", /Postgres/],
    [{ answer: { kind: "unreachable", why: "ECONNREFUSED" } }, "down", /can't be reached: ECONNREFUSED/],
    [{ answer: { kind: "wrong-password" } }, "down", /refuses user/],
    [
      { answer: { kind: "not-ready", why: "the database system is starting up" } },
      "attention",
      /is not ready/,
    ],
    [{ schema: null }, "unknown", /not read/],
    [
      { schema: new OperatorError({ exit: "integrity", what: "The database lacks table users." }) },
      "down",
      /lacks table users/,
    ],
    [{ schema: new OperatorError({ exit: "unavailable", what: "Lost." }) }, "unknown", /Lost/],
    [{ schema: { ...schema, pending: 2 } }, "attention", /2 migrations not applied/],
    [
      { schema: { ...schema, running: { pid: 1, application: "x", address: "y", since: NOW } } },
      "attention",
      /being migrated since/,
    ],
    [{ masters: [] }, "attention", /not recorded/],
    [{ masters: [{ ...own, heartbeatAgeMs: 60 * 60_000 }] }, "attention", /last wrote to it at/],
  ])("%o", (facts, state, sentence) => {
    expect(judge(facts)).toMatchObject({ state, sentence: expect.stringMatching(sentence) });
  });

  it("judges a master that was just joined, and one whose Postgres is gone", async () => {
    const host = await joinedBox();
    const values = savedValues(host);
    const login = postgresTarget((key) => values[key]);
    if (login === null) throw new Error("no password");
    const options = { id: values["MASTER_ID"] ?? null };
    expect(judgeDatabase(await readDatabaseFacts(host, login), options).state).toBe("ok");
    host.docker.boxes.delete("postgres-pinning");
    expect(judgeDatabase(await readDatabaseFacts(host, login), options).state).toBe("down");
  });
});
