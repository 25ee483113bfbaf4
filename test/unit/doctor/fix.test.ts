import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NAMES, STORAGE_NAMES } from "../../../src/settings/layout.ts";
import type { World } from "../../../src/world.ts";
import { type DoctorBench, openDoctorBench } from "../../support/doctor-master.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { type FakeStorage, GIVEN, LAYOUT as STORAGE, storageBoxBefore } from "../../support/storage-fake.ts";

let bench: DoctorBench;
beforeAll(async () => {
  bench = await openDoctorBench();
});
afterAll(() => bench.clear());

const stop = (host: FakeStorage, name: string) => {
  const one = host.docker.boxes.get(name);
  if (one !== undefined) host.docker.boxes.set(name, { ...one, status: "exited", exitCode: 137 });
};
const locks: string[] = [];
const RUN: Partial<World> = {
  pid: 1,
  takeLock: async (name) => {
    locks.push(name);
    return { release: async () => {} };
  },
};

describe("doctor --fix on a master", () => {
  it("repairs what a join repairs, and shows what is still wrong", async () => {
    const host = bench.master((one) => {
      stop(one, NAMES.webui);
      one.system.facts.clockSynchronised = false;
    });
    const { exit, wrong, lines, data } = await bench.doctorOn(host, { fix: true, yes: true }, RUN);
    expect(host.docker.boxes.get(NAMES.webui)?.status).toBe("running");
    expect([...wrong.keys()]).toEqual(["preflight-clock"]);
    expect(exit).toBe("pending");
    expect(locks).toContain(LAYOUT.baseDir);
    expect(lines.join("\n")).toContain("Done in");
    const fix = data["fix"] as { before: { id: string; severity: string }[] };
    expect(fix.before.find(({ id }) => id === "storage-api")?.severity).toBe("error");
  });

  it("changes nothing where nothing is wrong", async () => {
    const host = bench.master();
    const writes = host.writes.length;
    const { exit } = await bench.doctorOn(host, { fix: true, yes: true }, RUN);
    expect([exit, host.writes.length]).toEqual(["ok", writes]);
  });

  it("changes nothing without a yes", async () => {
    const host = bench.master((one) => stop(one, NAMES.webui));
    const writes = host.writes.length;
    await expect(bench.doctorOn(host, { fix: true }, RUN)).rejects.toMatchObject({ exit: "preflight" });
    const questions = { confirm: async () => false, text: async () => "" };
    await expect(bench.doctorOn(host, { fix: true }, { ...RUN, questions })).rejects.toMatchObject({
      exit: "pending",
    });
    expect(host.writes).toHaveLength(writes);
  });

  it("says why the repair stopped, and what is wrong", async () => {
    const host = bench.master((one) => {
      stop(one, NAMES.webui);
      one.files.own("/opt", 1000);
    });
    const { exit, wrong } = await bench.doctorOn(host, { fix: true, yes: true }, RUN);
    expect(wrong.get("fix")).toMatch(/^error: the repair stopped: owners: /);
    expect(wrong.get("storage-api")).toMatch(/^error: /);
    expect(exit).toBe("unhealthy");
  });
});

describe("doctor on a storage node", () => {
  const node = async (change: (host: FakeStorage) => void = () => {}) => {
    const host = await storageBoxBefore(null, { set: GIVEN });
    host.files.put("/run/systemd/system/x", "");
    change(host);
    return host;
  };

  it("finds nothing wrong on a whole one", async () => {
    const { wrong, lines } = await bench.doctorOn(await node());
    expect(lines[0]).toBe("fula-node 0.1.0 · doctor · storage node node of pool pool");
    expect([...wrong]).toEqual([]);
  });

  it("names what is dead, with the command for a storage node, and --fix repairs it", async () => {
    const host = await node((one) => {
      stop(one, STORAGE_NAMES.ingest);
      one.files.put(STORAGE.journal, '{"phase":"intent","step":"ingest","attempt":"x-99"}\n');
    });
    const { wrong } = await bench.doctorOn(host);
    expect(wrong.get("ingest")).toMatch(/^error: .*-> fula-node join-as-storage-node/);
    expect(wrong.get("interrupted-run")).toMatch(/-> fula-node join-as-storage-node$/);
    await bench.doctorOn(host, { fix: true, yes: true }, RUN);
    expect(host.docker.boxes.get(STORAGE_NAMES.ingest)?.status).toBe("running");
  });
});
