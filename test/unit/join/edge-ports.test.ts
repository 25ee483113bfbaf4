import { expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { joinAsStorageNode } from "../../../src/commands/join-as-storage-node.ts";
import { createLines } from "../../../src/ui/lines.ts";
import type { World } from "../../../src/world.ts";
import { FakeStorage, GIVEN, worldOf } from "../../support/storage-fake.ts";

const FLAGS = { yes: false, adopt: [], ignore: ["clock"], dryRun: true };

/** A machine on which nginx has this port. */
function busyMachine(listens: { readonly port: number; readonly address: string }): FakeStorage {
  const host = new FakeStorage();
  const ancestry = [812, 1];
  host.system.listening = [{ ...listens, pid: 812, process: "nginx", ancestry, unit: "nginx.service" }];
  return host;
}

function worldOn(host: FakeStorage): World {
  const reporter = createLines({ out: () => {}, err: () => {} }, () => 0);
  const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
  return worldOf(host, { pid: 7, hostname: "box", takeLock, reporter });
}

const thrownBy = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => null,
    (thrown: unknown) => thrown,
  );

/** What a dry run of a first join says against it, with nginx on this port. */
const refusal = (listens: Parameters<typeof busyMachine>[0], settings: readonly string[]) =>
  thrownBy(
    joinAsMaster(
      { ...FLAGS, replace: [], provisionWriter: true, set: ["CLUSTERNAME=pool", ...settings] },
      worldOn(busyMachine(listens)),
    ),
  );

const portTaken = (port: number, purpose: string) => ({
  exit: "preflight",
  problems: [
    {
      subject: "ports",
      what: expect.stringContaining(`Port ${port}, which ${purpose} needs, is in use: nginx`) as string,
    },
  ],
});

it.each([
  { port: 80, address: "0.0.0.0" },
  { port: 80, address: "127.0.0.1" },
  { port: 443, address: "::" },
])("another web server on $address:$port is in the way of the edge", async (listens) => {
  expect(await refusal(listens, ["PUBLIC_HOST=m.example.org"])).toMatchObject(
    portTaken(listens.port, "the edge"),
  );
});

it("and of nothing without PUBLIC_HOST", async () => {
  expect(await refusal({ port: 443, address: "::" }, [])).toBeNull();
});

it.each([
  [16_000, "PINNING_METRICS_PORT", "the pinning API, for its metrics,"],
  [13_001, "WEBUI_METRICS_PORT", "the storage API, for its metrics,"],
])("port %d must be free for metrics, unless %s names another one", async (port, key, purpose) => {
  const listens = { port, address: "127.0.0.1" };
  expect(await refusal(listens, [])).toMatchObject(portTaken(port, purpose.replace(/,$/, "")));
  expect(await refusal(listens, [`${key}=17000`])).toBeNull();
});

it("port 13601 must be free for the metrics of a storage node, too", async () => {
  const given = Object.entries(GIVEN).map(([key, value]) => `${key}=${value}`);
  const host = busyMachine({ port: 13_601, address: "127.0.0.1" });
  const join = (...more: readonly string[]) =>
    thrownBy(
      joinAsStorageNode(
        { ...FLAGS, set: [...given, ...more], acceptPoolChange: false, allowHttp: false, register: true },
        worldOn(host),
      ),
    );
  expect(await join()).toMatchObject(portTaken(13_601, "the verified ingest, for its metrics"));
  expect(await join("INGEST_METRICS_PORT=17000")).toBeNull();
});
