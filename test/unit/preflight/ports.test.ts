import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type ContainerFacts,
  describeHolder,
  findPortConflicts,
  type ListenerFacts,
} from "../../../src/preflight/ports.ts";
import type { PortNeed } from "../../../src/preflight/check.ts";

const POSTGRES: PortNeed = { port: 5432, address: "127.0.0.1", purpose: "PostgreSQL" };
const SWARM: PortNeed = { port: 4001, address: "0.0.0.0", purpose: "kubo" };

function listener(fields: Partial<ListenerFacts> = {}): ListenerFacts {
  const { pid = 812 } = fields;
  return {
    port: 5432,
    address: "127.0.0.1",
    pid,
    process: "postgres",
    ancestry: pid === null ? [] : [pid, 700, 1],
    unit: null,
    ...fields,
  };
}

function container(fields: Partial<ContainerFacts> = {}): ContainerFacts {
  return {
    name: "postgres-pinning",
    pid: 700,
    publishedPorts: [],
    boundPorts: [],
    ownership: "ours",
    ...fields,
  };
}

function find(facts: {
  readonly needs?: readonly PortNeed[];
  readonly listeners?: readonly ListenerFacts[];
  readonly containers?: readonly ContainerFacts[];
}) {
  return findPortConflicts({
    needs: [POSTGRES, SWARM],
    listeners: [],
    containers: [],
    writerUnits: ["ipfs.service", "ipfscluster.service"],
    ...facts,
  });
}

const printed = (facts: Parameters<typeof find>[0]) => find(facts).map(describeHolder);

describe("a port that is needed", () => {
  it("may be free, or held on another port", () => {
    expect(find({ listeners: [listener({ port: 5433 })] })).toEqual([]);
  });

  it("may be held by a process inside our container, or inside the adopted writer's", () => {
    expect(find({ listeners: [listener()], containers: [container()] })).toEqual([]);
    const writer = container({ name: "ipfs_host", ownership: "adopted-writer" });
    expect(find({ listeners: [listener({ port: 4001, process: "ipfs" })], containers: [writer] })).toEqual(
      [],
    );
  });

  it("may be held by the engine on behalf of our container", () => {
    const proxy = listener({ process: "docker-proxy", ancestry: [812, 50, 1], unit: "docker.service" });
    const published = container({ pid: 999, publishedPorts: [5432] });
    expect(find({ listeners: [proxy], containers: [published] })).toEqual([]);
    const unseen = listener({ pid: null, process: null });
    expect(find({ listeners: [unseen], containers: [published] })).toEqual([]);
    // After a boot, the engine listens before the container runs.
    const starting = container({ pid: 0, boundPorts: [5432] });
    expect(find({ listeners: [proxy], containers: [starting] })).toEqual([]);
    expect(find({ listeners: [listener()], containers: [starting] })).toHaveLength(1);
    const foreign = container({ name: "other-db", ownership: "foreign", pid: 0, boundPorts: [5432] });
    expect(printed({ listeners: [proxy], containers: [foreign] })).toEqual([
      "docker-proxy (process 812, container other-db) listens on 127.0.0.1:5432",
    ]);
  });

  it("may be held by a process of the adopted writer's units", () => {
    expect(find({ listeners: [listener({ port: 4001, process: "ipfs", unit: "ipfs.service" })] })).toEqual(
      [],
    );
  });

  it("is in conflict with a foreign process, which is named with its unit", () => {
    expect(printed({ listeners: [listener({ unit: "postgresql@15-main.service" })] })).toEqual([
      "postgres (process 812, unit postgresql@15-main.service) listens on 127.0.0.1:5432",
    ]);
  });

  it("is in conflict with a foreign container, by process, by proxy, or without either", () => {
    const foreign = container({ name: "other-db", ownership: "foreign" });
    expect(printed({ listeners: [listener({ unit: "docker.service" })], containers: [foreign] })).toEqual([
      "postgres (process 812, container other-db) listens on 127.0.0.1:5432",
    ]);
    const published = container({ name: "other-db", ownership: "foreign", pid: 999, publishedPorts: [5432] });
    const proxy = listener({ process: "docker-proxy", address: "0.0.0.0", ancestry: [812, 50, 1] });
    const proxy6 = { ...proxy, address: "::" };
    expect(printed({ listeners: [proxy, proxy6], containers: [published] })).toEqual([
      "docker-proxy (process 812, container other-db) listens on 0.0.0.0:5432 and [::]:5432",
    ]);
    expect(printed({ containers: [published] })).toEqual(["the container other-db publishes it"]);
  });

  it("is in conflict with a process that merely has a published port of ours", () => {
    const ours = container({ pid: 999, publishedPorts: [5432] });
    expect(find({ listeners: [listener()], containers: [ours] })).toHaveLength(1);
  });

  it("is in conflict with an unknown process", () => {
    expect(printed({ listeners: [listener({ pid: null, process: null })] })).toEqual([
      "an unknown process listens on 127.0.0.1:5432",
    ]);
  });

  it("is in conflict despite a stopped container of ours: pid 0 is not an ancestor", () => {
    const stopped = container({ pid: 0 });
    expect(find({ listeners: [listener({ ancestry: [812, 0] })], containers: [stopped] })).toHaveLength(1);
  });

  it.each([
    ["127.0.0.1", true],
    ["0.0.0.0", true],
    ["::", true],
    ["172.17.0.1", false],
    ["::1", false],
    ["127.0.0.53", false],
  ])("at 127.0.0.1 collides with %s: %s", (address, collides) => {
    expect(find({ listeners: [listener({ address })] })).toHaveLength(collides ? 1 : 0);
  });

  it("on all addresses collides with every address", () => {
    const listeners = ["172.17.0.1", "::1", "10.0.0.1"].map((address, index) =>
      listener({ port: 4001, address, pid: 900 + index }),
    );
    expect(find({ listeners })).toHaveLength(3);
  });

  it("names two holders at two addresses, each alone", () => {
    const listeners = [
      listener(),
      listener({ address: "0.0.0.0", pid: 813, process: "nginx", ancestry: [813] }),
    ];
    expect(printed({ listeners, containers: [container()] })).toEqual([
      "nginx (process 813) listens on 0.0.0.0:5432",
    ]);
  });

  it("is never in conflict if everything on it is ours, in any combination", () => {
    const own = fc.record({
      address: fc.constantFrom("127.0.0.1", "0.0.0.0", "::", "10.0.0.1"),
      pid: fc.integer({ min: 2, max: 9 }),
    });
    fc.assert(
      fc.property(fc.array(own), (held) => {
        const listeners = held.map(({ address, pid }) => listener({ address, pid, ancestry: [pid, 700, 1] }));
        expect(find({ listeners, containers: [container()] })).toEqual([]);
      }),
    );
  });
});
