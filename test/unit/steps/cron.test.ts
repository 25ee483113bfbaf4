import { describe, expect, it } from "vitest";
import { cron } from "../../../src/steps/cron.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { bareBox, lookAt } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const START = { kind: "start-cron", summary: "start cron now and at every boot" };

stepLaws("cron", {
  makeStep: () => cron,
  makeHost: () => new FakeMaster(),
  absent: () => {},
  drifts: [
    {
      name: "the daemon is stopped",
      arrange: (host) => void host.system.processes.delete("cron"),
      names: /cron is not running/,
    },
  ],
  foreign: [],
});

describe("cron", () => {
  it("is installed with consent, and started", async () => {
    const { finding, changes } = await lookAt(cron, bareBox());
    expect(finding).toMatchObject({
      state: "absent",
      consent: { flag: "--yes", explicit: false, question: expect.stringContaining("package cron") },
    });
    expect(changes).toEqual([
      { kind: "install-packages", summary: "install the package cron", packages: ["cron"] },
      START,
    ]);
  });

  it("is only started if it is installed", async () => {
    const host = new FakeMaster();
    host.system.programs.set("cron", "/usr/sbin/cron");
    expect((await lookAt(cron, host)).changes).toEqual([START]);
  });

  it("of another make is left alone while it runs", async () => {
    const host = new FakeMaster();
    host.system.processes.add("cron");
    expect((await lookAt(cron, host)).finding.state).toBe("ours");
  });

  it("reports one that is installed but does not keep running", async () => {
    const host = new FakeMaster();
    host.system.programs.set("cron", "/usr/sbin/cron");
    await expect(cron.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: "The cron daemon is not running, so snapshots and sweeps do not start.",
    });
  });
});
