import { describe, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
import { secretNameOf } from "../../../src/settings/rotation.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { after, joined, lose, loseContainers, loseFile, MINTED } from "../../support/lost-settings.ts";
import { boxBefore, LAYOUT, lookAt, prepare, savedValues, stepOn } from "../../support/master-boxes.ts";

describe("a lost secret", () => {
  it("comes back with its old value from the container that was made with it", async () => {
    const old = savedValues(joined);
    for (const key of [...MINTED, "CLUSTER_SECRET"]) {
      const { host, step } = await after((box) => lose(box, key));
      const { changes } = await lookAt(step, host);
      expect(changes[0], key).toMatchObject({ mint: [], recover: [{ key }] });
      for (const change of changes) await step.apply(change, host, () => {});
      expect(savedValues(host)[key], key).toBe(old[key]);
    }
  });

  it("comes back with all others when the whole file is lost", async () => {
    const old = savedValues(joined);
    const { host, step } = await after(loseFile);
    const { changes } = await lookAt(step, host);
    expect(changes[0]?.["mint"]).toEqual([]);
    for (const change of changes) await step.apply(change, host, () => {});
    const saved = savedValues(host);
    for (const key of [...MINTED, "CLUSTER_SECRET", "POSTGRES_DB", "POSTGRES_USER"]) {
      expect(saved[key], key).toBe(old[key]);
    }
  });

  it.each([
    ["JWT_SECRET", NAMES.webui],
    ["SESSION_SECRET", NAMES.webui],
    ["SYSTEM_KEY", NAMES.webui],
    ["JWT_SECRET", NAMES.pinningApi],
    ["SESSION_SECRET", NAMES.pinningApi],
    ["SYSTEM_KEY", NAMES.pinningApi],
    ["POSTGRES_PASSWORD", NAMES.webui],
    ["POSTGRES_PASSWORD", NAMES.pinningApi],
    ["POSTGRES_PASSWORD", NAMES.postgres],
  ])("%s comes back from %s alone", async (key, container) => {
    const { host, step } = await after((box) => {
      lose(box, key);
      loseContainers(box, ...[...box.docker.boxes.keys()].filter((name) => name !== container));
    });
    const { changes } = await lookAt(step, host);
    expect(changes[0]).toMatchObject({ mint: [], recover: [{ key, container }] });
    for (const change of changes) await step.apply(change, host, () => {});
    expect(savedValues(host)[key]).toBe(savedValues(joined)[key]);
  });

  it.each(["JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"])(
    "%s is generated again if an open database has no row that depends on it",
    async (key) => {
      const { host, step } = await after((box) => {
        lose(box, key);
        loseContainers(box, NAMES.webui, NAMES.pinningApi);
      });
      const { finding, changes } = await lookAt(step, host);
      expect(finding.state).toBe("drifted");
      expect(changes[0]).toMatchObject({ mint: [key], recover: [] });
    },
  );

  it.each([
    ["JWT_SECRET", "api_keys"],
    ["JWT_SECRET", "sessions"],
    ["SESSION_SECRET", "sessions"],
    ["ENCRYPTION_KEY", "encrypted_key"],
    ["ENCRYPTION_KEY", "encrypted_email"],
    ["ENCRYPTION_KEY", "encrypted_wallet_address"],
  ])("%s is never generated again while there is a row in %s", async (key, table) => {
    const { host, step } = await after((box) => {
      lose(box, key);
      loseContainers(box, NAMES.webui, NAMES.pinningApi);
      box.rowCounts.set(table, 1);
    });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(`${key} is missing`),
      remedy: expect.stringContaining(`--set-file ${key}=PATH`),
    });
    expect(finding).not.toHaveProperty("claim");
  });

  it("may be given back by the operator", async () => {
    const old = savedValues(joined)["JWT_SECRET"] ?? "";
    const arrange = (box: FakeMaster) => {
      lose(box, "JWT_SECRET");
      loseContainers(box, NAMES.webui, NAMES.pinningApi);
      box.rowCounts.set("api_keys", 1);
    };
    const { host, step } = await after(arrange, { set: { JWT_SECRET: old } });
    expect((await lookAt(step, host)).changes[0]).toMatchObject({ set: ["JWT_SECRET"], mint: [] });
  });

  it("that a container holds in a form no setting may have is not brought back", async () => {
    const { host, step } = await after((box) => {
      lose(box, "SYSTEM_KEY");
      for (const name of [NAMES.pinningApi, NAMES.webui]) {
        const container = box.docker.boxes.get(name);
        if (container === undefined) throw new Error(`no ${name}`);
        const env = { ...container.env, SYSTEM_KEY: "disabled", PINNING_SYSTEM_KEY: "disabled" };
        box.docker.boxes.set(name, { ...container, env });
      }
    });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("SYSTEM_KEY is missing"),
    });
  });
});

describe("a given secret", () => {
  const bound = MINTED.filter((key) => key !== "SYSTEM_KEY" && key !== "CLUSTER_BASIC_AUTH");

  it.each(bound)("%s may not replace the one that the existing data was created with", async (key) => {
    const other = "ab".repeat(32);
    const { host, step } = await after(() => {}, { set: { [key]: other } });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: `The given ${key} differs from what the existing data was created with.`,
      remedy: expect.stringContaining(`fula-node secret rotate ${secretNameOf(key)}`),
    });
    expect(JSON.stringify(finding)).not.toContain(other);
  });

  it("SYSTEM_KEY may take the old one's place: no data is made with it", async () => {
    const { host, step } = await after(() => {}, { set: { SYSTEM_KEY: "another-system-key" } });
    expect((await lookAt(step, host)).changes[0]).toMatchObject({ set: ["SYSTEM_KEY"], mint: [] });
  });

  it("may replace a saved one while no data exists", async () => {
    const host = await boxBefore("images");
    const step = await stepOn(host, "env-file", { set: { JWT_SECRET: "ab".repeat(32) } });
    expect((await lookAt(step, host)).changes[0]).toMatchObject({ set: ["JWT_SECRET"], mint: [] });
  });

  it.each(["disabled", "DISABLED"])("SYSTEM_KEY is refused as %s, wherever it comes from", async (value) => {
    const refused = /SYSTEM_KEY .*must be at least 12 characters, and not the word/;
    await expect(prepare(new FakeMaster(), { set: { SYSTEM_KEY: value } })).rejects.toThrow(refused);
    await expect(prepare(new FakeMaster(), { environment: { SYSTEM_KEY: value } })).rejects.toThrow(refused);
    const host = new FakeMaster();
    host.files.put(LAYOUT.envFile, `SYSTEM_KEY=${value}\n`, 0o600);
    await expect(prepare(host)).rejects.toThrow(refused);
  });
});
