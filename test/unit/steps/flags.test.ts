import { describe, expect, it } from "vitest";
import type { MasterRow } from "../../../src/database/masters.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { FakeMaster, VERSION } from "../../support/fake-master.ts";
import { look, refuseForeign } from "../../../src/engine/plan.ts";
import { boxBefore, join, lookAt, savedValues, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { makeIdentityFile } from "../../support/node-identity.ts";
import { stepLaws } from "../../support/step-laws.ts";

const before = await boxBefore("flags");
const step = await stepOn(before, "flags");
const ID = savedValues(before)["MASTER_ID"] ?? "";

function change(host: FakeHost, fields: Partial<MasterRow>): void {
  const row = host.migrations.masters.get(ID);
  if (row === undefined) throw new Error("not recorded");
  host.migrations.masters.set(ID, { ...row, ...fields });
}

function putOther(host: FakeHost, fields: Partial<MasterRow> = {}): MasterRow {
  const other: MasterRow = {
    pool: "pool",
    id: "0b".repeat(16),
    name: "box",
    flags: ["FULA_BUCKET_ROOT_CAS"],
    machine: "another",
    peer: null,
    version: VERSION,
    heartbeatAt: "2026-01-01T00:00:00Z",
    heartbeatAgeMs: 0,
    ...fields,
  };
  host.migrations.masters.set(other.id, other);
  return other;
}

/** The peer id of the box's ipfs-cluster. */
async function ownPeer(host: FakeHost): Promise<string> {
  const { finding } = await lookAt(step, host);
  return finding.evidence["peer"] ?? "";
}

stepLaws("flags", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "another flag is recorded than is in use",
      arrange: (host) => change(host, { flags: ["FULA_BUCKET_ROOT_CAS"] }),
      names: /recorded: FULA_BUCKET_ROOT_CAS; in use: BILLING_IDEMPOTENCY/,
    },
    {
      name: "the master had another name",
      arrange: (host) => change(host, { name: "older" }),
      names: /recorded as older/,
    },
    {
      name: "an older version recorded it",
      arrange: (host) => change(host, { version: "0.0.9" }),
      names: /recorded by fula-node 0\.0\.9/,
    },
    {
      name: "an older version recorded no cluster peer",
      arrange: (host) => change(host, { peer: null }),
      names: /its cluster peer is not recorded/,
    },
    {
      name: "its cluster peer trusts others than are recorded",
      arrange: (host) => {
        const peer = host.migrations.masters.get(ID)?.peer ?? null;
        change(host, { peer: peer === null ? null : { ...peer, trusts: ["12D3KooWother"] } });
      },
      names: /recorded as trusting 12D3KooWother; it trusts nobody/,
    },
    {
      name: "the machine was cloned, with its .env",
      arrange: (host) => change(host, { machine: "another" }),
      names: /recorded by another machine, 2026-01-01T00:00:00Z\. If this one was cloned/,
    },
  ],
  foreign: [],
  secrets: secretsOf,
});

