import { describe, expect, it } from "vitest";
import { FakeMaster } from "../../support/fake-master.ts";
import { boxBefore, lookAt, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const before = await boxBefore("flags");
const step = await stepOn(before, "flags");

stepLaws("flags", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "another flag is recorded than is in use",
      arrange: (host) => void host.migrations.flags.set("box", ["FULA_BUCKET_ROOT_CAS"]),
      names: /recorded: FULA_BUCKET_ROOT_CAS; in use: BILLING_IDEMPOTENCY/,
    },
  ],
  foreign: [],
  secrets: secretsOf,
});

describe("flags", () => {
  it("records those of this master only", async () => {
    const host = before.copy();
    host.migrations.flags.set("other", ["FULA_BUCKET_ROOT_CAS"]);
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      {
        kind: "record-flags",
        summary: "record the flags of box: BILLING_IDEMPOTENCY",
        master: "box",
        flags: ["BILLING_IDEMPOTENCY"],
      },
    ]);
  });

  it("has nothing to record if none is in use", async () => {
    const host = await boxBefore("flags", { set: { BILLING_IDEMPOTENCY: "false" } });
    const off = await stepOn(host, "flags", { set: { BILLING_IDEMPOTENCY: "false" } });
    expect(await lookAt(off, host)).toMatchObject({ finding: { state: "ours" }, changes: [] });
  });

  it("is named beforehand on a box without a database", async () => {
    const bare = new FakeMaster();
    expect((await lookAt(await stepOn(bare, "flags"), bare)).changes).toHaveLength(1);
  });
});
