import { describe, expect, it } from "vitest";
import { openText, sealText, signClaims } from "../../../src/accounts/api-key.ts";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { userToken } from "../../../src/commands/accounts/user-key.ts";
import { OperatorError } from "../../../src/errors.ts";
import { parseMemory } from "../../../src/pinset/snapshot/memory.ts";
import { parseRotation, ROTATED, type SecretName } from "../../../src/settings/rotation.ts";
import type { World } from "../../../src/world.ts";
import { Killed } from "../../support/fake-host.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { join, joinedBox, LAYOUT, savedValues } from "../../support/master-boxes.ts";
import {
  type FakeTables,
  findFaults,
  keyIdOf,
  rolePassword,
  rotateOn,
  rotatingBox,
} from "../../support/rotation-box.ts";
import type { KillMoment } from "../../support/write-gate.ts";

const JOINED = await joinedBox();
const OLD = savedValues(JOINED);
const OLD_KEY = OLD["ENCRYPTION_KEY"] ?? "";
const NAMES = Object.keys(ROTATED) as readonly SecretName[];

const seal = (text: string, id: number, key = OLD_KEY) =>
  sealText(text, key, id.toString(16).padStart(24, "0"));
const apiKey = (jti: string, secret: string) =>
  signClaims({ sub: "a", iat: 1, scope: "storage:read storage:write", jti }, secret);

function makeBox(): { readonly host: FakeMaster; readonly tables: FakeTables } {
  const rows = (texts: readonly string[]) =>
    texts.map((text, index) => ({ id: index + 1, sealed: seal(text, index + 1), deleted: false }));
  const keys = ["1", "2"].map((jti) => apiKey(jti, OLD["JWT_SECRET"] ?? ""));
  return rotatingBox(
    JOINED,
    new Map([
      ["webui_users", rows(["a@example.org", "b@example.org"])],
      ["api_keys", rows(keys)],
    ]),
  );
}

const box = makeBox();
const valueOf = (host: FakeMaster, secret: SecretName): string =>
  ROTATED[secret] === null
    ? host.files.textOf(LAYOUT.signingKey)
    : (savedValues(host)[ROTATED[secret]] ?? "");
const refused = (work: Promise<unknown>): Promise<unknown> => work.catch((thrown: unknown) => thrown);

/** Whatever the role, the rows and the containers need is on the disk: in `.env`, in the key's file or in the record. */
function expectNothingLost(host: FakeMaster, tables: FakeTables, story: string): void {
  const record = parseRotation(host.files.tree.get(LAYOUT.rotation)?.text ?? null, LAYOUT.rotation);
  const known = [...Object.values(savedValues(host)), record?.previous ?? "", record?.next ?? ""];
  expect(known, story).toContain(rolePassword(host));
  if (record !== null) expect(host.files.tree.get(LAYOUT.rotation)?.mode, story).toBe(0o600);
  const keys = known.filter((value) => /^[0-9a-f]{64}$/.test(value));
  for (const { sealed } of [...tables.values()].flat())
    expect(
      keys.some((key) => openText(sealed, key) !== null),
      story,
    ).toBe(true);
}

