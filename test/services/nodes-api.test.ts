import { once } from "node:events";
import { connect } from "node:net";
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { Announcement } from "../../src/federation/announcement.ts";
import { readPoolTrust } from "../../src/federation/pool-trust.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import {
  announcementOf,
  makeIdentity,
  signAnnouncement,
  signRelease,
  signTrust,
} from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { ask, send, startWebui } from "./web-api.ts";

const NODES = "/api/v1/nodes";

describeOnPostgres(
  "/api/v1/nodes",
  (postgres) => {
    test("announce, see, announce again, give back", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const alice = makeIdentity();
      const announcement = announcementOf(alice, { name: "berlin" });
      const body = signAnnouncement(alice, announcement);

      expect(await ask(webui, NODES, send("POST", body))).toMatchObject({
        status: 201,
        body: { outcome: "Reserved", pool: "pool-a", name: "berlin", peerId: alice.peerId },
      });
      const { body: shown } = await ask(webui, `${NODES}/berlin`);
      expect(shown).toEqual({ ...body, reservedAt: expect.stringMatching(/^\d{4}-.*Z$/) as string });
      expect(await ask(webui, NODES, send("POST", body))).toMatchObject({
        status: 409,
        body: { code: "not-newer" },
      });
      const later = { ...announcement, time: new Date(Date.parse(announcement.time) + 1).toISOString() };
      expect(await ask(webui, NODES, send("POST", signAnnouncement(alice, later)))).toMatchObject({
        status: 200,
        body: { outcome: "AlreadyOwned" },
      });

      const time = new Date(Date.parse(announcement.time) + 2).toISOString();
      const release = { name: "berlin", peerId: alice.peerId, pool: "pool-a", time, reservation: null };
      expect(await ask(webui, `${NODES}/paris`, send("DELETE", signRelease(alice, release)))).toMatchObject({
        status: 400,
        body: { code: "other-name" },
      });
      expect(await ask(webui, `${NODES}/berlin`, send("DELETE", signRelease(alice, release)))).toMatchObject({
        status: 200,
        body: { outcome: "Released" },
      });
      expect(await ask(webui, `${NODES}/berlin`)).toMatchObject({
        status: 404,
        body: { code: "no-such-node" },
      });
      expect(await ask(webui, `${NODES}/berlin`, send("DELETE", signRelease(alice, release)))).toMatchObject({
        status: 409,
        body: { code: "not-released" },
      });
    });

    test("the owner of a name says whom it trusts, and nobody else does", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      const announcement = announcementOf(alice, { name: "berlin" });
      await ask(webui, NODES, send("POST", signAnnouncement(alice, announcement)));
      const own = `${NODES}/berlin?pool=pool-a&peer=${alice.peerId}`;
      expect(await ask(webui, own)).toMatchObject({ body: { trusts: null } });
      const trusts = [bob.peerId];
      const { time } = announcement;
      const statement = { name: "berlin", peerId: alice.peerId, pool: "pool-a", time, trusts };
      const say = (body: object, name = "berlin") => ask(webui, `${NODES}/${name}/trust`, send("POST", body));

      expect(await say(signTrust(alice, statement))).toMatchObject({
        status: 200,
        body: { outcome: "Recorded", pool: "pool-a", name: "berlin" },
      });
      expect(await ask(webui, own)).toMatchObject({ body: { trusts } });
      expect((await ask(webui, `${NODES}/berlin`)).body).not.toHaveProperty("trusts");

      for (const [body, code, name] of [
        [signTrust(alice, statement), "not-newer"],
        [{ ...signTrust(alice, statement), trusts: [alice.peerId] }, "bad-signature"],
        [signTrust(bob, { ...statement, peerId: bob.peerId }), "not-owner"],
        [signTrust(alice, statement), "other-name", "paris"],
        [signTrust(alice, { ...statement, trusts: ["*"] }), "bad-announcement"],
        [signTrust(alice, { ...statement, pool: "pool-b" }), "other-pool"],
        [signTrust(alice, { ...statement, time: "2020-01-01T00:00:00.000Z" }), "outside-window"],
      ] as const)
        expect(await say(body, name)).toMatchObject({ body: { code } });
      expect((await ask(webui, own)).body).not.toHaveProperty("removed");
      await sql(
        target,
        `INSERT INTO removed_masters (pool, id, name, peer_id, removed_at, removed_by) VALUES ('pool-a', 'x', 'lost', $1, now(), 'm1')`,
        [bob.peerId],
      );
      expect(await ask(webui, own)).toMatchObject({ body: { removed: [bob.peerId] } });
      expect((await readPoolTrust(poolOf(target), "pool-a")).nodes).toEqual([
        { name: "berlin", peerId: alice.peerId, trusts },
      ]);
    });

    test("another's name is refused with names to try", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      await ask(
        webui,
        NODES,
        send("POST", signAnnouncement(alice, announcementOf(alice, { name: "berlin" }))),
      );

      expect(
        await ask(webui, NODES, send("POST", signAnnouncement(bob, announcementOf(bob, { name: "berlin" })))),
      ).toMatchObject({
        status: 409,
        body: { code: "taken-by-other", suggestions: ["berlin-2", "berlin-3", "berlin-4"] },
      });
    });

    test("any change after signing, another's signature, and one over a release are refused", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      const announcement = announcementOf(alice, { name: "berlin" });
      const body = signAnnouncement(alice, announcement);
      const { addresses: _addresses, ...rest } = announcement;
      const changes: readonly Partial<Announcement & { signature: string }>[] = [
        { name: "paris" },
        { addresses: [`/ip4/198.51.100.66/tcp/9096/p2p/${alice.peerId}`] },
        { time: new Date(Date.parse(announcement.time) + 1).toISOString() },
        { signature: body.signature.replace(/^../, (first) => (first === "00" ? "01" : "00")) },
        { signature: signAnnouncement(bob, announcement).signature },
        { signature: signRelease(alice, { ...rest, reservation: null }).signature },
        { peerId: bob.peerId, addresses: [`/ip4/192.0.2.7/tcp/9096/p2p/${bob.peerId}`] },
        { signature: "00".repeat(64) },
      ];
      for (const change of changes)
        expect(await ask(webui, NODES, send("POST", { ...body, ...change }))).toMatchObject({
          status: 401,
          body: { code: "bad-signature" },
        });
      expect(await sql(target, "SELECT FROM node_names")).toEqual([]);
    });

    test("another pool's announcement, a late one and one beyond the quota say so", async () => {
      const webui = await startWebui(await postgres.createDatabase(), { namesPerOwner: 1 });
      const alice = makeIdentity();
      const post = (parts: Partial<Announcement> & { name: string }) =>
        ask(webui, NODES, send("POST", signAnnouncement(alice, announcementOf(alice, parts))));

      expect(await post({ name: "n1", pool: "pool-b" })).toMatchObject({
        status: 409,
        body: { code: "other-pool" },
      });
      const time = new Date(Date.now() - 600_000).toISOString();
      expect(await post({ name: "n1", time })).toMatchObject({
        status: 409,
        body: { code: "outside-window", masterTime: expect.stringMatching(/^\d{4}-.*Z$/) as string },
      });
      expect(await post({ name: "n1" })).toMatchObject({ status: 201 });
      expect(await post({ name: "n2" })).toMatchObject({
        status: 403,
        body: { code: "over-quota", quota: 1 },
      });
    });

    test("a name with inconsistent data is not reserved, and the log says so", async () => {
      const target = await postgres.createDatabase();
      await sql(
        target,
        "INSERT INTO node_descriptors VALUES ('pool-a', 'berlin', '{}', now(), 'left', 1, now())",
      );
      const webui = await startWebui(target);
      const alice = makeIdentity();
      const body = signAnnouncement(alice, announcementOf(alice, { name: "berlin" }));

      expect(await ask(webui, NODES, send("POST", body))).toMatchObject({
        status: 500,
        body: { code: "descriptor-in-the-way" },
      });
      expect(webui.lines.join("\n")).toContain("berlin has no owner but has a descriptor");
    });

    test.each([
      ["no JSON", { method: "POST", body: "{", headers: { "content-type": "application/json" } }, 400],
      ["a text", { method: "POST", body: '"x"', headers: { "content-type": "application/json" } }, 400],
      ["an empty body", { method: "POST", body: "", headers: { "content-type": "application/json" } }, 400],
      [
        "no UTF-8",
        {
          method: "POST",
          body: Buffer.from([0x22, 0xff, 0x22]),
          headers: { "content-type": "application/json" },
        },
        400,
      ],
      [
        "a form",
        { method: "POST", body: "a=b", headers: { "content-type": "application/x-www-form-urlencoded" } },
        415,
      ],
      ["17 KB", send("POST", "x".repeat(17_000)), 413],
      ["a look-alike", send("POST", { name: "b\u0435rlin" }), 400],
      ["another verb", { method: "PUT", body: "{}" }, 405],
    ])("%s is refused in JSON", async (_case, init, status) => {
      const webui = await startWebui(await postgres.createDatabase());
      const answer = await ask(webui, NODES, init);
      expect(answer).toMatchObject({ status, body: { error: expect.any(String) as string } });
      expect(answer.headers.get("content-type")).toContain("application/json");
    });

    test("a body that grows beyond its bound is cut off without a length being announced", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const { hostname, port } = new URL(webui.url);
      const socket = connect(Number(port), hostname);
      await once(socket, "connect");
      socket.on("error", () => {});
      socket.write(
        `POST ${NODES} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n`,
      );
      for (let chunk = 0; chunk < 5; chunk += 1) socket.write(`1000\r\n${"x".repeat(4096)}\r\n`);
      let answer = "";
      for await (const chunk of socket) answer += String(chunk);
      expect(answer).toMatch(/^HTTP\/1\.1 413 /);
      expect(answer).toMatch(/connection: close/i);
    });

    test("an address that announces without end is slowed down; reading is not, nor is another address", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const from = (address: string) =>
        ask(webui, NODES, send("POST", {}, { "x-forwarded-for": `6.6.6.6, ${address}` }));
      for (let round = 0; round < 30; round += 1) expect((await from("192.0.2.1")).status).toBe(400);

      const slowed = await from("192.0.2.1");
      expect(slowed).toMatchObject({ status: 429, body: { code: "too-many" } });
      expect(Number(slowed.headers.get("retry-after"))).toBeGreaterThan(0);
      expect((await from("192.0.2.2")).status).toBe(400);
      expect((await ask(webui, `${NODES}/berlin`)).status).toBe(404);
    });

    test("the list is for API keys, in pages", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      for (const name of ["a", "b", "c"]) {
        const key = makeIdentity();
        await ask(webui, NODES, send("POST", signAnnouncement(key, announcementOf(key, { name }))));
      }
      expect(await ask(webui, NODES)).toMatchObject({ status: 401 });
      const hash = createHash("sha256").update("key").digest("hex");
      await sql(target, "INSERT INTO webui_users (user_id) VALUES ('u')");
      await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, 'u')", [hash]);
      const list = (query: string) =>
        ask(webui, `${NODES}${query}`, { headers: { authorization: "Bearer key" } });

      expect(await list("?limit=2")).toMatchObject({
        status: 200,
        body: { pool: "pool-a", nodes: [{ name: "a" }, { name: "b" }], next: "b" },
      });
      expect(await list("?limit=2&after=b")).toMatchObject({ body: { nodes: [{ name: "c" }], next: null } });
      expect(await list("")).toMatchObject({ body: { nodes: [{}, {}, {}], next: null } });
      for (const query of ["?limit=0", "?limit=1001", "?limit=x", "?after=A", "?after="])
        expect(await list(query)).toMatchObject({ status: 400, body: { code: "bad-page" } });
    });

    test.each(["A", "%FF", "..", "a%2Fb", "a/b", "x".repeat(65)])("no node is named %s", async (segment) => {
      const webui = await startWebui(await postgres.createDatabase());
      expect((await ask(webui, `${NODES}/${segment}`)).status).toBe(404);
    });

    test("a master without a pool keeps no names", async () => {
      const webui = await startWebui(await postgres.createDatabase(), { pool: null });
      expect(await ask(webui, NODES, send("POST", {}))).toMatchObject({
        status: 503,
        body: { code: "no-pool" },
      });
      expect(await ask(webui, `${NODES}/a`)).toMatchObject({ status: 503 });
    });

    test("a database before migration 021 is reported as not responding yet", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "DROP TABLE node_names, node_descriptors, node_owners, node_releases");
      const webui = await startWebui(target);
      expect(await ask(webui, `${NODES}/berlin`)).toMatchObject({ status: 503 });
      expect(webui.lines.join("\n")).toContain('relation "node_names" does not exist');
    });
  },
  { template: migrate },
);
