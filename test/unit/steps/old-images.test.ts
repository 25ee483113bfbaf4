import { describe, expect, it } from "vitest";
import { OWNER_LABEL } from "../../../src/settings/layout.ts";
import { oldImages } from "../../../src/steps/old-images.ts";
import { FakeMaster, VERSION } from "../../support/fake-master.ts";
import { LAYOUT, lookAt, prepare } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const { context } = await prepare(new FakeMaster());
const step = oldImages(context);

/** A box with programs and images of these versions. */
function boxWith(versions: readonly string[], current: string): FakeMaster {
  const host = new FakeMaster();
  for (const version of versions) {
    host.files.put(`${LAYOUT.cliDir}/${version}/bin/fula-node.js`, version);
    host.docker.putImage(`fula-node:${version}`, { [OWNER_LABEL.key]: OWNER_LABEL.value, version });
  }
  host.files.putLink(current, LAYOUT.cliCurrent);
  return host;
}

stepLaws("old-images", {
  makeStep: () => step,
  makeHost: () => boxWith([VERSION, "0.0.9"], VERSION),
  absent: null,
  drifts: [
    {
      name: "one that nothing goes back to",
      arrange: (host) => {
        host.docker.putImage("fula-node:0.0.8", { [OWNER_LABEL.key]: OWNER_LABEL.value });
      },
      names: /fula-node:0\.0\.8 is older than the version before/,
    },
  ],
  foreign: [],
});

describe("old images", () => {
  it("are removed, unless a container uses them or somebody else made them", async () => {
    const host = boxWith([VERSION, "0.0.9"], VERSION);
    const owner = { [OWNER_LABEL.key]: OWNER_LABEL.value };
    for (const old of ["0.0.8", "0.0.7"]) host.docker.putImage(`fula-node:${old}`, { ...owner, old });
    host.docker.putImage("fula-node:0.0.6", { maintainer: "somebody" });
    const used = await host.docker.image("fula-node:0.0.7");
    host.docker.putContainer("old-service", { imageId: used?.id ?? "" });
    const { finding, changes } = await lookAt(step, host);
    expect(finding).toMatchObject({ drift: ["fula-node:0.0.8 is older than the version before"] });
    for (const change of changes) await step.apply(change as never, host, () => {});
    await step.verify(host);
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    const left = [...host.docker.images.keys()].filter((name) => name.startsWith("fula-node:"));
    expect(left.sort()).toEqual([
      "fula-node:0.0.6",
      "fula-node:0.0.7",
      "fula-node:0.0.9",
      `fula-node:${VERSION}`,
    ]);
  });

  it("of a newer version that was given up are removed, and that of the version in use stays", async () => {
    // Before the link is set to the running version, and after it.
    for (const host of [boxWith([VERSION, "0.0.9"], "0.0.8"), boxWith([VERSION, "0.0.8"], VERSION)]) {
      host.files.put(`${LAYOUT.cliDir}/0.0.8/bin/fula-node.js`, "in use");
      for (const old of ["0.0.9", "0.0.8"])
        host.docker.putImage(`fula-node:${old}`, { [OWNER_LABEL.key]: OWNER_LABEL.value, old });
      const { changes } = await lookAt(step, host);
      expect(changes.map(({ summary }) => summary)).toEqual(["remove the image fula-node:0.0.9"]);
    }
  });
});
