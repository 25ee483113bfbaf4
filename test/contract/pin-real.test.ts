import { randomBytes } from "node:crypto";
import { CID } from "multiformats/cid";
import { create } from "multiformats/hashes/digest";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import { readDagSize } from "../../src/cluster/dag-size.ts";
import { readPinBody } from "../../src/pinning/pin-body.ts";
import { http } from "../../src/machine/http.ts";
import { cidOf } from "../support/cids.ts";
import { eventually, findPrograms, type RealCluster, startRealCluster } from "../support/cluster-real.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, factsOf, remove, standingOf, workLeft, workOn } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const programs = await findPrograms();
if (typeof programs === "string" && process.env["CI"] !== undefined) throw new Error(programs);
if (typeof programs === "string") console.warn(`skipped: pins on the real ipfs-cluster: ${programs}`);

const SLOW = { timeout: 60_000 };

if (typeof programs !== "string")
  describeOnPostgres(
    "pin requests on a real cluster",
    (postgres) => {
      let real: RealCluster;
      beforeAll(async () => {
        const environment = { CLUSTER_IPFSHTTP_PINTIMEOUT: "3s", CLUSTER_CRDT_REBROADCASTINTERVAL: "1s" };
        real = await startRealCluster(programs, { peers: 2, environment });
      });
      afterAll(() => real?.stop());

      test("pinned on both nodes, counted, unpinned; the cluster killed in between; what nobody has fails", async () => {
        const target = await postgres.createDatabase();
        const pool = poolOf(target);
        const [master, follower] = real.peers;
        if (master === undefined || follower === undefined) throw new Error("two peers");
        const cluster = openCluster({ endpoint: master.apiUrl });
        onTestFinished(() => cluster.close());
        const content = randomBytes(300_000).toString("hex");
        const cid = await master.ipfs(["add", "-q", "--pin=false", "--cid-version=1"], content);
        const kubo = master.kuboUrl;
        const worker = workOn(
          target,
          { url: master.apiUrl },
          { dagSize: (text, ms) => readDagSize(http, kubo, text, ms) },
        );

        const id = await accept(pool, { account: "u", cid, name: "real", meta: { a: "b" } });
        await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
        const { size } = await factsOf(target, id);
        expect(size).toBeGreaterThan(600_000);
        expect(size).toBeLessThan(610_000);
        expect(await cluster.allocation(cid)).toMatchObject({ name: "" });
        const pins = () => follower.ipfs(["pin", "ls", "--type=recursive", "-q"]);
        await eventually("the follower has it", async () => (await pins()).includes(cid));

        const nobody = cidOf("nobody has this");
        const unfound = await accept(pool, { account: "u", cid: nobody, deadlineMs: 8_000 });
        const second = await master.ipfs(["add", "-q", "--pin=false", "--cid-version=1"], "second");
        const kept = await accept(pool, {
          account: "w",
          cid: await master.ipfs(["add", "-q", "--pin=false", "--cid-version=1"], "kept"),
        });
        await expect.poll(() => standingOf(target, kept), SLOW).toBe("pinned");
        // The last one is only in its memory: a killed ipfs-cluster comes back without it.
        await master.stopCluster("SIGKILL");
        const during = await accept(pool, { account: "v", cid: second });
        await remove(pool, id);
        // What it finds out now makes it look at all pins once the cluster is back.
        await expect.poll(() => worker.state().fault, SLOW).not.toBeNull();
        await master.startCluster();
        await expect.poll(() => standingOf(target, during), SLOW).toBe("pinned");
        await expect.poll(() => standingOf(target, unfound), SLOW).toBe("failed");
        await expect.poll(() => workLeft(target), SLOW).toBe(0);
        expect((await factsOf(target, unfound)).info["details"]).toMatch(
          /^No node (could get|found) the content/,
        );
        await eventually("the follower has the second", async () => (await pins()).includes(second));
        expect(await cluster.allocation(cid)).toBeNull();
        expect(await cluster.allocation(nobody)).toBeNull();
        const [row] = await pool.query<{ cid: string }>("SELECT cid FROM pins WHERE requestid = $1", [kept]);
        await eventually("what was pinned is in the pinset again", async () =>
          cluster.allocation(row?.cid ?? ""),
        );
        await expect.poll(() => standingOf(target, kept), SLOW).toBe("pinned");
      }, 180_000);

      test("the operator's pin is served, and neither renamed nor unpinned; an account's bears the mark", async () => {
        const target = await postgres.createDatabase();
        const pool = poolOf(target);
        const [master] = real.peers;
        if (master === undefined) throw new Error("a peer");
        const cluster = openCluster({ endpoint: master.apiUrl });
        onTestFinished(() => cluster.close());
        const add = (text: string, version: number) =>
          master.ipfs(["add", "-q", "--pin=false", `--cid-version=${version}`], text);
        const [v0, own] = [await add("operator's content", 0), await add("account's content", 1)];
        await cluster.pin(`/pins/${v0}?name=operators&meta-team=ops`);
        const pinned = await cluster.allocation(v0);
        expect(pinned).toMatchObject({ name: "operators", metadata: { team: "ops" } });
        workOn(target, { url: master.apiUrl });
        const ids = [
          await accept(pool, { account: "u", cid: v0, name: "mine" }),
          await accept(pool, { account: "u", cid: own, name: "mine" }),
        ];
        for (const id of ids) await expect.poll(() => standingOf(target, id), SLOW).toMatch(/^pinned/);
        const [row] = await sql<{ mark: string }>(target, "SELECT mark FROM pin_mark");
        expect(await cluster.allocation(v0)).toEqual(pinned);
        expect(await cluster.allocation(own)).toMatchObject({
          name: "",
          metadata: { "fula-node-database": row?.mark },
        });
        for (const id of ids) await remove(pool, id);
        await expect.poll(() => workLeft(target), SLOW).toBe(0);
        expect(await cluster.allocation(v0)).toEqual(pinned);
        expect(await cluster.allocation(own)).toBeNull();
      }, 120_000);

      test("an identity CID is pinned; the API refuses those that kubo refuses, and no others", async () => {
        const target = await postgres.createDatabase();
        const pool = poolOf(target);
        const [master] = real.peers;
        if (master === undefined) throw new Error("a peer");
        const of = (code: number, size: number, codec = 0x55) =>
          CID.createV1(codec, create(code, new Uint8Array(size).fill(65))).toString();
        const identity = of(0, 5);
        for (const [cid, isTaken] of [
          [identity, true],
          [of(0, 0), true],
          [of(0, 0, 0x70), true],
          [of(0, 128), true],
          [of(0, 129), false],
          [of(0x12, 16), false],
          [of(0xd5, 16), false],
          [of(0xd5, 20), false],
          [of(0x3f_ffff, 32), false],
        ] as const) {
          expect([cid, "value" in readPinBody({ cid })]).toEqual([cid, isTaken]);
          const kubo = master.ipfs(["pin", "add", cid]).then(
            () => true,
            () => false,
          );
          expect([cid, await kubo]).toEqual([cid, isTaken]);
        }
        // Nobody has these, so kubo searches for them. What it refuses, it refuses at once.
        for (const code of [0x11, 0x13, 0x17, 0x19, 0x1a, 0x1d, 0x1e, 0x56, 0xb214, 0xb240, 0xb254, 0xb260]) {
          const cid = of(code, 20);
          expect([code, "value" in readPinBody({ cid })]).toEqual([code, true]);
          const why = master.ipfs(["--timeout=300ms", "pin", "add", cid]).catch(String);
          expect(await why).toMatch(/deadline|timeout|timed out|canceled/);
        }
        workOn(
          target,
          { url: master.apiUrl },
          { dagSize: (text, ms) => readDagSize(http, master.kuboUrl, text, ms) },
        );
        const id = await accept(pool, { account: "u", cid: identity });
        await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
        expect(await factsOf(target, id)).toEqual({ info: {}, size: 5 });
      }, 120_000);

      test("the size of content that nobody has is an error within the limit", async () => {
        const kubo = real.peers[0]?.kuboUrl ?? "";
        const before = performance.now();
        await expect(readDagSize(http, kubo, cidOf("no size"), 1_500)).rejects.toThrow(/dag\/stat/);
        expect(performance.now() - before).toBeLessThan(4_000);
        await expect(readDagSize(http, "http://127.0.0.1:1", cidOf("x"), 500)).rejects.toThrow(
          "did not answer",
        );
      });
    },
    { template: migrate },
  );
