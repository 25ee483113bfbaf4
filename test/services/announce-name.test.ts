import { inspect } from "node:util";
import { expect, test } from "vitest";
import {
  type AnnounceDeps,
  announceName,
  giveBackName,
  lookUpName,
  type NodesClient,
  openNodesClient,
} from "../../src/federation/announce-name.ts";
import { parseNodeIdentity, readNodeIdentity } from "../../src/federation/node-identity.ts";
import { http } from "../../src/machine/http.ts";
import { STORAGE_NAMES } from "../../src/settings/layout.ts";
import { FakeHost } from "../support/fake-host.ts";
import { storeInvite } from "../support/invites.ts";
import { migrate } from "../support/names-database.ts";
import { makeIdentity, makeIdentityFile } from "../support/node-identity.ts";
import { SetClock } from "../support/operation-deps.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { listenAnywhere } from "./serving.ts";
import { ask, startWebui } from "./web-api.ts";

function depsOf(url: string): AnnounceDeps & { readonly clock: SetClock } {
  const clock = new SetClock(new Date().toISOString());
  return { client: openNodesClient(`${url}/`), identity: makeIdentity(), clock };
}

function requestOf(
  { identity }: AnnounceDeps,
  name = "berlin",
  pool = "pool-a",
  invite: string | null = null,
) {
  return {
    pool,
    name,
    invite,
    addresses: ["/ip4/127.0.0.1/tcp/9096", `/ip4/192.0.2.7/tcp/9096/p2p/${identity.peerId}`],
  };
}

const lookUp = (url: string, name: string) => lookUpName(http, url, name, "--no-register");

/** A client whose master answers this. */
function answering(status: number, body: unknown): NodesClient {
  return { url: "http://master", send: async () => ({ status, body }) };
}

