import { base58btc } from "multiformats/bases/base58";
import { CID } from "multiformats/cid";
import { expect, onTestFinished, test } from "vitest";
import { blockAdd, blockList, blockRemove } from "../../src/commands/accounts/block.ts";
import type { World } from "../../src/world.ts";
import { startClusterDouble } from "../support/cluster-double.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, factsOf, standingOf, workLeft, workOn } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { createUser, startPinningApi } from "./pins-api.ts";
import { masterOn } from "./verbs-master.ts";

const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
const V1 = CID.parse(V0).toV1().toString();
const RAW = CID.createV1(0x55, CID.parse(V0).multihash).toString();
const SLOW = { timeout: 60_000 };

describeOnPostgres(
  "the verbs of blocked contents",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const { baseDir, world, results } = await masterOn(target);
      return { target, baseDir, world, results, last: () => results.at(-1) };
    }

    test("block once, in any spelling, and remove every spelling, each with its row in the audit log", async () => {
      const { target, baseDir, world, last } = await start();
      const flags = { baseDir, reason: "notice 12" };
      const api = await startPinningApi(target);
      const user = await createUser(target, api, "ann", 100);
      const statusOf = async (cid: string) => (await user.post({ cid })).status;
      expect(await blockAdd(V0, flags, world)).toBe("ok");
      expect(last()).toMatchObject({
        data: { verb: "block add", cid: V1, mode: "block", changed: true, activeRequests: 0, ended: 0 },
        lines: ["Blocked:", `  ${V1}`, "No account can pin it any more, in any spelling of its CID."],
      });
      expect([await statusOf(V1), await statusOf(RAW)]).toEqual([451, 451]);
      await blockAdd(V1.toUpperCase(), flags, world);
      expect(last()).toMatchObject({ data: { changed: false } });
      await blockAdd(RAW, { ...flags, redirect: true }, world);
      expect(last()).toMatchObject({ data: { changed: true, mode: "redirect" } });
      expect(await statusOf(V0)).toBe(301);
      await sql(target, "INSERT INTO blocked_cids (cid) VALUES ($1), ('not a cid')", [
        CID.parse(V1).toString(base58btc),
      ]);
      await blockList({ baseDir }, world);
      expect(last()?.data).toMatchObject({
        entries: [
          { cid: V1, mode: "redirect", reason: "notice 12", blockedBy: "root@m1", isEffective: true },
          { isEffective: true },
          { cid: "not a cid", isEffective: false },
        ],
        next: null,
      });
      expect(last()?.lines.join("\n")).toContain("has no effect: this is not a CID");
      await blockList({ baseDir, limit: "1" }, world);
      const next = Number(last()?.data["next"]);
      expect(last()?.lines.at(-1)).toBe(`More: fula-node block list --after ${next}`);
      await blockList({ baseDir, after: String(next) }, world);
      expect(last()?.data["entries"]).toHaveLength(2);
      await blockRemove(V0, { baseDir, reason: "settled" }, world);
      expect(last()).toMatchObject({ data: { verb: "block remove", cid: V1, changed: true } });
      await blockRemove(V0, { baseDir, reason: "settled" }, world);
      expect(last()).toMatchObject({ data: { changed: false } });
      expect(await statusOf(V1)).toBe(202);
      expect(await sql(target, "SELECT actor, action, details FROM admin_audit_log ORDER BY id")).toEqual([
        { actor: "root@m1", action: "block", details: { cid: V1, mode: "block", reason: "notice 12" } },
        { actor: "root@m1", action: "block", details: { cid: RAW, mode: "redirect", reason: "notice 12" } },
        { actor: "root@m1", action: "unblock", details: { cid: V1, reason: "settled" } },
      ]);
    });

    test("another reason replaces the first, and what is printed tells what happened", async () => {
      const { target, baseDir, world, last } = await start();
      const pool = poolOf(target);
      await blockAdd(V0, { baseDir, reason: "first" }, world);
      await blockAdd(V0, { baseDir, reason: "second" }, world);
      expect(last()).toMatchObject({ data: { changed: true } });
      expect(last()?.lines[0]).toBe(
        "This was blocked already; now it has the mode and the reason of this run:",
      );
      expect(await sql(target, "SELECT cid, reason FROM blocked_cids")).toEqual([
        { cid: V1, reason: "second" },
      ]);
      expect(
        await sql(target, "SELECT details->>'reason' AS reason FROM admin_audit_log ORDER BY id"),
      ).toEqual([{ reason: "first" }, { reason: "second" }]);
      await accept(pool, { account: "a", cid: V0 });
      const again = { baseDir, reason: "second", unpin: true };
      await blockAdd(V0, again, world);
      expect(last()?.lines[0]).toBe("This was blocked already:");
      expect(last()?.lines.join(" ")).toContain("Ended 1 request for it");
      await blockAdd(V0, again, world);
      expect(last()?.lines[0]).toBe("Nothing to do: this is blocked already:");
      expect(last()?.lines.join(" ")).not.toContain("Ended");
    });

    test("twenty runs at once block once", async () => {
      const { target, baseDir, world } = await start();
      const runs = Array.from({ length: 20 }, () => blockAdd(V0, { baseDir, reason: "r" }, world));
      await Promise.all(runs);
      expect(await sql(target, "SELECT cid FROM blocked_cids")).toEqual([{ cid: V1 }]);
      expect(await sql(target, "SELECT FROM admin_audit_log")).toHaveLength(1);
    });

    test("what accounts have pinned is named, and stays until --unpin ends it", async () => {
      const { target, baseDir, world, last } = await start();
      const cluster = await startClusterDouble({ peers: 1 });
      onTestFinished(() => cluster.stop());
      const pool = poolOf(target);
      workOn(target, cluster);
      const ids = [
        await accept(pool, { account: "a", cid: V0 }),
        await accept(pool, { account: "b", cid: RAW }),
      ];
      const other = await accept(pool, {
        account: "a",
        cid: CID.createV1(0x55, CID.parse(V0).multihash).toString(),
      });
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      await blockAdd(V1, { baseDir, reason: "r" }, world);
      expect(last()?.data).toMatchObject({ changed: true, activeRequests: 3, ended: 0 });
      const lines = last()?.lines ?? [];
      expect(lines).toContain("3 active requests for it stay:");
      expect(lines).toContain(`  fula-node block add ${V1} --unpin --reason TEXT`);
      for (const line of lines) expect(line.length > 80 && !line.startsWith("  fula-node")).toBe(false);
      expect(await standingOf(target, ids[0] ?? "")).toBe("pinned");
      await blockAdd(V1, { baseDir, reason: "r", unpin: true }, world);
      expect(last()?.data).toMatchObject({ changed: false, ended: 3 });
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      for (const id of [...ids, other]) {
        expect(await standingOf(target, id)).toBe("failed");
        expect(await factsOf(target, id)).toMatchObject({ size: 0, info: { reason: "BLOCKED" } });
      }
      expect([...cluster.pins.keys()]).toEqual([]);
      expect(await sql(target, "SELECT sum(bytes)::int AS bytes FROM account_usage")).toEqual([{ bytes: 0 }]);
    });
  },
  { template: migrate },
);

test.each([
  [() => blockAdd("/ipfs/bafy", { baseDir: "/nonexistent", reason: "r" }, {} as World), /is not a CID/],
  [() => blockAdd(V0, { baseDir: "/nonexistent", reason: " " }, {} as World), /--reason/],
  [() => blockRemove("x", { baseDir: "/nonexistent", reason: "r" }, {} as World), /is not a CID/],
  [() => blockList({ limit: "0" }, {} as World), /--limit/],
  [() => blockList({ after: "-1" }, {} as World), /--after/],
])("bad input is refused before anything is read (%#)", async (run, what) => {
  await expect(run()).rejects.toMatchObject({ exit: "usage", what: expect.stringMatching(what) as string });
});
