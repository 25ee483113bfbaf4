import { describe, expect, it } from "vitest";
import { cron } from "../../../src/steps/cron.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { bareBox, lookAt } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const START = { kind: "start-cron", summary: "start cron now and at every boot", unit: "cron.service" };

stepLaws("cron", {
  makeStep: () => cron,
  makeHost: () => new FakeMaster(),
  absent: () => {},
  drifts: [
    {
      name: "the daemon is stopped",
      arrange: (host) => {
        host.system.processes.delete("cron");
        host.system.putUnit("cron");
      },
      names: /cron is not running/,
    },
    {
      name: "the daemon is disabled",
      arrange: (host) => host.system.putUnit("cron", { active: true, atBoot: false }),
      names: /cron does not start at boot/,
    },
  ],
  foreign: [
    {
      name: "the unit is masked",
      arrange: (host) => {
        host.system.programs.set("cron", "/usr/sbin/cron");
        host.system.putUnit("cron", { loaded: false, masked: true, atBoot: false });
      },
      why: /cron\.service is masked/,
    },
  ],
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

  it("is installed again where Debian masked its unit, since it was removed", async () => {
    const host = bareBox();
    host.system.putUnit("cron", { loaded: false, masked: true, atBoot: false });
    expect((await lookAt(cron, host)).changes).toMatchObject([{ packages: ["cron"] }, START]);
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
      what: "cron is not running, so snapshots and sweeps do not start.",
    });
  });

  it.each([
    ["systemd-cron", "cron.target", null],
    ["cronie", "cronie.service", "crond"],
    ["cronie", "crond.service", "crond"],
    ["bcron", "bcron-sched.service", "bcron-sched"],
  ])("%s counts, and nothing is installed over it", async (name, unit, process) => {
    const host = new FakeMaster();
    host.system.putUnit(unit, { active: true });
    if (process !== null) host.system.processes.add(process);
    const { finding } = await lookAt(cron, host);
    expect(finding).toMatchObject({
      state: "ours",
      evidence: { daemon: name, running: "yes", "at boot": "yes" },
    });
    await cron.verify(host);
  });

  it.each(["cron.target", "cronie.service", "bcron-sched.service"])(
    "%s is started if it was stopped and disabled, and no other is installed",
    async (unit) => {
      const host = new FakeMaster();
      host.system.putUnit(unit, { atBoot: false });
      const { finding, changes } = await lookAt(cron, host);
      expect(finding).toMatchObject({
        state: "drifted",
        drift: [expect.stringContaining("is not running"), expect.stringContaining("does not start at boot")],
      });
      expect(changes).toMatchObject([{ kind: "start-cron", unit }]);
    },
  );

  it("is the daemon that runs, where another one is still installed", async () => {
    const host = new FakeMaster();
    host.system.putUnit("cron", { atBoot: false });
    host.system.putUnit("cron.target", { active: true });
    expect((await lookAt(cron, host)).finding).toMatchObject({
      state: "ours",
      evidence: { daemon: "systemd-cron" },
    });
  });
});