describe.each(NAMES)("secret rotate %s", (secret) => {
  it("changes it everywhere, and a join afterwards has nothing to do", async () => {
    const { host, tables } = makeBox();
    const old = valueOf(host, secret);
    expect(await rotateOn(host, secret)).toMatchObject({ exit: "ok" });
    expect(valueOf(host, secret)).not.toBe(old);
    expect(findFaults(host, tables)).toEqual([]);
    host.revive();
    await rotateOn(host, secret, { dryRun: true });
    expect(host.writes).toEqual([]);
  });

  it("shows no secret: in events, notes, results, labels and the journal", async () => {
    const { host } = makeBox();
    const old = valueOf(host, secret);
    const { printed } = await rotateOn(host, secret);
    const texts = [...printed, host.files.textOf(LAYOUT.journal), ...host.writes];
    for (const { labels } of host.docker.boxes.values()) texts.push(JSON.stringify(labels));
    for (const value of [old, valueOf(host, secret)].map((one) => one.split("\n")[1] ?? one))
      expect(texts.filter((text) => text.includes(value))).toEqual([]);
  });

  it("a dry run changes nothing, and says what the change invalidates", async () => {
    const { host } = makeBox();
    const before = host.snapshot();
    const { exit, data } = await rotateOn(host, secret, { dryRun: true });
    expect(exit).toBe("pending");
    expect(data["consequences"]).not.toEqual([]);
    expect(host.snapshot()).toEqual(before);
  });

  it("killed before, during and after every write: nothing is lost, and one more run finishes it", async () => {
    const straight = makeBox();
    await rotateOn(straight.host, secret);
    const { writes } = straight.host;
    expect(writes.length).toBeGreaterThan(4);
    for (let k = 1; k <= writes.length; k += 1) {
      for (const moment of ["before", "during", "after"] satisfies KillMoment[]) {
        const story = `killed ${moment} write ${k}, ${writes[k - 1]}`;
        const { host, tables } = makeBox();
        host.killAt(k, moment);
        expect(await refused(rotateOn(host, secret)), story).toBeInstanceOf(Killed);
        host.revive();
        expectNothingLost(host, tables, story);
        expect(await rotateOn(host, secret), story).toMatchObject({ exit: "ok" });
        expect(findFaults(host, tables), story).toEqual([]);
      }
    }
  }, 120_000);

  it("killed after any write, and Postgres's container is removed: one more run finishes it", async () => {
    const straight = makeBox();
    await rotateOn(straight.host, secret);
    for (const [k, write] of straight.host.writes.entries()) {
      const { host, tables } = makeBox();
      host.killAt(k + 1, "after");
      expect(await refused(rotateOn(host, secret)), write).toBeInstanceOf(Killed);
      host.revive();
      if (!host.files.tree.has(LAYOUT.rotation)) continue;
      host.docker.boxes.delete("postgres-pinning");
      const dry = await rotateOn(host, secret, { dryRun: true });
      expect(dry.printed.join("\n"), write).toContain("start postgres-pinning");
      expect(await rotateOn(host, secret), write).toMatchObject({ exit: "ok" });
      expect(findFaults(host, tables), write).toEqual([]);
    }
  }, 120_000);
});

it("jwt-secret revokes the keys that are signed with the old secret, and no other", async () => {
  const { host, tables } = makeBox();
  const next = "n".repeat(64);
  const newKey = apiKey("3", next);
  tables.get("api_keys")?.push({ id: 3, sealed: seal(newKey, 3), deleted: false });
  host.files.put("/root/value", `${next}\n`);
  await rotateOn(host, "JWT_SECRET", { valueFile: "/root/value" });
  expect(savedValues(host)["JWT_SECRET"]).toBe(next);
  expect(tables.get("api_keys")?.map(({ deleted }) => deleted)).toEqual([true, true, false]);
});

it("snapshot-key: the old key names the new one before that signs, and the next snapshot has the new key", async () => {
  const { host } = makeBox();
  const old = keyIdOf(host.files.textOf(LAYOUT.signingKey));
  await rotateOn(host, "snapshot-key");
  const memory = parseMemory(host.files.textOf(LAYOUT.snapshotMemory));
  const current = keyIdOf(host.files.textOf(LAYOUT.signingKey));
  expect(memory).toMatchObject({
    last: { keyId: current },
    retiredKeys: [{ keyId: old, successorId: current }],
  });
  const order = host.writes.map((write) => write.split(" ").slice(0, 2).join(" "));
  const at = (path: string) => order.indexOf(`files.writeAtomic ${path}`);
  expect(at(LAYOUT.rotation)).toBeLessThan(at(LAYOUT.snapshotMemory));
  expect(at(LAYOUT.snapshotMemory)).toBeLessThan(at(LAYOUT.signingKey));
  // At once, also if the containers fail to start afterwards: who checks snapshots reads the public key.
  expect(at(LAYOUT.verifyingKey)).toBe(at(LAYOUT.signingKey) + 1);
});

