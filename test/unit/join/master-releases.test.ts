import { parse } from "dotenv";
import { describe, expect, it } from "vitest";
import type { RunEvent } from "../../../src/engine/events.ts";
import { FORMER_DEFAULTS } from "../../../src/settings/former-defaults.ts";
import { readValues } from "../../../src/settings/context.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import type { Settings } from "../../../src/settings/settings.ts";
import { STORAGE_SETTINGS } from "../../../src/settings/storage.ts";
import { Killed } from "../../support/fake-host.ts";
import type { FakeMaster } from "../../support/fake-master.ts";
import { endOf, join, joinedBox, LAYOUT, lookAt, prepare, savedValues } from "../../support/master-boxes.ts";
import { storageBoxBefore, storageStepOn } from "../../support/storage-fake.ts";

const NEXT = "0.3.0";
const RELEASED = MASTER_SETTINGS.filter(
  ({ key, byDefault, bound }) =>
    byDefault !== undefined && bound !== true && Object.hasOwn(FORMER_DEFAULTS, key),
).map(({ key }) => key);
const OLD_BASE = "node:20-trixie-slim";

/** A master as 0.1.0 left it: every default is saved. */
async function boxOf010(): Promise<FakeMaster> {
  const host = await joinedBox();
  const lines = RELEASED.map(
    (key) => `${key}=${key === "NODE_BASE_IMAGE" ? OLD_BASE : FORMER_DEFAULTS[key]?.[0]}\n`,
  );
  host.files.put(LAYOUT.envFile, `${host.files.textOf(LAYOUT.envFile)}MINE='a b'\n${lines.join("")}`, 0o600);
  return host;
}

const made = await boxOf010();

describe("a master of 0.1.0 under a version that saves no defaults", () => {
  it("has each default released once: the plan lists them, the lines become comments, the rest stays", async () => {
    const host = made.copy();
    const events: RunEvent[] = [];
    const before = host.files.textOf(LAYOUT.envFile);
    const containers = new Map(host.docker.boxes);
    await join(host, { version: NEXT, listen: (event) => events.push(event) });
    const planned = events.find((event) => event.type === "planned");
    const settings = planned?.items.find(({ step }) => step === "env-file")?.settings ?? [];
    expect(settings.map((line) => line.split(" ")[0])).toEqual(RELEASED);
    expect(settings).toContain("KEEP 28 -> 28 (default released)");
    expect(settings).toContain(`NODE_BASE_IMAGE ${OLD_BASE} -> node:26-trixie-slim (default released)`);
    const commented = before
      .replace("FULA_NODE_VERSION=0.1.0", `FULA_NODE_VERSION=${NEXT}`)
      .replaceAll(new RegExp(`^(${RELEASED.join("|")})=`, "gm"), "# $1=");
    expect(host.files.textOf(LAYOUT.envFile)).toBe(commented);
    // No value that they work with is another one.
    for (const name of ["postgres-pinning", "ipfs_host", "ipfs_cluster"])
      expect(host.docker.boxes.get(name)?.id, name).toBe(containers.get(name)?.id);
    expect((await join(host, { version: NEXT })).changes).toEqual([]);
  });

  it("reaches the same end when it is killed at any write", { timeout: 600_000 }, async () => {
    const straight = made.copy();
    await join(straight, { version: NEXT });
    const end = endOf(straight);
    for (let k = 1; k <= straight.writes.length; k += 1) {
      for (const moment of ["before", "during", "after"] as const) {
        const host = made.copy();
        host.killAt(k, moment);
        expect(await join(host, { version: NEXT }).catch((error: unknown) => error)).toBeInstanceOf(Killed);
        host.revive();
        await join(host, { version: NEXT });
        expect(endOf(host), `killed ${moment} write ${k}`).toEqual(end);
      }
    }
  });

  it("keeps for ever what the operator gives to this version, also if it is the default", async () => {
    const host = made.copy();
    await join(host, { version: NEXT, set: { KEEP: "28" } });
    expect(savedValues(host)["KEEP"]).toBe("28");
    await join(host, { version: NEXT, set: { REPL_MIN: "2" } });
    for (const version of [NEXT, "0.4.0", "1.0.0"]) {
      await join(host, { version });
      expect(savedValues(host)).toMatchObject({ KEEP: "28", REPL_MIN: "2", MINE: "a b" });
    }
  });
});