describeOnPostgres(
  "a node's name, from the node to the database",
  (postgres) => {
    test("is reserved, owned again on the next run, and given back", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const deps = depsOf(webui.url);
      const first = await announceName(deps, requestOf(deps));
      expect(first).toMatchObject({ outcome: "Reserved", pool: "pool-a", name: "berlin" });
      deps.clock.move(1_000);

      const second = await announceName(deps, requestOf(deps));

      expect(second).toMatchObject({ outcome: "AlreadyOwned", reservation: first.reservation });
      expect(await ask(webui, "/api/v1/nodes/berlin")).toMatchObject({
        body: { peerId: deps.identity.peerId, addresses: [requestOf(deps).addresses[1]] },
      });
      deps.clock.move(1_000);
      expect(await giveBackName(deps, first)).toBe(true);
      deps.clock.move(1_000);
      expect(await giveBackName(deps, first)).toBe(false);
    });

    test("is still its own where the descriptor had to be seeded again", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const deps = depsOf(webui.url);
      await announceName(deps, requestOf(deps));
      await sql(target, "DELETE FROM node_descriptors");
      deps.clock.move(1_000);
      const found = await announceName(deps, requestOf(deps));

      expect(found.outcome).toBe("AlreadyOwned");
      expect((await ask(webui, "/api/v1/nodes/berlin")).status).toBe(200);
    });

    test("of another key is foreign, with names to try", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const [alice, bob] = [depsOf(webui.url), depsOf(webui.url)];
      await announceName(alice, requestOf(alice));

      await expect(announceName(bob, requestOf(bob))).rejects.toMatchObject({
        exit: "foreign",
        what: "The name berlin belongs to another node of pool pool-a.",
        remedy: expect.stringContaining("berlin-2, berlin-3, berlin-4") as string,
      });
    });

    test("can't be settled by a box whose clock is off, nor in another pool, nor beyond the quota", async () => {
      const webui = await startWebui(await postgres.createDatabase(), { namesPerOwner: 1 });
      const deps = depsOf(webui.url);
      await announceName(deps, requestOf(deps));
      await expect(announceName(deps, requestOf(deps, "paris"))).rejects.toMatchObject({ exit: "settings" });
      await expect(announceName(deps, requestOf(deps, "berlin", "pool-b"))).rejects.toMatchObject({
        exit: "settings",
        what: expect.stringContaining("pool-a") as string,
      });
      deps.clock.move(3_600_000);
      await expect(announceName(deps, requestOf(deps))).rejects.toMatchObject({
        exit: "preflight",
        what: expect.stringMatching(
          /differs from the master's by 3[56]\d\d seconds \(this machine is ahead\)/,
        ) as string,
      });
    });

    test("is unavailable while the master or its database is away", async () => {
      const { port, close } = await listenAnywhere(() => {});
      await close();
      const away = depsOf(`http://127.0.0.1:${port}`);
      await expect(announceName(away, requestOf(away))).rejects.toMatchObject({
        exit: "unavailable",
        why: expect.stringContaining("ECONNREFUSED") as string,
        remedy: expect.stringContaining("--no-register") as string,
      });
      await expect(giveBackName(away, requestOf(away))).rejects.toMatchObject({
        exit: "unavailable",
        remedy: expect.stringContaining("--no-release") as string,
      });
      const webui = await startWebui({ ...(await postgres.createDatabase()), port });
      const deps = depsOf(webui.url);
      await expect(announceName(deps, requestOf(deps))).rejects.toMatchObject({ exit: "unavailable" });
    });

    test("is unavailable where the master says nothing in time", async () => {
      const { port, close } = await listenAnywhere(() => {});
      const deps = { ...depsOf(""), client: openNodesClient(`http://127.0.0.1:${port}`, { timeoutMs: 50 }) };
      await expect(announceName(deps, requestOf(deps))).rejects.toMatchObject({
        exit: "unavailable",
        why: "no answer within 0.05 s.",
      });
      await close();
    });

    test.each([
      ["a web page", 200, null, "drift"],
      ["a redirect", 302, null, "drift"],
      ["success that says nothing", 201, {}, "drift"],
      ["success of the wrong kind", 201, { outcome: "AlreadyOwned", reservation: "x" }, "drift"],
      ["a proxy's error", 502, null, "unavailable"],
      ["too many", 429, { code: "too-many", error: "Too many." }, "unavailable"],
      ["a signature that did not fit", 401, { code: "bad-signature", error: "x" }, "integrity"],
      ["no invite", 403, { code: "invite-missing", error: "Invited only." }, "settings"],
      ["an invite that was used", 403, { code: "invite-used", error: "Used by \u001b[31m." }, "settings"],
      ["bad suggestions", 409, { code: "taken-by-other", suggestions: ["\u001b[31m", 7] }, "foreign"],
    ])("%s from the master", async (_case, status, body, exit) => {
      const deps = { ...depsOf(""), client: answering(status, body) };
      const error = await announceName(deps, requestOf(deps)).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ exit });
      expect(JSON.stringify(error)).not.toContain("u001b");
    });

    test("with an invite is reserved at a master that registers invited nodes only, and without one the error says what to do", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target, { registration: "invite" });
      const [alice, bob] = [depsOf(webui.url), depsOf(webui.url)];
      const { shown } = await storeInvite(target);
      const name = "berlin";
      expect(await lookUp(webui.url, name)).toEqual({ entry: null, needsInvite: true, refusal: null });
      await expect(announceName(alice, requestOf(alice, name))).rejects.toMatchObject({
        exit: "settings",
        what: "The master does not register the name berlin: This master registers the names of invited nodes only.",
        remedy: expect.stringMatching(/invite create.*--invite.*--no-register/) as string,
      });
      expect(await announceName(alice, requestOf(alice, name, "pool-a", shown))).toMatchObject({
        outcome: "Reserved",
      });
      expect(await lookUp(webui.url, "berlin")).toMatchObject({ needsInvite: false });
      await expect(announceName(bob, requestOf(bob, "paris", "pool-a", shown))).rejects.toMatchObject({
        exit: "settings",
        what: expect.stringContaining(`was used by another node (${alice.identity.peerId})`) as string,
      });
      const open = await startWebui(target, { registration: "open" });
      expect(await lookUp(open.url, "rome")).toEqual({ entry: null, needsInvite: false, refusal: null });
    });

    test.each(["a.b", "A", "b\u0435rlin", "x".repeat(65), ""])(
      "the name %j never leaves this box",
      async (name) => {
        const deps = depsOf("http://127.0.0.1:1");
        await expect(announceName(deps, requestOf(deps, name))).rejects.toMatchObject({ exit: "settings" });
      },
    );

    test("a node without a usable address is reported as such", async () => {
      const deps = depsOf("http://127.0.0.1:1");
      const addresses = ["/ip4/192.0.2.7/tcp/9096", "garbage"];
      await expect(announceName(deps, { ...requestOf(deps), addresses })).rejects.toMatchObject({
        exit: "settings",
        why: expect.stringContaining("None of its 2 addresses") as string,
      });
    });
  },
  { template: migrate },
);