it("keeps the old value as long as a container has it, and says so", async () => {
  const { host } = makeBox();
  const { onStart } = host.docker;
  const old = OLD["SYSTEM_KEY"] ?? "";
  host.docker.onStart = (container) => ({
    ...onStart(container),
    env: { ...container.env, ...(container.name === "fula-pinning-api" ? { SYSTEM_KEY: old } : {}) },
  });
  expect(await refused(rotateOn(host, "system-key"))).toMatchObject({
    exit: "unhealthy",
    what: expect.stringContaining("fula-pinning-api still has the old value"),
    changed: expect.stringContaining("Running again is safe"),
  });
  expect(host.files.tree.has(LAYOUT.rotation)).toBe(true);
});

it("an error in the second half does not say that nothing was changed", async () => {
  const { host } = makeBox();
  const { onSetPassword } = host.postgres;
  host.postgres.onSetPassword = (target, password) => {
    onSetPassword(target, password);
    host.docker.putContainer("fula-pinning-webui", { labels: {} });
  };
  expect(await refused(rotateOn(host, "database-password"))).toMatchObject({
    exit: "foreign",
    changed: expect.stringContaining("the new value is saved and in place"),
  });
});

it("snapshot-key: keeps the old key until a snapshot has the new one", async () => {
  const { host } = makeBox();
  const { onCommand } = host.system;
  host.system.onCommand = () => {};
  expect(await refused(rotateOn(host, "snapshot-key"))).toMatchObject({ exit: "unhealthy" });
  expect(host.files.tree.has(LAYOUT.rotation)).toBe(true);
  host.system.onCommand = onCommand;
  expect(await rotateOn(host, "snapshot-key")).toMatchObject({ exit: "ok" });
});

it("snapshot-key: a snapshot whose run was killed before its record is followed by another one", async () => {
  const { host } = makeBox();
  const { onCommand } = host.system;
  const record = host.files.textOf(LAYOUT.snapshotHeartbeat);
  host.system.onCommand = (argv) => {
    onCommand(argv);
    host.files.put(LAYOUT.snapshotHeartbeat, record);
    host.clock.setBy(1000);
    host.files.put(LAYOUT.snapshotMemory, host.files.textOf(LAYOUT.snapshotMemory));
    throw new Error("killed");
  };
  await expect(rotateOn(host, "snapshot-key")).rejects.toThrow("killed");
  const last = parseMemory(host.files.textOf(LAYOUT.snapshotMemory));
  expect(last).toMatchObject({ last: { keyId: keyIdOf(host.files.textOf(LAYOUT.signingKey)) } });
  // That one fails: the first one is not taken for it.
  host.system.onCommand = () => {
    throw new OperatorError({ exit: "unavailable", what: "The cluster does not answer." });
  };
  expect(await refused(rotateOn(host, "snapshot-key"))).toMatchObject({ exit: "unavailable" });
  expect(host.files.tree.has(LAYOUT.rotation)).toBe(true);
  let runs = 0;
  host.system.onCommand = (argv) => {
    runs += 1;
    onCommand(argv);
  };
  expect(await rotateOn(host, "snapshot-key")).toMatchObject({ exit: "ok" });
  expect(runs).toBe(1);
  expect(host.files.textOf(LAYOUT.snapshotHeartbeat)).not.toBe(record);
});

it("snapshot-key: a key that was replaced before is refused, the present one changes nothing", async () => {
  const { host } = makeBox();
  const first = host.files.textOf(LAYOUT.signingKey);
  await rotateOn(host, "snapshot-key");
  host.revive();
  host.files.put("/root/value", first);
  const again = await refused(rotateOn(host, "snapshot-key", { valueFile: "/root/value" }));
  expect(again).toMatchObject({ exit: "settings", what: expect.stringContaining("was replaced before") });
  host.files.put("/root/value", host.files.textOf(LAYOUT.signingKey));
  expect(await rotateOn(host, "snapshot-key", { valueFile: "/root/value" })).toMatchObject({ exit: "ok" });
  expect(host.writes).toEqual([]);
});

