import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { NODE_PATH, putSnapshot } from "../../support/fake-master.ts";
import { boxBefore, LAYOUT, lookAt, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const before = await boxBefore("first-snapshot");
const step = await stepOn(before, "first-snapshot");
const RUNS = [
  NODE_PATH,
  `${LAYOUT.cliCurrent}/bin/fula-node.js`,
  "snapshot",
  "take",
  "--base-dir",
  LAYOUT.baseDir,
];

stepLaws("first-snapshot", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [],
  foreign: [],
  secrets: secretsOf,
});

describe("first-snapshot", () => {
  it("is taken by the very command that cron runs", async () => {
    const host = before.copy();
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      { kind: "take-snapshot", summary: "take the first snapshot of the pinset", runs: RUNS },
    ]);
    expect(host.files.textOf("/etc/cron.d/fula-pinset-snapshot")).toContain(RUNS.join(" "));
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.writes).toEqual([`system.runCommand ${RUNS.join(" ")}`]);
  });

  it("is taken though halves of one lie there: a manifest without its signature, a signature alone", async () => {
    const host = before.copy();
    host.files.put(`${LAYOUT.snapshotsDir}/1.manifest.json`, "{}");
    host.files.put(`${LAYOUT.snapshotsDir}/2.manifest.sig`, "signature");
    expect((await lookAt(step, host)).finding.state).toBe("absent");
    putSnapshot(host, "20260101T000000Z");
    host.files.put(LAYOUT.snapshotHeartbeat, "{}");
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "ours",
      evidence: { [LAYOUT.snapshotsDir]: "1 signed snapshot", [LAYOUT.snapshotHeartbeat]: "is there" },
    });
  });

  it("is taken again if the first one was cut off before it was on record", async () => {
    const host = before.copy();
    putSnapshot(host, "20260101T000000Z");
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      {
        kind: "take-snapshot",
        summary: "take a snapshot of the pinset: no record says how the last one ended",
        runs: RUNS,
      },
    ]);
    for (const change of changes) await step.apply(change, host, () => {});
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });

  it("is taken although it raises an alarm, which is reported", async () => {
    const host = before.copy();
    host.system.onCommand = () => {
      putSnapshot(host, "20260101T000000Z");
      throw new OperatorError({ exit: "unhealthy", what: "exit code 20", why: "the chain was restarted" });
    };
    const [change] = (await lookAt(step, host)).changes;
    if (change === undefined) throw new Error("no change");
    const lines: string[] = [];
    await step.apply(change, host, (line) => lines.push(line));
    expect(lines).toEqual([expect.stringContaining("the chain was restarted")]);
    await step.verify(host);
  });

  it("passes on why it could not be taken, and is not verified without one", async () => {
    const host = before.copy();
    const error = new OperatorError({ exit: "unavailable", what: "The cluster's listing broke off." });
    host.system.onCommand = () => {
      throw error;
    };
    const [change] = (await lookAt(step, host)).changes;
    if (change === undefined) throw new Error("no change");
    await expect(step.apply(change, host, () => {})).rejects.toBe(error);
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      remedy: expect.stringContaining(RUNS.join(" ")),
    });
  });
});
