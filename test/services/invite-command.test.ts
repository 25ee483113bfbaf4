import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { expect, onTestFinished, test } from "vitest";
import { inviteCreate, type InviteFlags, inviteList, inviteRevoke } from "../../src/commands/pool/invite.ts";
import { readInvite } from "../../src/federation/invite-signing.ts";
import { formatRegistration } from "../../src/federation/invite.ts";
import { http } from "../../src/machine/http.ts";
import { parseVerifyingKey } from "../../src/machine/signing.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { Result } from "../../src/ui/reporter.ts";
import type { World } from "../../src/world.ts";
import { makeSigningKey } from "../support/invites.ts";
import { migrate } from "../support/names-database.ts";
import { announcementOf, makeIdentity, signAnnouncement } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { listenAnywhere } from "./serving.ts";
import { masterOn as plainMasterOn } from "./verbs-master.ts";
import { ask, send, startWebui } from "./web-api.ts";

const KEY = makeSigningKey();
const { peerId } = makeIdentity();

interface Created {
  readonly id: string;
  readonly token: string;
}

/** A master on that database, and its invites' verbs. */
async function masterOn(target: PostgresTarget) {
  const { baseDir, world: plain, results, warnings } = await plainMasterOn(target, {});
  const addresses = [`/ip4/192.0.2.7/tcp/9096/p2p/${peerId}`];
  const world = {
    ...plain,
    host: { ...plain.host, http, docker: { bridgeSubnets: () => Promise.resolve([]) } },
    hash: () => "a".repeat(64),
    openCluster: () => ({ identity: () => Promise.resolve({ id: peerId, addresses }) }),
    readSigningKey: () => Promise.resolve(KEY),
    loadKeyParser: () => Promise.resolve(parseVerifyingKey),
  } as unknown as World;
  const take = (): Result => {
    const result = results.pop();
    if (result === undefined) throw new Error("nothing was printed");
    return result;
  };
  return {
    results,
    warnings,
    baseDir,
    async create(flags: Partial<InviteFlags> = {}): Promise<Created> {
      const all = { baseDir, expires: "24h", storageApiUrl: "http://127.0.0.1:9", bootstrap: [], ...flags };
      await inviteCreate(all, world);
      return take().data as unknown as Created;
    },
    async list(): Promise<Result> {
      await inviteList({ baseDir }, world);
      return take();
    },
    async revoke(id: string): Promise<Result> {
      await inviteRevoke(id, { baseDir }, world);
      return take();
    },
  };
}

