import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { prepare } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const CA = "/etc/ssl/database-ca.pem";
const PEM = "-----BEGIN CERTIFICATE-----\n";

describe("POSTGRES_SSL_CA", () => {
  async function refusal(arrange: (host: FakeStorage) => void): Promise<unknown> {
    const host = new FakeStorage();
    arrange(host);
    const flags = {
      yes: false,
      adopt: [],
      replace: [],
      ignore: ["clock"],
      provisionWriter: true,
      dryRun: true,
    };
    const set = ["CLUSTERNAME=pool", "POSTGRES_SSL=verify-full", `POSTGRES_SSL_CA=${CA}`];
    const reporter = createLines({ out: () => {}, err: () => {} }, () => 0);
    const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
    return joinAsMaster(
      { ...flags, set },
      worldOf(host, { pid: 7, hostname: "box", takeLock, reporter }),
    ).then(
      () => null,
      (thrown: unknown) => thrown,
    );
  }

  it.each<[string, (host: FakeStorage) => void, RegExp]>([
    ["is missing", () => {}, /which does not exist/],
    ["can't be read by the services", (host) => host.files.put(CA, PEM, 0o600), /its mode is 600/],
    ["is a directory", (host) => host.files.put(`${CA}/x`, PEM, 0o644), /which is not a file/],
  ])("that %s is refused before anything is written", async (_, arrange, what) => {
    expect(await refusal(arrange)).toMatchObject({
      problems: [{ subject: "POSTGRES_SSL_CA", what: expect.stringMatching(what) }],
      changed: undefined,
    });
  });

  it("that everybody can read is taken", async () => {
    expect(await refusal((host) => host.files.put(CA, PEM, 0o644))).toBeNull();
  });
});

describe("the gateway, which can't encrypt its connection to Postgres", () => {
  const joinWith = async (value: string, saved: boolean): Promise<readonly string[]> => {
    const host = new FakeStorage();
    host.docker.putImage("fula-gateway:latest");
    if (saved) host.files.put("/opt/fula-master/.env", `POSTGRES_SSL=${value}\n`, 0o600);
    const lines: string[] = [];
    const reporter = createLines({ out: () => {}, err: (line) => void lines.push(line) }, () => 0);
    const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
    const set = ["CLUSTERNAME=pool", ...(saved ? [] : [`POSTGRES_SSL=${value}`])];
    const flags = {
      yes: false,
      adopt: [],
      replace: [],
      ignore: ["clock"],
      provisionWriter: true,
      dryRun: true,
    };
    await joinAsMaster({ ...flags, set }, worldOf(host, { pid: 7, hostname: "box", takeLock, reporter }));
    expect(host.writes).toEqual([]);
    return lines;
  };

  it.each(["require", "verify-full", "true"])("is refused with POSTGRES_SSL=%s", async (value) => {
    await expect(joinWith(value, false)).rejects.toMatchObject({
      exit: "settings",
      problems: [
        {
          subject: "POSTGRES_SSL",
          what: expect.stringContaining("fula-gateway:latest"),
          remedy: expect.stringContaining("docker image rm"),
        },
      ],
    });
  });

  it("keeps running on a node of 0.1.0 that has POSTGRES_SSL=true, with a warning", async () => {
    expect((await joinWith("true", true)).join(" ").replaceAll(/\s+/g, " ")).toContain(
      "the gateway (fula-gateway:latest) can't encrypt its connection to Postgres",
    );
    await expect(joinWith("require", true)).rejects.toMatchObject({ exit: "settings" });
  });

  it("is no matter without encryption", async () => {
    expect((await joinWith("disable", false)).join(" ")).not.toContain("can't encrypt");
  });
});

describe("the compose file of a master", () => {
  const composeOf = async (set: Record<string, string>): Promise<string> => {
    const { steps } = await prepare(new FakeMaster(), { set });
    const host = new FakeMaster();
    const step = steps.find(({ id }) => id === "compose-file");
    const change = { kind: "write-compose", summary: "", path: "", keep: null };
    await step?.apply(change, host, () => {});
    return host.files.textOf("/opt/fula-master/docker-compose.yml");
  };

  it.each(["true", "false", "disable"])("passes POSTGRES_SSL=%s on as 0.1.0 did", async (value) => {
    const text = await composeOf({ POSTGRES_SSL: value });
    expect(text).toContain("POSTGRES_SSL: ${POSTGRES_SSL:-false}");
    expect(text).not.toContain("POSTGRES_SSL_MODE");
  });

  it("has the mode and the CA for ours", async () => {
    const text = await composeOf({ POSTGRES_SSL: "verify-full", POSTGRES_SSL_CA: CA });
    expect(text).toContain("POSTGRES_SSL_MODE: verify-full");
    expect(text).toContain(`source: ${CA}`);
    expect(await composeOf({ POSTGRES_SSL: "require" })).toContain("POSTGRES_SSL_MODE: require");
  });
});