it("database-password of a database on another machine: the role changes it there, and the plan names the other masters", async () => {
  const password = "p4ssword-x";
  const joined = new FakeMaster();
  joined.databasesElsewhere.set("db.example", {
    user: "pinning_user",
    password,
    database: "pinning_service",
  });
  await join(joined, { set: { POSTGRES_HOST: "db.example", POSTGRES_PASSWORD: password } });
  const { host } = rotatingBox(joined, new Map());
  const { data } = await rotateOn(host, "database-password");
  expect(JSON.stringify(data["consequences"])).toContain("Other masters that use this database");
  const renewed = savedValues(host)["POSTGRES_PASSWORD"];
  expect(renewed).not.toBe(password);
  expect(host.databasesElsewhere.get("db.example")?.password).toBe(renewed);
  expect(host.docker.boxes.get("fula-pinning-webui")?.env["POSTGRES_PASSWORD"]).toBe(renewed);
});

describe("encryption-key", () => {
  it("stops what writes with the old key before it encrypts", async () => {
    const { host } = makeBox();
    await rotateOn(host, "encryption-key");
    const stopped = host.writes.indexOf("docker.removeContainer fula-pinning-webui");
    expect(stopped).toBeGreaterThan(0);
    expect(stopped).toBeLessThan(host.writes.indexOf("postgres UPDATE webui_users"));
  });

  it("halts before anything if neither key opens a value, and names the row", async () => {
    const { host, tables } = makeBox();
    tables.get("webui_users")?.push({ id: 9, sealed: seal("x", 9, "f".repeat(64)), deleted: false });
    const before = host.snapshot();
    const thrown = await refused(rotateOn(host, "encryption-key"));
    expect(thrown).toMatchObject({
      exit: "integrity",
      problems: [{ what: "webui_users 9: encrypted_email" }],
    });
    expect(host.snapshot()).toEqual(before);
    expect(host.writes).toEqual([]);
  });

  it("goes on only if Docker answers: what writes with the old key must be seen", async () => {
    const { host } = makeBox();
    host.killAt(2, "after");
    await refused(rotateOn(host, "encryption-key"));
    host.revive();
    const { engine } = host.docker;
    host.docker.engine = null;
    expect(await refused(rotateOn(host, "encryption-key"))).toMatchObject({ exit: "unavailable" });
    host.docker.engine = engine;
    host.revive();
    expect(await rotateOn(host, "encryption-key")).toMatchObject({ exit: "ok" });
  });

  it("halts if a container that fula-node did not create may write with it", async () => {
    const { host } = makeBox();
    host.docker.putContainer("own-webui", { env: { ENCRYPTION_KEY: OLD_KEY } });
    expect(await refused(rotateOn(host, "encryption-key"))).toMatchObject({ exit: "foreign" });
    expect(host.writes).toEqual([]);
  });

  it("also encrypts what was written with the old key meanwhile", async () => {
    const { host, tables } = makeBox();
    const { onStart } = host.docker;
    host.docker.onStart = (container) => {
      if (container.name === "fula-pinning-webui")
        tables.get("api_keys")?.push({ id: 7, sealed: seal("late", 7), deleted: false });
      return onStart(container);
    };
    await rotateOn(host, "encryption-key");
    expect(findFaults(host, tables)).toEqual([]);
  });
});

