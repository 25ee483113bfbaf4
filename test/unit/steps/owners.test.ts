import { describe, expect, it } from "vitest";
import type { FakeHost } from "../../support/fake-host.ts";
import { boxBefore, LAYOUT, lookAt, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

// A box on which the steps before the signing key's have made their files.
const before = await boxBefore("signing-key");
const step = await stepOn(before, "owners");

stepLaws("owners", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: null,
  ours: () => {},
  drifts: [
    {
      name: "the base directory belongs to another user",
      arrange: (host) => host.files.own(LAYOUT.baseDir, 1000),
      names: /\/opt\/fula-master belongs to user 1000, not to root/,
    },
    {
      name: "the group can write to the compose file",
      arrange: (host) => host.files.put(LAYOUT.composeFile, host.files.textOf(LAYOUT.composeFile), 0o664),
      names: /its group can write to .*docker-compose\.yml \(mode 664\)/,
    },
    {
      name: "everything in cli belongs to another user",
      arrange: (host) => {
        for (const path of host.files.tree.keys())
          if (path.startsWith(LAYOUT.cliDir)) host.files.own(path, 1000);
      },
      names: /\/cli belongs to user 1000, not to root; the same for \d+ more below it/,
    },
  ],
  foreign: [],
});

describe("owners", () => {
  const breakTwo = (host: FakeHost) => {
    host.files.own(LAYOUT.cliCurrent, 1000);
    host.files.putDirectory(LAYOUT.baseDir, 0o777);
  };

  it("plans one change for each thing, with its reason", async () => {
    const host = before.copy();
    breakTwo(host);
    const { finding, changes } = await lookAt(step, host);
    expect(changes).toEqual([
      {
        kind: "give-to-root",
        summary: `give ${LAYOUT.baseDir} to root alone`,
        path: LAYOUT.baseDir,
        tree: false,
      },
      {
        kind: "give-to-root",
        summary: `give ${LAYOUT.cliDir} and everything in it to root alone`,
        path: LAYOUT.cliDir,
        tree: true,
      },
    ]);
    expect(finding).toMatchObject({
      drift: [
        `every user can write to ${LAYOUT.baseDir} (mode 777)`,
        `${LAYOUT.cliCurrent} belongs to user 1000, not to root`,
      ],
    });
  });

  it("takes only the right to write, and changes nothing else", async () => {
    const host = before.copy();
    const wanted = host.snapshot();
    breakTwo(host);
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    expect(host.snapshot()).toEqual(wanted);
    expect(host.writes).not.toContain(`files.chmod ${LAYOUT.cliCurrent} 755`);
  });

  it("says so if the right to write comes back", async () => {
    const host = before.copy();
    breakTwo(host);
    await expect(step.verify(host)).rejects.toMatchObject({ exit: "unhealthy" });
  });
});