describe("flags", () => {
  it("of a database that was never created are recorded anew, not repaired: a join was interrupted", async () => {
    const host = await boxBefore("postgres");
    const { finding, changes } = await lookAt(await stepOn(host, "flags"), host);
    expect(savedValues(host)["MASTER_ID"]).toBeDefined();
    expect(finding.state).toBe("absent");
    expect(changes).toHaveLength(1);
    const stopped = before.copy();
    stopped.docker.boxes.delete("postgres-pinning");
    expect((await lookAt(step, stopped)).finding).toMatchObject({
      state: "drifted",
      drift: [expect.stringContaining("can't be read now")],
    });
  });

  it("records those of this master only, by its identity: another one of that name keeps its own", async () => {
    const host = before.copy();
    const other = putOther(host);
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      {
        kind: "record-flags",
        summary: "record the flags of box: BILLING_IDEMPOTENCY",
        master: "box",
        flags: ["BILLING_IDEMPOTENCY"],
      },
    ]);
    for (const one of changes) await step.apply(one, host, () => {});
    expect(host.migrations.masters.get(other.id)).toEqual(other);
    expect(host.migrations.masters.get(ID)).toMatchObject({
      pool: "pool",
      name: "box",
      flags: ["BILLING_IDEMPOTENCY"],
    });
  });

  it("records a master that uses none", async () => {
    const host = await boxBefore("flags", { set: { BILLING_IDEMPOTENCY: "false" } });
    const off = await stepOn(host, "flags", { set: { BILLING_IDEMPOTENCY: "false" } });
    const { changes } = await lookAt(off, host);
    expect(changes).toMatchObject([{ flags: [] }]);
    for (const one of changes) await off.apply(one, host, () => {});
    expect(await lookAt(off, host)).toMatchObject({ finding: { state: "ours" }, changes: [] });
  });

  it("refuses a master that was removed, by its identity or by its cluster peer, and says whether it can come back", async () => {
    const host = before.copy();
    const peerId = host.migrations.masters.get(ID)?.peer?.peerId ?? (await ownPeer(host));
    const gone = { pool: "pool", name: "box", removedAt: "2026-01-01T00:00:00Z", removedBy: "other" };
    host.migrations.removed.push({ ...gone, id: ID, peerId: null });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(
        "The master box was removed from its pool by other, 2026-01-01T00:00:00Z.",
      ),
      remedy: expect.stringContaining("fula-node trust add box"),
    });
    const planned = await look([step], host, new Set());
    expect(() => refuseForeign(planned, new Set())).toThrow(
      expect.objectContaining({ why: "The other masters and the nodes do not trust it any more." }),
    );
    host.migrations.removed.splice(0, 1, { ...gone, id: "0c".repeat(16), peerId });
    expect((await lookAt(step, host)).finding).toMatchObject({ state: "foreign" });
    putOther(host);
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("Another master has taken its place: box (0b0b"),
      remedy: expect.stringContaining("docs/lost-master.md#another-has-its-place"),
    });
    host.migrations.removed.splice(0, 1, { ...gone, pool: "another pool", id: "0c".repeat(16), peerId });
    expect((await lookAt(step, host)).finding).not.toMatchObject({ state: "foreign" });
  });

  it("refuses the cluster peer of another master", async () => {
    const host = before.copy();
    putOther(host, { peer: { peerId: await ownPeer(host), addresses: [], trusts: [] } });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringMatching(/^The master box has the same cluster peer id \(12D3/),
    });
  });

  it("refuses an identity that another machine uses now, and takes it over once that one is silent", async () => {
    const set = { POSTGRES_HOST: "10.0.0.9", POSTGRES_PASSWORD: "long enough" };
    const host = new FakeMaster();
    const role = { user: "pinning_user", password: "long enough", database: "pinning_service" };
    host.databasesElsewhere.set("10.0.0.9", role);
    await join(host, { set });
    const [row] = [...host.migrations.masters.values()];
    if (row === undefined) throw new Error("not recorded");
    const shared = await stepOn(host, "flags", { set });
    host.migrations.masters.set(row.id, { ...row, machine: "another", heartbeatAgeMs: 1_000 });
    expect((await lookAt(shared, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(`Another machine is this master (MASTER_ID ${row.id}, box)`),
    });
    host.migrations.masters.set(row.id, { ...row, machine: "another", heartbeatAgeMs: 700_000 });
    expect((await lookAt(shared, host)).finding).toMatchObject({ state: "drifted" });

    // A clone with the same /etc/machine-id has a cluster peer of its own, and other addresses.
    const { peer } = row;
    const address = `/ip4/192.0.2.8/tcp/9096/p2p/${peer?.peerId ?? ""}`;
    host.http.routes.set("http://127.0.0.1:9094/id", () => ({
      status: 200,
      body: { id: peer?.peerId, addresses: ["/ip4/127.0.0.1/tcp/9096", address] },
    }));
    const there = (agoMs: number, peerId: string, addresses: readonly string[]) =>
      host.migrations.masters.set(row.id, {
        ...row,
        heartbeatAgeMs: agoMs,
        peer: { peerId, addresses, trusts: null },
      });
    const strange = makeIdentityFile().peerId;
    const elsewhere = [`/ip4/192.0.2.77/tcp/9096/p2p/${strange}`];
    there(1_000, strange, elsewhere);
    expect((await lookAt(shared, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringMatching(
        /^Another machine is this master .*its cluster peer is 12D3\w+ at \/ip4\/192\.0\.2\.77/,
      ),
      remedy: expect.stringMatching(/remove MASTER_ID from \.env here/),
    });
    // It is silent; its writer lost its data and has a new key; or the machine has a new address.
    there(700_000, strange, elsewhere);
    expect((await lookAt(shared, host)).finding).toMatchObject({ state: "drifted" });
    there(1_000, strange, [...elsewhere, address]);
    expect((await lookAt(shared, host)).finding).toMatchObject({ state: "drifted" });
    there(1_000, peer?.peerId ?? "", elsewhere);
    expect((await lookAt(shared, host)).finding).toMatchObject({ state: "drifted" });
    there(1_000, strange, []);
    expect((await lookAt(shared, host)).finding).toMatchObject({ state: "drifted" });
  });

  it("is named beforehand on a box without a database", async () => {
    const bare = new FakeMaster();
    expect((await lookAt(await stepOn(bare, "flags"), bare)).changes).toHaveLength(1);
  });
});
