import { describe, expect, it } from "vitest";
import { dockerPackages } from "../../../src/docker/versions.ts";

const packagesOf = (id: string, versionId: string) =>
  dockerPackages({ id, versionId, prettyName: `${id} ${versionId}` });

describe("dockerPackages", () => {
  it.each([
    ["debian", "13"],
    ["debian", "14"],
    ["debian", ""],
  ])("knows those of %s %s", (id, version) => {
    expect(packagesOf(id, version)).toEqual({
      kind: "packages",
      engine: ["docker.io", "docker-cli", "iptables", "ca-certificates"],
      compose: ["docker-compose"],
    });
  });

  it.each(["22.04", "24.04", "25.10"])("knows those of Ubuntu %s", (version) => {
    expect(packagesOf("ubuntu", version)).toEqual({
      kind: "packages",
      engine: ["docker.io", "iptables", "ca-certificates"],
      compose: ["docker-compose-v2"],
    });
  });

  it.each([
    ["debian", "12"],
    ["debian", "9"],
    ["ubuntu", "20.04"],
    ["ubuntu", ""],
    ["fedora", "43"],
    ["", ""],
  ])("has none for %s %s, and a way out", (id, version) => {
    const answer = packagesOf(id, version);
    expect(answer.kind).toBe("none");
    if (answer.kind === "none") {
      expect(answer.why).toContain(`${id} ${version}`);
      expect(answer.remedy).toMatch(/Debian 13/);
    }
  });
});
