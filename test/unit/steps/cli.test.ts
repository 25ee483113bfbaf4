import { describe, expect, it } from "vitest";
import { NAMES, OWNER_LABEL } from "../../../src/settings/layout.ts";
import { cli } from "../../../src/steps/cli.ts";
import { FakeMaster, PACKAGE_DIR, VERSION } from "../../support/fake-master.ts";
import { LAYOUT, lookAt, prepare } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const { context } = await prepare(new FakeMaster());
const HERE = `${LAYOUT.cliDir}/${VERSION}`;
const INSTALL = {
  kind: "install-cli",
  summary: `install fula-node ${VERSION} to ${HERE}`,
  from: PACKAGE_DIR,
  to: HERE,
};
const POINT = {
  kind: "point-current",
  summary: `point the link ${LAYOUT.cliCurrent} to ${VERSION}`,
  target: VERSION,
};

stepLaws("cli", {
  makeStep: () => cli(context),
  makeHost: () => new FakeMaster(),
  absent: () => {},
  drifts: [
    {
      name: "a file was edited",
      arrange: (host) => host.files.put(`${HERE}/dist/cli.js`, "edited"),
      names: /differs from the running package/,
    },
    {
      name: "a file is missing",
      arrange: (host) => host.files.drop(`${HERE}/bin/fula-node.js`),
      names: /differs from the running package/,
    },
    {
      name: "the link is missing",
      arrange: (host) => host.files.drop(LAYOUT.cliCurrent),
      names: /points at nothing/,
    },
    {
      name: "a version that nothing goes back to is still there",
      arrange: (host) => {
        for (const old of ["0.0.9", "0.0.8"])
          host.files.put(`${LAYOUT.cliDir}/${old}/bin/fula-node.js`, "old");
      },
      names: /0\.0\.8 is older than the version before/,
    },
    {
      name: "the link points at an older version",
      arrange: (host) => {
        host.files.drop(LAYOUT.cliCurrent);
        host.files.putLink("0.0.9", LAYOUT.cliCurrent);
      },
      names: /points at 0\.0\.9/,
    },
  ],
  foreign: [],
  refusals: [
    {
      name: "a newer version is installed",
      arrange: (host) => {
        host.files.put(`${LAYOUT.cliDir}/0.2.0/bin/fula-node.js`, "newer");
        host.files.putLink("0.2.0", LAYOUT.cliCurrent);
      },
      exit: "newer",
      what: /fula-node 0\.2\.0 is installed here, but this is version 0\.1\.0/,
    },
  ],
});

describe("cli", () => {
  it("installs the running package, then points at it", async () => {
    expect((await lookAt(cli(context), new FakeMaster())).changes).toEqual([INSTALL, POINT]);
  });

  it("points only, if the files are right", async () => {
    const host = new FakeMaster();
    await cli(context).apply(INSTALL as never, host, () => {});
    expect((await lookAt(cli(context), host)).changes).toEqual([POINT]);
  });

  it("leaves what npx puts beside the package where it is", async () => {
    const host = new FakeMaster();
    await cli(context).apply(INSTALL as never, host, () => {});
    expect(await host.files.list(HERE)).toEqual(["bin", "compose", "dist", "migrations", "package.json"]);
  });

  it("keeps an older version beside the new one", async () => {
    const host = new FakeMaster();
    host.files.put(`${LAYOUT.cliDir}/0.0.9/bin/fula-node.js`, "older");
    host.files.putLink("0.0.9", LAYOUT.cliCurrent);
    const { finding, changes } = await lookAt(cli(context), host);
    expect(finding.state).toBe("absent");
    expect(changes).toEqual([INSTALL, POINT]);
    for (const change of changes) await cli(context).apply(change as never, host, () => {});
    expect(host.files.textOf(`${LAYOUT.cliDir}/0.0.9/bin/fula-node.js`)).toBe("older");
  });

  it("removes what is older than the version before, and nothing else", async () => {
    const host = new FakeMaster();
    for (const name of ["0.0.10", "0.0.9", "0.0.8", "not-a-version"])
      host.files.put(`${LAYOUT.cliDir}/${name}/bin/fula-node.js`, name);
    host.files.putLink("0.0.10", LAYOUT.cliCurrent);
    const { changes } = await lookAt(cli(context), host);
    expect(changes.slice(1, 3)).toEqual(
      ["0.0.9", "0.0.8"].map((old) => {
        const path = `${LAYOUT.cliDir}/${old}`;
        return { kind: "remove-cli", summary: `remove ${path}`, path };
      }),
    );
    for (const change of changes) await cli(context).apply(change as never, host, () => {});
    expect(await host.files.list(LAYOUT.cliDir)).toEqual(["0.0.10", VERSION, "current", "not-a-version"]);
  });

  it("keeps the version that is in use, and removes a newer one that was given up, before the link is set", async () => {
    const host = new FakeMaster();
    for (const name of ["0.0.10", "0.0.9"]) host.files.put(`${LAYOUT.cliDir}/${name}/bin/fula-node.js`, name);
    // After a rollback from 0.0.10.
    host.files.putLink("0.0.9", LAYOUT.cliCurrent);
    const { changes } = await lookAt(cli(context), host);
    expect(changes.map(({ kind }) => kind)).toEqual(["install-cli", "remove-cli", "point-current"]);
    for (const change of changes) await cli(context).apply(change as never, host, () => {});
    expect(await host.files.list(LAYOUT.cliDir)).toEqual(["0.0.9", VERSION, "current"]);
    expect((await lookAt(cli(context), host)).changes).toEqual([]);
  });

  it("keeps the version that the services are of, and removes one whose join ended early", async () => {
    const host = new FakeMaster();
    for (const name of ["0.0.10", "0.0.9"]) host.files.put(`${LAYOUT.cliDir}/${name}/bin/fula-node.js`, name);
    host.files.putLink("0.0.10", LAYOUT.cliCurrent);
    for (const [name, version] of [
      [NAMES.webui, "0.0.10"],
      [NAMES.pinningApi, "0.0.9"],
    ] as const)
      host.docker.putContainer(name, {
        image: `fula-node:${version}`,
        labels: { [OWNER_LABEL.key]: OWNER_LABEL.value },
      });
    const { changes } = await lookAt(cli(context), host);
    expect(changes).toContainEqual(expect.objectContaining({ path: `${LAYOUT.cliDir}/0.0.10` }));
    for (const change of changes) await cli(context).apply(change as never, host, () => {});
    expect(await host.files.list(LAYOUT.cliDir)).toEqual(["0.0.9", VERSION, "current"]);
    // While Docker is silent, the link says it.
    host.files.put(`${LAYOUT.cliDir}/0.0.10/bin/fula-node.js`, "0.0.10");
    host.files.putLink("0.0.10", LAYOUT.cliCurrent);
    host.stopEngine();
    expect((await lookAt(cli(context), host)).changes).toContainEqual(
      expect.objectContaining({ path: `${LAYOUT.cliDir}/0.0.9` }),
    );
  });
});
