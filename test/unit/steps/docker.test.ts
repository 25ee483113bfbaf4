import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { docker } from "../../../src/steps/docker.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { bareBox, join, joinedBox, lookAt } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const START = { kind: "start-engine", summary: "start the Docker engine now and at every boot" };

function onDebian12(host: FakeMaster): void {
  Object.assign(host.system.facts.os, { versionId: "12", prettyName: "Debian GNU/Linux 12 (bookworm)" });
}

stepLaws("docker on a bare box", {
  makeStep: () => docker,
  makeHost: bareBox,
  absent: () => {},
  drifts: [
    {
      name: "the engine is stopped",
      arrange: (host) => (host as FakeMaster).stopEngine(),
      names: /the engine is not running/,
    },
    {
      name: "the engine is stopped, on a distribution without packages for it",
      arrange: (host) => {
        onDebian12(host as FakeMaster);
        (host as FakeMaster).stopEngine();
      },
      names: /the engine is not running/,
    },
  ],
  foreign: [
    {
      name: "the unit is masked",
      arrange: (host) => {
        host.system.putUnit("docker", { loaded: false, masked: true, atBoot: false });
        host.system.programs.set("dockerd", "/usr/bin/dockerd");
      },
      why: /docker\.service is masked/,
    },
    {
      name: "a distribution without Compose v2",
      arrange: (host) => onDebian12(host as FakeMaster),
      why: /Debian GNU\/Linux 12.*no packages for a Docker engine with Compose v2/,
    },
  ],
});

stepLaws("docker beside an engine without Compose", {
  makeStep: () => docker,
  makeHost: () => new FakeMaster(),
  absent: (host) => {
    host.docker.compose = null;
  },
  drifts: [],
  foreign: [
    {
      name: "no Compose v2 to be had",
      arrange: (host) => {
        onDebian12(host as FakeMaster);
        host.docker.compose = null;
      },
      why: /no packages for a Docker engine with Compose v2/,
    },
  ],
});

describe("an engine whose installation was cut short", () => {
  const engine = ["docker.io", "docker-cli", "iptables", "ca-certificates"];

  it.each(["unpacked", "half-configured", "half-installed", "triggers-pending"])(
    "is installed again: dpkg has it as %s",
    async (status) => {
      const host = new FakeMaster();
      host.stopEngine();
      host.files.put(
        "/var/lib/dpkg/status",
        `Package: docker\nStatus: install ok installed\n\nPackage: docker.io\nStatus: install ok ${status}\nVersion: 26\n`,
      );
      expect((await lookAt(docker, host)).changes).toMatchObject([{ packages: engine }, START]);
    },
  );

  it("is only started if dpkg has it as installed, or has not made it", async () => {
    const host = new FakeMaster();
    host.stopEngine();
    host.files.put("/var/lib/dpkg/status", "Package: docker.io\nStatus: install ok installed\n");
    expect((await lookAt(docker, host)).changes).toEqual([START]);
    host.files.put("/var/lib/dpkg/status", "Package: bash\nStatus: install ok half-configured\n");
    expect((await lookAt(docker, host)).changes).toEqual([START]);
  });

  it("is installed again if its client is missing", async () => {
    const host = new FakeMaster();
    host.stopEngine();
    host.system.programs.delete("docker");
    expect((await lookAt(docker, host)).changes).toMatchObject([{ packages: engine }, START]);
  });
});

