import { describe, expect, it } from "vitest";
import { OWNER_LABEL } from "../../../src/settings/layout.ts";
import { PACKAGE_DIR } from "../../support/fake-master.ts";
import { boxBefore, LAYOUT, lookAt, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const TAG = "fula-node:0.1.0";
const BASE = "node:26-trixie-slim";
const LABEL = "land.fx.fula-node.package";

const before = await boxBefore("service-image");
const step = await stepOn(before, "service-image");
const packageHash = (await before.files.hashTree(`${LAYOUT.cliDir}/0.1.0`)) ?? "";

stepLaws("service-image", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "it was built from other files",
      arrange: (host) => host.docker.putImage(TAG, { [LABEL]: "of an older build" }),
      names: /fula-node:0\.1\.0 was built from different files/,
    },
    {
      name: "it was built from other files, and the base image is missing",
      arrange: (host) => {
        host.docker.putImage(TAG, { [LABEL]: "of an older build" });
        host.docker.images.delete(BASE);
      },
      names: /was built from different files/,
    },
  ],
  foreign: [
    {
      name: "an image of that name that we did not build",
      arrange: (host) => host.docker.putImage(TAG, { maintainer: "somebody" }),
      why: /The image fula-node:0\.1\.0 exists, but fula-node did not build it/,
      adoptable: true,
    },
  ],
});

describe("service-image", () => {
  it("pulls the base if it is missing, and builds from the installed package", async () => {
    const host = before.copy();
    const build = { kind: "build-image", summary: `build ${TAG}`, tag: TAG, package: packageHash };
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "pull-image", summary: `pull ${BASE}`, image: BASE },
      build,
    ]);
    host.docker.putImage(BASE);
    expect((await lookAt(step, host)).changes).toEqual([build]);
  });

  it("marks the image as ours, by the hash of what it was built from", async () => {
    const host = before.copy();
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    expect(host.docker.images.get(TAG)?.labels).toEqual({
      [OWNER_LABEL.key]: OWNER_LABEL.value,
      [LABEL]: packageHash,
      "land.fx.fula-node.base": BASE,
    });
  });

  it("is built again on another base image, which is pulled first", async () => {
    const host = before.copy();
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    const next = await stepOn(host, "service-image", { set: { NODE_BASE_IMAGE: "node:24-trixie-slim" } });
    const { finding, changes } = await lookAt(next, host);
    expect(finding).toMatchObject({
      drift: ["fula-node:0.1.0 was built on node:26-trixie-slim; expected node:24-trixie-slim"],
    });
    expect(changes.map(({ summary }) => summary)).toEqual(["pull node:24-trixie-slim", `build ${TAG}`]);
  });

  it("wants no base image for an image that is right", async () => {
    const host = before.copy();
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    host.docker.images.delete(BASE);
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });

  it("is built again when the running package is another one", async () => {
    const host = before.copy();
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    host.files.put(`${PACKAGE_DIR}/dist/cli.js`, "// another bundle\n");
    expect((await lookAt(step, host)).finding).toMatchObject({ state: "drifted" });
  });
});