describeOnPostgres(
  "the verbs of invites",
  (postgres) => {
    test("list marks the open invites that have the address from before a change", async () => {
      const target = await postgres.createDatabase();
      const master = await masterOn(target);
      const [before, used] = [await master.create({ name: "rome" }), await master.create()];
      await sql(target, "UPDATE invites SET bound_peer = 'x', bound_at = now() WHERE id = $1", [used.id]);
      await sql(target, "UPDATE invites SET issued_at = issued_at - interval '1 hour'");
      const after = await master.create();
      const known = { host: "m.example", url: "https://m.example", ca: null };
      const changed_at = new Date(Date.now() - 60_000).toISOString();
      await writeFile(masterLayout(master.baseDir).edgeKnown, JSON.stringify({ ...known, changed_at }));
      const { data, lines } = await master.list();
      const old = new Map(
        (data["invites"] as { id: string; hasOldAddress: boolean }[]).map((one) => [
          one.id,
          one.hasOldAddress,
        ]),
      );
      expect(old).toEqual(
        new Map([
          [after.id, false],
          [before.id, true],
          [used.id, false],
        ]),
      );
      expect(lines.filter((line) => line.includes("unused, old"))).toHaveLength(1);
      expect(lines.at(-1)).toBe("old: it has an address or a CA that is not served any more.");
      expect(lines.filter((line) => line.length > 80)).toEqual([]);
    });

    test("create stores what it prints, list shows who used it, revoke ends it", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target, { registration: "invite" });
      const master = await masterOn(target);
      const [used, unused] = [await master.create(), await master.create({ name: "paris" })];
      const { invite, fingerprint } = readInvite(used.token, {
        now: new Date(),
        expected: KEY.id,
        parseKey: parseVerifyingKey,
      });
      expect(invite.registration?.id).toBe(used.id);
      if (invite.registration === null) throw new Error("no registration");
      const shown = formatRegistration(invite.registration);
      const alice = makeIdentity();
      const announce = (name: string, time = new Date().toISOString()) =>
        ask(
          webui,
          "/api/v1/nodes",
          send("POST", signAnnouncement(alice, announcementOf(alice, { name, time })), {
            authorization: `Fula-Invite ${shown}`,
          }),
        );
      expect(await announce("berlin")).toMatchObject({ status: 201 });

      const { data, lines } = await master.list();
      expect(data["invites"]).toMatchObject([
        { id: unused.id, state: "unused", name: "paris", usedBy: null, fingerprint },
        { id: used.id, state: "used", name: null, usedBy: { peerId: alice.peerId, names: ["berlin"] } },
      ]);
      expect(lines.filter((line) => line.length > 80)).toEqual([]);
      expect(lines.join("\n")).toContain(`used by berlin (${alice.peerId})`);
      expect(JSON.stringify([data, lines])).not.toContain(invite.registration.signature);

      const revoked = await master.revoke(used.id);
      expect(revoked.lines.join("\n")).toContain("stays in the pool and keeps its names");
      await sql(target, "DELETE FROM node_descriptors");
      await sql(target, "DELETE FROM node_names");
      const left = (await master.revoke(used.id)).lines.join("\n");
      expect(left).toContain("which has no name now: it has left, or its name was released");
      expect(left).not.toMatch(/keeps its names|stays in the pool/);
      expect(revoked.data).toMatchObject({ verb: "invite revoke", state: "revoked", id: used.id });
      expect((await master.revoke(used.id.toUpperCase())).data).toMatchObject({
        state: "revoked",
        id: used.id,
      });
      expect((await master.revoke(unused.id)).lines.join("\n")).toContain("Nobody had used it");
      expect(await announce("rome", new Date(Date.now() + 10).toISOString())).toMatchObject({
        status: 403,
        body: { code: "invite-revoked" },
      });
      await expect(master.revoke("0a")).rejects.toMatchObject({ exit: "usage" });
    });

    test("create names the other open invites for the same name, and no others", async () => {
      const master = await masterOn(await postgres.createDatabase());
      await master.create();
      await master.create({ name: "rome" });
      const first = await master.create({ name: "paris" });
      const said = () => master.warnings.filter((text) => text.includes("open invite")).splice(0);
      expect(said()).toEqual([]);
      await master.create({ name: "paris" });
      expect(said()).toEqual([
        expect.stringMatching(/^There is another open invite for the name paris, and the first node/),
      ]);
      expect(said()[0]).toContain(`fula-node invite revoke ${first.id}`);
      await master.revoke(first.id);
    });

    test("create prints nothing if the database is away, or was not migrated", async () => {
      const { port, close } = await listenAnywhere(() => {});
      await close();
      const away = await masterOn({ ...(await postgres.createDatabase()), port });
      await expect(away.create()).rejects.toMatchObject({ exit: "unavailable" });
      const old = await postgres.createDatabase();
      await sql(old, "DROP TABLE invites");
      const master = await masterOn(old);
      await expect(master.create()).rejects.toMatchObject({ exit: "pending" });
      expect([...away.results, ...master.results]).toEqual([]);
    });

    test.each([
      ["a name that no node can have", { name: "Berlin.1" }, "usage"],
      ["an address with credentials", { storageApiUrl: "https://a:b@master.example" }, "settings"],
    ])("create refuses %s", async (_case, flags, exit) => {
      const target = await postgres.createDatabase();
      await expect((await masterOn(target)).create(flags)).rejects.toMatchObject({ exit });
      expect(await sql(target, "SELECT FROM invites")).toEqual([]);
    });

    test("create says what must stand in front of the storage API where its address does not lead there", async () => {
      const target = await postgres.createDatabase();
      const { port, close } = await listenAnywhere(() => {});
      await close();
      const warningsOf = async (storageApiUrl: string) => {
        const master = await masterOn(target);
        expect((await master.create({ storageApiUrl })).token).toMatch(/^fula-invite\.2\./);
        return master.warnings;
      };
      // 127.0.0.2 is this machine, but not one of the addresses that everybody knows as its own.
      const here = `http://127.0.0.2:${port}`;
      expect(await warningsOf("http://127.0.0.1:9")).toEqual([
        expect.stringContaining("an address of this machine only"),
      ]);
      const plain = expect.stringContaining("Nodes refuse it, unless they join with --allow-http") as string;
      const other = await listenOn("127.0.0.2", "pool-b");
      expect(await warningsOf(other)).toEqual([
        plain,
        expect.stringMatching(/another pool, "pool-b".*docs\/ports\.md#proxy/),
      ]);
      expect(await warningsOf(await listenOn("127.0.0.2", "pool-a"))).toEqual([plain]);
      expect(await warningsOf(here)).toEqual([
        plain,
        expect.stringMatching(
          /does not answer as the storage API of this master: the connection is refused: .*docs\/ports\.md#proxy/,
        ),
      ]);
      const [warning = ""] = await warningsOf("https://fula-node.invalid");
      expect(warning).toContain("an HTTPS proxy must stand in front of it");
    });
  },
  { template: migrate },
);

/** The URL of a server that answers GET /api/v1/pool with that pool. */
async function listenOn(address: string, pool: string): Promise<string> {
  const server = createServer((_request, response) => response.end(JSON.stringify({ pool })));
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  onTestFinished(() => void server.close());
  const bound = server.address();
  return `http://${address}:${typeof bound === "object" && bound !== null ? bound.port : 0}`;
}
