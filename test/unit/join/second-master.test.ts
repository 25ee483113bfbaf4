import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { checkSharedDatabase } from "../../../src/join/second-master.ts";
import type { MasterRow } from "../../../src/database/masters.ts";
import type { Setting } from "../../../src/settings/settings.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const ADDRESS = "10.0.0.7";
const OWN = "a".repeat(32);
const OTHER = "b".repeat(32);

describe("POSTGRES_BIND", () => {
  async function refusal(
    arrange: (host: FakeStorage) => void,
    more: { readonly set?: readonly string[]; readonly adopt?: readonly string[] } = {},
  ): Promise<unknown> {
    const host = new FakeStorage();
    host.system.facts.addresses = ["127.0.0.1", ADDRESS];
    arrange(host);
    const flags = { yes: false, replace: [], ignore: ["clock"], provisionWriter: true, dryRun: true };
    const set = ["CLUSTERNAME=pool", `POSTGRES_BIND=${ADDRESS}`, ...(more.set ?? [])];
    const reporter = createLines({ out: () => {}, err: () => {} }, () => 0);
    const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
    const world = worldOf(host, { pid: 7, hostname: "box", takeLock, reporter });
    const thrown: unknown = await joinAsMaster({ ...flags, set, adopt: more.adopt ?? [] }, world).then(
      () => null,
      (error: unknown) => error,
    );
    expect(host.writes).toEqual([]);
    return thrown;
  }

  it("of this machine is taken", async () => {
    expect(await refusal(() => {})).toBeNull();
  });

  it.each<[string, (host: FakeStorage) => void, Parameters<typeof refusal>[1], RegExp]>([
    [
      "of another machine",
      (host) => void (host.system.facts.addresses = ["127.0.0.1", "10.0.0.8"]),
      {},
      /not an address of this machine/,
    ],
    [
      "beside a database elsewhere",
      (host) =>
        host.databasesElsewhere.set("db.example.org", {
          user: "pinning_user",
          password: "only-for-tests",
          database: "pinning_service",
        }),
      { set: ["POSTGRES_HOST=db.example.org", "POSTGRES_PASSWORD=only-for-tests"] },
      /there is no Postgres here/,
    ],
    [
      "beside an adopted service, which does not encrypt",
      (host) => host.files.put("/opt/fula-master/adopted/webui.json", "{}", 0o600),
      {},
      /webui was not created by fula-node and stays as created: without TLS/,
    ],
    [
      "beside the gateway, which can't encrypt",
      (host) => host.docker.putImage("fula-gateway:latest"),
      {},
      /Postgres lets nobody in without TLS, but the gateway/,
    ],
  ])("%s is refused", async (_, arrange, more, what) => {
    expect(await refusal(arrange, more)).toMatchObject({
      problems: expect.arrayContaining([
        expect.objectContaining({ subject: "POSTGRES_BIND", what: expect.stringMatching(what) }),
      ]) as unknown,
    });
  });
});

describe("a database of other masters", () => {
  const host = new FakeStorage();
  host.databasesElsewhere.set("db.example.org", {
    user: "pinning_user",
    password: "only-for-tests",
    database: "pinning_service",
  });
  const row = (changes: Partial<MasterRow>): MasterRow => ({
    pool: "pool",
    id: OTHER,
    name: "berlin",
    flags: [],
    machine: "m",
    version: "1",
    heartbeatAt: "2026-01-01T00:00:00Z",
    heartbeatAgeMs: 0,
    peer: null,
    ...changes,
  });
  const check = (
    rows: readonly MasterRow[],
    { pool = "pool", id, saved }: { pool?: string; id?: string; saved?: string } = {},
  ) => {
    const box = host.copy();
    for (const [name, role] of host.databasesElsewhere) box.databasesElsewhere.set(name, role);
    box.migrations.readMasters = () => Promise.resolve(rows);
    const flag = (value: string): Setting => ({ value, origin: "flag" });
    const settings = new Map([
      ["CLUSTERNAME", flag(pool)],
      ["POSTGRES_HOST", flag("db.example.org")],
      ["POSTGRES_PASSWORD", flag("only-for-tests")],
      ...(id === undefined ? [] : ([["MASTER_ID", flag(id)]] as const)),
    ]);
    return checkSharedDatabase(box, {
      settings,
      invite: null,
      saved: (key) => (key === "MASTER_ID" ? saved : undefined),
    });
  };

  it("of the same pool is taken", async () => {
    await check([]);
    await check([row({})]);
  });

  it("of another pool is refused", async () => {
    await expect(check([row({ pool: "other" })])).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringMatching(/belongs to pool other \(master berlin\), not to pool/),
    });
  });

  it("of another pool is no news to a master that is recorded there, and rows of 0.1.0 have no pool", async () => {
    await check([row({ pool: "other" }), row({ id: OWN })], { id: OWN, saved: OWN });
    await check([row({ pool: "", machine: null })]);
  });

  it("refuses the identity of a master that runs, but not one's own, and not that of one that is silent", async () => {
    await expect(check([row({ id: OWN })], { id: OWN })).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("Another machine is this master"),
    });
    await check([row({ id: OWN })], { id: OWN, saved: OWN });
    await check([row({ id: OWN, heartbeatAgeMs: 11 * 60_000 })], { id: OWN });
  });
});
