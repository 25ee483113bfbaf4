import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { boxBefore, lookAt, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const before = await boxBefore("migrations");
const step = await stepOn(before, "migrations");
const VERSIONS = before.migrations.files.map(({ version }) => version);
const FILES = before.migrations.files.map(
  ({ version, name }) => `${String(version).padStart(3, "0")}_${name}.sql`,
);
const [LAST = ""] = FILES.slice(-1);

function revertLast(host: FakeHost, count: number): void {
  for (const version of VERSIONS.slice(-count)) host.migrations.applied.delete(version);
}

stepLaws("migrations", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "newer files are not applied yet",
      arrange: (host) => revertLast(host, 2),
      names: new RegExp(`^${FILES.slice(-2).join(": .*\n")}: `),
    },
    {
      name: "one was reverted",
      arrange: (host) => revertLast(host, 1),
      names: new RegExp(`^${LAST}: `),
    },
  ],
  foreign: [],
  secrets: secretsOf,
});

describe("migrations", () => {
  const pending = FILES.map((file) => `${file}: apply`);
  const migrate = { kind: "migrate", summary: `migrate the database: ${pending.join(", ")}`, pending };

  it("are the shipped ones", () => {
    expect(VERSIONS).toEqual(expect.arrayContaining([1, 18, 19, 20]));
  });

  it("names every file, in order, of a database that is not there yet or empty", async () => {
    const bare = new FakeMaster();
    const onBare = await lookAt(await stepOn(bare, "migrations"), bare);
    expect(onBare.finding).toMatchObject({ state: "absent", evidence: { database: "no password yet" } });
    expect(onBare.changes).toEqual([migrate]);
    const onReady = await lookAt(step, before.copy());
    expect(onReady.finding.state).toBe("absent");
    expect(onReady.changes).toEqual([migrate]);
  });

  it("does not claim to know what is pending while existing data can't be read", async () => {
    const stopped = before.copy();
    for (const version of VERSIONS) stopped.migrations.applied.add(version);
    stopped.docker.boxes.delete(NAMES.postgres);
    const { finding, changes } = await lookAt(step, stopped);
    expect(finding).toMatchObject({
      state: "drifted",
      drift: ["the ledger can't be read now: connection refused"],
    });
    expect(changes).toEqual([
      {
        kind: "migrate",
        summary: "migrate the database, if anything is pending: unknown until it answers",
        pending: null,
      },
    ]);
  });

  it("names only what is pending", async () => {
    const host = before.copy();
    for (const version of VERSIONS.slice(0, -1)) host.migrations.applied.add(version);
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "migrate", summary: `migrate the database: ${LAST}: apply`, pending: [`${LAST}: apply`] },
    ]);
  });

  it("reports which database it was, by its system identifier", async () => {
    const { finding } = await lookAt(step, before.copy());
    expect(finding.evidence["database"]).toMatch(/^Postgres 16\.9, system identifier \d+$/);
  });

  it("passes on the migrator's own error, and does not verify what is half done", async () => {
    const host = before.copy();
    const error = new OperatorError({ exit: "drift", what: "018 finds duplicates." });
    host.gate.failOnce(/migrations\.up/, error);
    await expect(step.apply(migrate, host, () => {})).rejects.toBe(error);
    host.migrations.applied.add(1);
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: `These migrations are not applied: ${FILES.slice(1).join(", ")}.`,
    });
  });
});
