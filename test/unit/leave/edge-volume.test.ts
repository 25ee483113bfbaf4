import { expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
import { leaveOn, PURGE_ALL } from "../../support/leave-boxes.ts";
import { join, LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage } from "../../support/storage-fake.ts";

/** A master with an edge that leaves. */
async function withEdge(): Promise<FakeStorage> {
  const host = new FakeStorage();
  await join(host, { set: { PUBLIC_HOST: "master.example.org" } });
  host.revive();
  return host;
}

it("a leave names the edge's volume and what it says of the edge, and keeps both", async () => {
  const host = await withEdge();
  const { data, lines } = await leaveOn(host);
  expect(data["kept"]).toEqual(
    expect.arrayContaining([
      { part: "data", kind: "volume", name: NAMES.edgeVolume },
      { part: "data", kind: "path", name: LAYOUT.edgeKnown },
    ]),
  );
  expect(lines.join("\n")).toMatch(new RegExp(`^ *data +volume ${NAMES.edgeVolume}$`, "m"));
  expect(host.docker.volumes.has(NAMES.edgeVolume)).toBe(true);
  expect(host.files.tree.has(LAYOUT.edgeKnown)).toBe(true);
  expect(host.files.tree.has(LAYOUT.edgeDir)).toBe(false);
});

it("a purge removes both", async () => {
  const host = await withEdge();
  await leaveOn(host, PURGE_ALL);
  expect(host.docker.volumes.has(NAMES.edgeVolume)).toBe(false);
  expect(host.files.tree.has(LAYOUT.edgeKnown)).toBe(false);
});