describe("what is refused", () => {
  const interrupted = async (): Promise<FakeMaster> => {
    const { host } = makeBox();
    host.killAt(4, "after");
    await refused(rotateOn(host, "database-password"));
    host.revive();
    expect(host.files.tree.has(LAYOUT.rotation)).toBe(true);
    return host;
  };

  it("another name", async () => {
    expect(await refused(rotateOn(box.host, "passwort"))).toMatchObject({ exit: "usage" });
  });

  it("a run without a terminal and without --yes", async () => {
    const { host } = makeBox();
    expect(await refused(rotateOn(host, "system-key", { yes: false }))).toMatchObject({ exit: "preflight" });
    expect(host.writes).toEqual([]);
  });

  it("a node that join-as-master would repair", async () => {
    const { host } = makeBox();
    host.docker.boxes.delete("fula-pinning-webui");
    const thrown = await refused(rotateOn(host, "session-secret"));
    expect(thrown).toMatchObject({ exit: "preflight", problems: [{ subject: "services" }] });
    expect(host.writes).toEqual([]);
  });

  it.each([
    ["a value that breaks the rule", "encryption-key", "abc", "settings"],
    [
      "a password with letters that programs prepare differently",
      "database-password",
      "pässword-1",
      "settings",
    ],
    ["a key that is none", "snapshot-key", "-----BEGIN NOTHING-----", "settings"],
    ["an empty file", "system-key", "\n", "usage"],
  ])("%s", async (_name, secret, text, exit) => {
    const { host } = makeBox();
    host.files.put("/root/value", text);
    const thrown = await refused(rotateOn(host, secret, { valueFile: "/root/value" }));
    expect(thrown).toBeInstanceOf(OperatorError);
    expect(thrown).toMatchObject({ exit });
    if (text.trim() !== "") expect(JSON.stringify(thrown)).not.toContain(text);
    expect(host.writes).toEqual([]);
  });

  it("the value that it already has: nothing to do", async () => {
    const { host } = makeBox();
    host.files.put("/root/value", `${OLD["SYSTEM_KEY"]}\n`);
    expect(await rotateOn(host, "system-key", { valueFile: "/root/value" })).toMatchObject({ exit: "ok" });
    expect(host.writes).toEqual([]);
  });

  it("another version than the installed one, to finish a change: that would be an upgrade", async () => {
    const host = await interrupted();
    host.files.putLink("0.0.9", LAYOUT.cliCurrent);
    const before = host.snapshot();
    expect(await refused(rotateOn(host, "database-password"))).toMatchObject({
      exit: "preflight",
      remedy: `Finish it first: node ${LAYOUT.cliCurrent}/bin/fula-node.js secret rotate database-password`,
    });
    expect(host.snapshot()).toEqual(before);
  });

  it("a second secret, another value and a join, while a change is not finished", async () => {
    const host = await interrupted();
    const before = host.snapshot();
    expect(await refused(rotateOn(host, "system-key"))).toMatchObject({
      exit: "preflight",
      remedy: "Finish it: fula-node secret rotate database-password",
    });
    host.files.put("/root/value", "another-password");
    expect(await refused(rotateOn(host, "database-password", { valueFile: "/root/value" }))).toMatchObject({
      exit: "usage",
    });
    const world = { host, takeLock: async () => ({ release: async () => {} }) } as unknown as World;
    const flags = {
      dryRun: false,
      yes: true,
      set: [],
      adopt: [],
      replace: [],
      ignore: [],
      provisionWriter: false,
    };
    expect(await refused(joinAsMaster(flags, world))).toMatchObject({ exit: "preflight" });
    const user = { ...world, environment: {}, hostname: "box", version: "0", reporter: { listen: () => {} } };
    expect(await refused(userToken({ email: "a@example.org" }, user as unknown as World))).toMatchObject({
      exit: "preflight",
      what: "The change of the database-password is not finished.",
    });
    host.files.tree.delete("/root/value");
    expect(host.snapshot()).toEqual(before);
  });

  it("while an installed Docker is silent: who uses the secret can't be seen, and nothing is missing", async () => {
    const { host } = makeBox();
    host.stopEngine();
    expect(await refused(rotateOn(host, "jwt-secret"))).toMatchObject({
      exit: "unavailable",
      what: expect.stringMatching(/^Docker is installed but does not answer/),
      remedy: expect.stringContaining("systemctl start docker"),
    });
  });

  it("a third value in .env, while a change is not finished", async () => {
    const host = await interrupted();
    const text = host.files.textOf(LAYOUT.envFile);
    host.files.put(LAYOUT.envFile, text.replace(/^POSTGRES_PASSWORD=.*$/m, "POSTGRES_PASSWORD=third-value"));
    expect(await refused(rotateOn(host, "database-password"))).toMatchObject({ exit: "drift" });
  });

  it("a damaged record", async () => {
    const { host } = makeBox();
    host.files.put(LAYOUT.rotation, "{");
    expect(await refused(rotateOn(host, "system-key"))).toMatchObject({ exit: "integrity" });
  });
});