describe("an engine of another source without Compose", () => {
  const lacking = (name: string, status = "installed") => {
    const host = new FakeMaster();
    host.docker.compose = null;
    host.files.put("/var/lib/dpkg/status", `Package: ${name}\nStatus: install ok ${status}\n`);
    return host;
  };

  it.each([
    ["docker-ce", "docker-compose-plugin"],
    ["moby-engine", "moby-compose"],
  ])("%s gets Compose from where it came from", async (engine, compose) => {
    const { changes } = await lookAt(docker, lacking(engine));
    expect(changes).toMatchObject([{ packages: [compose] }, START]);
  });

  it("also on Debian 12, which has no Compose v2", async () => {
    const host = lacking("docker-ce");
    onDebian12(host);
    expect((await lookAt(docker, host)).changes).toMatchObject([
      { packages: ["docker-compose-plugin"] },
      START,
    ]);
  });

  it("on a master that lost Compose: its containers are not compared before it is back", async () => {
    const host = await joinedBox();
    const containers = new Map(host.docker.boxes);
    host.docker.compose = null;
    host.files.put("/var/lib/dpkg/status", "Package: docker-ce\nStatus: install ok installed\n");
    host.system.packages.set("docker-compose-plugin", () => void (host.docker.compose = "2.30.0"));
    const composeHashes = host.docker.composeHashes.bind(host.docker);
    host.docker.composeHashes = async (document) => {
      if (host.docker.compose === null) throw new OperatorError({ exit: "unavailable", what: "no Compose" });
      return composeHashes(document);
    };
    const { changes } = await join(host);
    expect(changes).toMatchObject([
      { change: { kind: "install-packages", packages: ["docker-compose-plugin"] } },
      { change: { kind: "start-engine" } },
    ]);
    expect(new Map(host.docker.boxes)).toEqual(containers);
  });

  it("one that was removed again does not count", async () => {
    const { changes } = await lookAt(docker, lacking("docker-ce", "config-files"));
    expect(changes).toMatchObject([{ packages: ["docker-compose"] }, START]);
  });

  it("halts at what apt would remove, before the first write", async () => {
    const host = lacking("docker-strange");
    host.system.onSimulate = (names) => (names.includes("docker-compose") ? ["docker-strange"] : []);
    const { finding } = await lookAt(docker, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: "To install docker-compose, apt would remove docker-strange.",
    });
    expect(finding).not.toHaveProperty("claim");
    await expect(join(host)).rejects.toMatchObject({ exit: "foreign" });
    expect(host.writes).toEqual([]);
  });
});

describe("an engine that a boot does not start", () => {
  it("is enabled, and nothing else changes", async () => {
    const host = await joinedBox();
    const containers = new Map(host.docker.boxes);
    host.system.putUnit("docker", { active: true, atBoot: false });
    const { finding } = await lookAt(docker, host);
    expect(finding).toMatchObject({ state: "drifted", drift: ["the engine does not start at boot"] });
    await expect(docker.verify(host)).rejects.toMatchObject({ exit: "unhealthy" });
    expect((await join(host)).changes).toMatchObject([{ change: START }]);
    expect((await host.system.unit("docker.service"))?.atBoot).toBe(true);
    expect(new Map(host.docker.boxes)).toEqual(containers);
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
  });
});

it("a unit that the removal of an engine masked does not stop its installation", async () => {
  const host = bareBox();
  host.system.putUnit("docker", { loaded: false, masked: true, atBoot: false });
  expect((await lookAt(docker, host)).finding.state).toBe("absent");
});

describe("docker", () => {
  it("installs the distribution's packages, with consent", async () => {
    const { finding, changes } = await lookAt(docker, bareBox());
    expect(finding).toMatchObject({
      state: "absent",
      evidence: { engine: "no /var/run/docker.sock", compose: "not installed", dockerd: "not installed" },
      consent: { flag: "--yes", explicit: false, byDefault: true },
    });
    const packages = ["docker.io", "docker-cli", "iptables", "ca-certificates", "docker-compose"];
    expect(changes).toEqual([
      { kind: "install-packages", summary: `install the packages ${packages.join(", ")}`, packages },
      START,
    ]);
  });

  it("takes Ubuntu's names on Ubuntu", async () => {
    const host = bareBox();
    Object.assign(host.system.facts.os, { id: "ubuntu", versionId: "24.04", prettyName: "Ubuntu 24.04 LTS" });
    const { changes } = await lookAt(docker, host);
    expect(changes[0]?.["packages"]).toEqual([
      "docker.io",
      "iptables",
      "ca-certificates",
      "docker-compose-v2",
    ]);
  });

  it("installs no second engine beside one that is stopped, or that lacks Compose", async () => {
    const stopped = new FakeMaster();
    stopped.stopEngine();
    expect((await lookAt(docker, stopped)).changes).toEqual([START]);
    const lacking = new FakeMaster();
    lacking.docker.compose = null;
    expect((await lookAt(docker, lacking)).changes).toMatchObject([
      { kind: "install-packages", packages: ["docker-compose"] },
      START,
    ]);
  });

  it("gives the engine's own reason when it does not come up", async () => {
    const host = new FakeMaster();
    host.stopEngine();
    host.docker.whyUnreachable = "connection refused";
    await expect(docker.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: "The Docker engine does not answer: connection refused.",
    });
  });
});
