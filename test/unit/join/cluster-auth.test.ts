import { describe, expect, it } from "vitest";
import { findAuthConflicts } from "../../../src/join/prepare-master.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import type { Settings } from "../../../src/settings/settings.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { putTheirs } from "../../support/foreign-writer.ts";
import { join, joinedBox, prepare, savedValues } from "../../support/master-boxes.ts";

const GATEWAY = "fula-gateway:latest";
const AUTH = /^fula-node:[\w-]{40}$/;

describe("the password of ipfs-cluster", () => {
  it("is generated for a writer that is made here, and the containers that need it get it", async () => {
    const host = await joinedBox();
    const auth = savedValues(host)["CLUSTER_BASIC_AUTH"];
    expect(auth).toMatch(AUTH);
    const known = (name: string, key: string) => host.docker.boxes.get(name)?.env[key];
    expect(known(NAMES.cluster, "CLUSTER_CREDENTIALS")).toBe(auth);
    for (const name of [NAMES.pinningApi, NAMES.webui]) expect(known(name, "CLUSTER_BASIC_AUTH")).toBe(auth);
  });

  it("is generated for a writer that an older version made: the plan lists it, and a second run does nothing", async () => {
    const host = await joinedBox();
    const env = host.files.textOf("/opt/fula-master/.env");
    host.files.put("/opt/fula-master/.env", env.replace(/^CLUSTER_BASIC_AUTH=.*\n/m, ""), 0o600);
    for (const name of [NAMES.cluster, NAMES.pinningApi, NAMES.webui]) {
      const container = host.docker.boxes.get(name);
      if (container === undefined) throw new Error(`no ${name}`);
      const { CLUSTER_BASIC_AUTH: _auth, CLUSTER_CREDENTIALS: _own, ...rest } = container.env;
      const labels = { ...container.labels, "com.docker.compose.config-hash": "older" };
      host.docker.boxes.set(name, { ...container, env: rest, labels });
    }
    const outcome = await join(host);
    expect(outcome.changes.map(({ step }) => step)).toEqual(["env-file", "writer", "services"]);
    expect(savedValues(host)["CLUSTER_BASIC_AUTH"]).toMatch(AUTH);
    expect((await join(host)).changes).toEqual([]);
  });

  it.each([[true], [false]])(
    "is not generated for an adopted writer (--provision-writer: %s)",
    async (provisionWriter) => {
      const host = new FakeMaster();
      putTheirs(host, {});
      await join(host, { provisionWriter });
      expect(savedValues(host)["CLUSTER_BASIC_AUTH"]).toBeUndefined();
    },
  );

  it("is not generated, and not read back from a container, while the gateway's image is here", async () => {
    const host = new FakeMaster();
    host.docker.putImage(GATEWAY);
    const { context } = await prepare(host);
    expect(context.specs.find(({ key }) => key === "CLUSTER_BASIC_AUTH")).not.toHaveProperty("generated");
    expect(context.recoverable.map(({ key }) => key)).not.toContain("CLUSTER_BASIC_AUTH");
    const { context: other } = await prepare(new FakeMaster());
    expect(other.recoverable.map(({ key }) => key)).toContain("CLUSTER_BASIC_AUTH");
  });

  it("and the gateway's image on the same machine are refused by name, for a writer of ours", async () => {
    const host = new FakeMaster();
    const settings: Settings = new Map([
      ["CLUSTER_BASIC_AUTH", { value: "me:words", origin: "saved" }],
      ["GATEWAY_IMAGE", { value: GATEWAY, origin: "default" }],
    ]);
    expect(await findAuthConflicts(host, { settings, isOurWriter: true })).toEqual([]);
    host.docker.putImage(GATEWAY);
    const problems = await findAuthConflicts(host, { settings, isOurWriter: true });
    expect(problems).toMatchObject([{ subject: "GATEWAY_IMAGE", what: expect.stringContaining(GATEWAY) }]);
    expect(JSON.stringify(problems)).not.toContain("words");
    expect(await findAuthConflicts(host, { settings, isOurWriter: false })).toEqual([]);
  });
});