describe("variables of the shell", () => {
  it("do not overrule .env, in a join", async () => {
    const host = await joinedBox({ set: { KEEP: "9" } });
    const environment = { KEEP: "1", POSTGRES_HOST: "db.example", POSTGRES_DB: "other" };
    expect((await join(host, { environment })).changes).toEqual([]);
    expect(savedValues(host)).toMatchObject({ KEEP: "9", POSTGRES_HOST: "127.0.0.1" });
  });

  it("are used and saved where .env has no value, and the plan names their source", async () => {
    const host = await joinedBox();
    const events: RunEvent[] = [];
    await join(host, { environment: { REPL_MIN: "3" }, listen: (event) => events.push(event) });
    const planned = events.find((event) => event.type === "planned");
    expect(planned?.items.find(({ step }) => step === "env-file")?.settings).toEqual([
      "REPL_MIN (none) -> 3 (environment)",
    ]);
    expect(savedValues(host)["REPL_MIN"]).toBe("3");
  });
});

describe("what Compose gets", () => {
  it("is what the documents name: no other key of .env, and not the shell's", async () => {
    const host = await joinedBox();
    const others = "COMPOSE_PROFILES=updater\nDOCKER_HOST=tcp://192.0.2.1:1\nLD_PRELOAD=/x.so\nKEEP=7\n";
    const passedOn = "FULA_PIN_SERVICE_SECRET=handed-on\n";
    host.files.put(LAYOUT.envFile, `${host.files.textOf(LAYOUT.envFile)}${others}${passedOn}`, 0o600);
    const given: Readonly<Record<string, string>>[] = [];
    const composeUp = host.docker.composeUp.bind(host.docker);
    const composeHashes = host.docker.composeHashes.bind(host.docker);
    host.docker.composeUp = (project, ...rest) => {
      given.push(project.environment);
      return composeUp(project, ...rest);
    };
    host.docker.composeHashes = (document) => {
      given.push(document.environment);
      return composeHashes(document);
    };
    await join(host, { environment: { COMPOSE_FILE: "/other.yml" } });
    expect(given.length).toBeGreaterThan(2);
    for (const environment of given)
      for (const key of ["COMPOSE_PROFILES", "COMPOSE_FILE", "DOCKER_HOST", "LD_PRELOAD", "KEEP"])
        expect(Object.keys(environment)).not.toContain(key);
    expect(given.some((environment) => environment["FULA_PIN_SERVICE_SECRET"] === "handed-on")).toBe(true);
  });
});

describe("the values that steps read", () => {
  const valuesWith = async (settings: Settings, text: string) => {
    const host = made.copy();
    const { context } = await prepare(host);
    host.files.put(LAYOUT.envFile, text, 0o600);
    return readValues(host, { ...context, settings });
  };

  it("are the new defaults where the run releases a value, before the file is written", async () => {
    const settings: Settings = new Map([["KEEP", { value: "30", origin: "default", released: "28" }]]);
    expect((await valuesWith(settings, "KEEP=28\n"))("KEEP")).toBe("30");
    expect((await valuesWith(settings, "KEEP=29\n"))("KEEP")).toBe("29");
  });

  it("are the flag's, else those of .env, else those of the environment", async () => {
    const byFlag: Settings = new Map([["KEEP", { value: "1", origin: "flag" }]]);
    const inherited: Settings = new Map([["KEEP", { value: "2", origin: "environment" }]]);
    expect((await valuesWith(byFlag, "KEEP=3\n"))("KEEP")).toBe("1");
    expect((await valuesWith(inherited, "KEEP=3\n"))("KEEP")).toBe("3");
    expect((await valuesWith(inherited, ""))("KEEP")).toBe("2");
  });

  it("are an error where .env can't be parsed, and never those of an empty file", async () => {
    await expect(valuesWith(new Map(), "KEEP=3\nno line\n")).rejects.toMatchObject({ exit: "settings" });
  });
});

describe("a storage node of 0.1.0 under a version that saves no defaults", () => {
  it("has its defaults released, and its containers do not bring them back", async () => {
    const host = await storageBoxBefore(null);
    const envFile = "/opt/fula-storage/.env";
    const keys = STORAGE_SETTINGS.filter(
      ({ key, byDefault, bound }) =>
        byDefault !== undefined && bound !== true && Object.hasOwn(FORMER_DEFAULTS, key),
    ).map(({ key }) => key);
    const lines = keys.map((key) => `${key}=${FORMER_DEFAULTS[key]?.at(-1)}\n`).join("");
    host.files.put(envFile, `${host.files.textOf(envFile)}${lines}`, 0o600);
    const looked = async () => {
      const step = await storageStepOn(host, "env-file", { version: NEXT });
      return { step, ...(await lookAt(step, host)) };
    };
    const { step, finding, changes } = await looked();
    expect(finding).toMatchObject({
      settings: keys.map((key) => expect.stringMatching(`^${key} `) as string),
    });
    for (const change of changes) await step.apply(change, host, () => {});
    await step.verify(host);
    expect(Object.keys(parse(host.files.textOf(envFile))).filter((key) => keys.includes(key))).toEqual([]);
    expect((await looked()).changes).toEqual([]);
  });
});