test("an identity is read as ipfs-cluster and kubo write it", () => {
  // The key of libp2p's specs (peer-ids, the test vectors of Ed25519).
  const encoded = Buffer.from(
    "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d" +
      "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
    "hex",
  ).toString("base64");
  const PeerID = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
  const read = [
    JSON.stringify({ id: PeerID, private_key: encoded }),
    JSON.stringify({ Identity: { PeerID, PrivKey: encoded }, Datastore: {} }),
  ].map((text) => parseNodeIdentity(text, "x"));
  expect(read.map((identity) => identity?.peerId)).toEqual([PeerID, PeerID]);
  expect(read[0]?.sign("text")).toMatch(/^[0-9a-f]{128}$/);
  expect(read[0]?.sign("text")).toBe(read[1]?.sign("text"));
});

test.each([
  ["no JSON", "{"],
  ["a file that is being written", '{"id": "12D3KooW'],
  ["null", "null"],
  ["no id", "{}"],
  ["an id that is no text", '{"id": 7}'],
])("%s is no identity", (_case, text) => {
  expect(parseNodeIdentity(text, "/x/identity.json")).toBeNull();
});

test.each([
  ["no key", JSON.stringify({ id: "Qm" })],
  ["an RSA key", JSON.stringify({ id: "Qm", private_key: "CAASpwkwggSjAgEAAoIBAQ" })],
  [
    "a key of another id",
    JSON.stringify({ ...JSON.parse(makeIdentityFile().text), id: makeIdentity().peerId }),
  ],
])("an identity with %s has a peer id, signs nothing, and shows nothing of its key", (_case, text) => {
  const identity = parseNodeIdentity(text, "/x/identity.json");
  expect(identity?.peerId).toBe((JSON.parse(text) as { id: string }).id);
  const sign = () => identity?.sign("text");
  expect(sign).toThrow(expect.objectContaining({ exit: "settings" }) as Error);
  const key = /"private_key":"([^"]+)"/.exec(text)?.[1] ?? "nothing";
  expect(inspect(identity, { depth: 9, showHidden: true })).not.toContain(key);
  try {
    sign();
  } catch (error) {
    expect(JSON.stringify(error) + String((error as Error).stack)).not.toContain(key);
  }
});

test("what a storage node's ipfs-cluster has written is read once it is there", async () => {
  const host = new FakeHost();
  expect(await readNodeIdentity(host)).toBeNull();
  host.docker.putVolume(STORAGE_NAMES.clusterVolume);
  expect(await readNodeIdentity(host)).toBeNull();
  const { text, peerId } = makeIdentityFile();
  const volume = await host.docker.volume(STORAGE_NAMES.clusterVolume);
  host.files.put(`${volume?.mountpoint}/identity.json`, text, 0o600);
  expect(await readNodeIdentity(host)).toMatchObject({ peerId });
});
