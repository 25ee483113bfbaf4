import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { PeerIdentity } from "../../../src/cluster/client.ts";
import { nodeForget, nodeKeep, nodeList } from "../../../src/commands/pool/node.ts";
import type { RunEvent } from "../../../src/engine/events.ts";
import { clock } from "../../../src/machine/clock.ts";
import { files } from "../../../src/machine/file-writer.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import type { World } from "../../../src/world.ts";
import { makeIdentity } from "../../support/node-identity.ts";

const [MASTER, MEMBER, NAMED, ABSENT] = [makeIdentity(), makeIdentity(), makeIdentity(), makeIdentity()].map(
  ({ peerId }) => peerId,
) as [string, string, string, string];

/** A master whose cluster has two nodes, one of them with the registered name berlin. `removed`: its row, if it was. */
async function master(removed: readonly object[] = []) {
  const baseDir = await mkdtemp(join(tmpdir(), "fula-node-keep-"));
  onTestFinished(() => rm(baseDir, { recursive: true }));
  const values = {
    CLUSTERNAME: "pool",
    CLUSTER_PEERNAME: "m",
    MASTER_ID: "a".repeat(32),
    POSTGRES_PASSWORD: "password",
  };
  const lines = Object.entries(values).map(([key, value]) => `${key}=${value}\n`);
  await writeFile(join(baseDir, ".env"), lines.join(""), { mode: 0o600 });
  const warnings: string[] = [];
  const results: Result[] = [];
  const peer = (peerId: string) =>
    ({ id: peerId, peername: `peer-${peerId.slice(-4)}`, error: "", ipfsError: "" }) as PeerIdentity;
  const world = {
    host: {
      files,
      clock,
      system: { uid: () => 0 },
      postgres: {
        query: (_: unknown, sql: string) =>
          Promise.resolve(sql.includes("removed_masters") ? removed : [{ owner: NAMED, name: "berlin" }]),
      },
    },
    environment: {},
    hostname: "m",
    openCluster: () => ({
      identity: () => Promise.resolve(peer(MASTER)),
      peers: () => Promise.resolve([MASTER, MEMBER, NAMED].map(peer)),
      metrics: () => Promise.resolve([]),
    }),
    takeLock: () => Promise.resolve({ release: () => Promise.resolve() }),
    reporter: {
      listen: (event: RunEvent) => event.type === "warning" && void warnings.push(event.text),
      result: (result: Result) => void results.push(result),
      table: (rows: readonly (readonly string[])[]) => rows.map((row) => row.join("|")),
    },
  } as unknown as World;
  return { world, baseDir, warnings, results };
}

async function keep(id: string, name?: string) {
  const { world, baseDir, warnings, results } = await master();
  await nodeKeep(id, name === undefined ? { baseDir } : { baseDir, name }, world);
  const known = (await files.readText(join(baseDir, "known-nodes.json"))) ?? "";
  return { warnings, said: results[0]?.lines.join("\n") ?? "", known };
}

test("a member is kept with the operator's name, without a warning", async () => {
  const { warnings, said, known } = await keep(MEMBER, "attic");
  expect([warnings, said.split(":")[0]]).toEqual([[], "The sweep now expects attic"]);
  expect(known).toContain('"name":"attic"');
});

test("a peer id that nobody has seen is kept with a warning", async () => {
  const { warnings, said } = await keep(ABSENT);
  expect(said).toContain(`The sweep now expects ${ABSENT}`);
  expect(warnings).toEqual([
    expect.stringMatching(/is not a member of the cluster now, and was never seen.*fula-node node forget/),
  ]);
});

test("a registered name goes before the operator's, and that is said", async () => {
  const { warnings, said, known } = await keep(NAMED, "attic");
  expect(said).toContain("The sweep now expects berlin");
  expect(warnings).toEqual(["This node has the registered name berlin, so --name attic is not used."]);
  expect(known).toContain('"name":"berlin"');
  expect(known).not.toContain("attic");
});

test("a master that was removed keeps and forgets nothing", async () => {
  const { world, baseDir } = await master([{ name: "m", removedAt: "2026-01-01T00:00:00Z", removedBy: "a" }]);
  for (const verb of [nodeKeep, nodeForget])
    await expect(verb(MEMBER, { baseDir }, world)).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringMatching(/^The master m was removed from its pool by a/) as string,
    });
  expect(await files.readText(join(baseDir, "known-nodes.json"))).toBeNull();
});

test("the list says what its times mean: who is here now, and whom a sweep saw last, and when", async () => {
  const { world, baseDir, results } = await master();
  await nodeKeep(ABSENT, { baseDir, name: "attic" }, world);
  const path = join(baseDir, "known-nodes.json");
  const known = JSON.parse((await files.readText(path)) ?? "") as {
    nodes: { id: string; last_seen: string | null }[];
  };
  const at = new Date(clock.now().getTime() - 40 * 60_000).toISOString();
  for (const node of known.nodes) if (node.id === ABSENT) node.last_seen = at;
  await writeFile(path, JSON.stringify(known));
  await nodeList({ baseDir }, world);
  const said = (results.at(-1)?.lines ?? []).map((line) => line.split("; ")[0]);
  expect(said).toContainEqual(expect.stringMatching(/^attic\|absent\|.*\|a sweep saw it 40 min ago\|/));
  expect(said).toContainEqual(expect.stringMatching(/^berlin\|no-metric\|.*\|here now\|/));
  expect(said).toContainEqual(expect.stringMatching(new RegExp(`\\|here now\\|${MEMBER}$`)));
});
