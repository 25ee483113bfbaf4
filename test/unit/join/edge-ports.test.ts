import { expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

/** What a dry run of a first join says against it, with nginx on this port. */
async function refusal(
  listens: { readonly port: number; readonly address: string },
  settings: readonly string[],
): Promise<unknown> {
  const host = new FakeStorage();
  const ancestry = [812, 1];
  host.system.listening = [{ ...listens, pid: 812, process: "nginx", ancestry, unit: "nginx.service" }];
  const flags = {
    yes: false,
    adopt: [],
    replace: [],
    ignore: ["clock"],
    provisionWriter: true,
    dryRun: true,
  };
  const reporter = createLines({ out: () => {}, err: () => {} }, () => 0);
  const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
  return joinAsMaster(
    { ...flags, set: ["CLUSTERNAME=pool", ...settings] },
    worldOf(host, { pid: 7, hostname: "box", takeLock, reporter }),
  ).then(
    () => null,
    (thrown: unknown) => thrown,
  );
}

it.each([
  { port: 80, address: "0.0.0.0" },
  { port: 80, address: "127.0.0.1" },
  { port: 443, address: "::" },
])("another web server on $address:$port is in the way of the edge", async (listens) => {
  expect(await refusal(listens, ["PUBLIC_HOST=m.example.org"])).toMatchObject({
    exit: "preflight",
    problems: [
      {
        subject: "ports",
        what: expect.stringContaining(
          `Port ${listens.port}, which the edge needs, is in use: nginx`,
        ) as string,
      },
    ],
  });
});

it("and of nothing without PUBLIC_HOST", async () => {
  expect(await refusal({ port: 443, address: "::" }, [])).toBeNull();
});
