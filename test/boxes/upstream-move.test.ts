import { base58btc } from "multiformats/bases/base58";
import { CID } from "multiformats/cid";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AS_OPERATOR, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, health, psql, readEnv, rejoin, skipped, stderrOf } from "../support/master-box.ts";
import { addContent } from "../support/storage-boxes.ts";
import {
  digestTables,
  installUpstreamMaster,
  tablesOf,
  UPSTREAM_IMAGES,
  UPSTREAM_THINGS,
} from "../support/upstream-master.ts";
import {
  ask,
  buildUpstreamImages,
  clusterPins,
  createUpstreamUser,
  listAll,
  type ListedPin,
  UPSTREAM_SERVICES,
  type UpstreamUser,
} from "../support/upstream-services.ts";
import { FULA_WRITER, pinThroughWriter, startWriterUnits } from "../support/upstream-writer.ts";

const ADOPT = ["--set", `ENCRYPTION_KEY=${"ab".repeat(32)}`].concat(
  UPSTREAM_THINGS.flatMap((step) => ["--adopt", step]),
);
const BACK = [`PINNING_API_IMAGE=${UPSTREAM_IMAGES.api}`, `WEBUI_IMAGE=${UPSTREAM_IMAGES.webui}`].flatMap(
  (setting) => ["--set", setting],
);
const IMAGES = "docker inspect --format '{{.Config.Image}}' fula-pinning-api fula-pinning-webui";
const IDS = "docker inspect --format '{{.Id}} {{.State.StartedAt}}' fula-pinning-api fula-pinning-webui";
/** What no move changes of a request: everything but its status and what follows from it. */
const KEPT = `SELECT requestid, username, cid, name, name_lowercase, origins, meta, delegates, upload_status, remove_status,
  session_token, token_hash, created_at FROM pins WHERE id <= $MAX ORDER BY id`;

describe.skipIf(skipped !== undefined)("a master of the bash scripts, moved to our services by name", () => {
  let box: Box;
  let ann: UpstreamUser;
  /** Her session and her requests are from before upstream had ids. */
  let old: UpstreamUser;
  let contents: readonly string[];
  let before: {
    readonly ann: readonly ListedPin[];
    readonly old: readonly ListedPin[];
    readonly kept: string;
    readonly bytes: string;
    readonly use: unknown;
    readonly rows: readonly string[];
  };
  let ids: string;
  /** Pins of the cluster that no user has. */
  let others: ReadonlySet<string>;

  const kept = async (max: string) => psql(box, `${KEPT.replace("$MAX", max)};`);
  const pinnedBytes = () =>
    psql(box, "SELECT sum(size) FROM pins WHERE requestid LIKE 'was-%' OR length(requestid) = 32;");
  const use = async (user: UpstreamUser) =>
    ((await ask(box, user, "GET", "3001/api/v1/storage")).body as { readonly currentStorageBytes: number })
      .currentStorageBytes;
  const rowsOf = async () => {
    const own = ["pins", "api_keys", "fula_node"];
    return digestTables(
      box,
      upstreamTables.filter((name) => !own.includes(name)),
    );
  };
  let upstreamTables: readonly string[];
  let last: string;
  /** A request without what a move may change. */
  const facts = ({ requestid, created, pin }: ListedPin) => ({
    requestid,
    createdMs: Date.parse(created),
    cid: pin.cid,
    name: pin.name ?? "",
    origins: pin.origins,
    meta: pin.meta,
  });
  const parts = async () => {
    const { stdout } = await fulaNode(box, ["status", "--json"]);
    const report = JSON.parse(stdout) as { readonly parts: readonly { name: string; state: string }[] };
    return Object.fromEntries(report.parts.map(({ name, state }) => [name, state]));
  };
  const insert = (id: string, user: UpstreamUser, cid: string, status: string, more = "") =>
    psql(
      box,
      `INSERT INTO pins (requestid, user_id, cid, status, name, name_lowercase${more === "" ? "" : ", info"})
       VALUES ('${id}', '${user.id}', '${cid}', '${status}', 'Ä ${id}', 'ä ${id}'${more === "" ? "" : `, '${more}'`});`,
    );

  beforeAll(async () => {
    box = await Box.boot({ name: "move", image: "docker" });
    await installArtifact(box);
    await startWriterUnits(box, FULA_WRITER);
    await pinThroughWriter(box, 1);
    others = await clusterPins(box);
    await buildUpstreamImages(box);
    await installUpstreamMaster(box, UPSTREAM_SERVICES);
    upstreamTables = await tablesOf(box);
    ann = await createUpstreamUser(box, "Ann@Example.org");
    old = await createUpstreamUser(box, "Old.User@example.org", { isNamed: true });
    contents = await Promise.all(Array.from({ length: 7 }, () => addContent(box, 40_000)));
    const [first = "", v0 = "", shared = "", gone = "", queued = "", pinning = "", ofOld = ""] = contents;
    // A CIDv0 is text of another kind than the same content's CIDv1.
    const { stdout: raw } = await box.run(
      "head -c 40000 /dev/urandom | docker exec -i ipfs_host ipfs add -Q",
    );
    contents = [first, raw.trim(), shared, gone, queued, pinning, ofOld, v0];
    const meta = { app: "x", ключ: "значение" };
    for (const [cid, name] of [
      [first, "Straße 1"],
      [raw.trim(), ""],
      [shared, "shared"],
      [gone, "gone"],
    ] as const) {
      const pin = { cid, name, meta, origins: ["/ip4/127.0.0.1/tcp/4001"] };
      expect((await ask(box, ann, "POST", "6000/pins", pin)).status).toBe(202);
    }
    await eventually("upstream's API has pinned them, with their sizes", async () => {
      const sized = await psql(box, "SELECT count(*) FROM pins WHERE size > 0 AND length(requestid) = 32;");
      return sized === "4" && (await clusterPins(box)).size === others.size + 4;
    });
    const goneId = (await listAll(box, ann)).find(({ pin }) => pin.cid === gone)?.requestid ?? "";
    expect((await ask(box, ann, "DELETE", `6000/pins/${goneId}`)).status).toBe(202);
    // Upstream's API was killed between these rows and the cluster.
    await insert("was-queued", ann, queued, "queued");
    await insert("was-pinning", ann, pinning, "pinning");
    await insert("was-failed", ann, v0, "failed", '{"error":"gone"}');
    // From before upstream had ids, and one content in the spelling of its sender.
    for (const [id, cid] of [
      ["was-old", ofOld],
      ["was-shared", CID.parse(shared).toString(base58btc)],
    ] as const) {
      await psql(
        box,
        `INSERT INTO pins (requestid, username, cid, status, name, name_lowercase, size)
         VALUES ('${id}', '${old.email}', '${cid}', 'pinned', '${id}', '${id}', 40000);`,
      );
      await box.run(`curl -sf ${AS_OPERATOR} -X POST http://127.0.0.1:9094/pins/${cid}`);
    }
    last = await psql(box, "SELECT max(id) FROM pins;");
    before = {
      ann: await listAll(box, ann),
      old: await listAll(box, old),
      kept: await kept(last),
      bytes: await pinnedBytes(),
      use: await use(ann),
      rows: await rowsOf(),
    };
    ids = (await box.run(IDS)).stdout;
  });
  afterAll(() => box?.destroy());

  test("adopted, it keeps its images and containers, its tokens work, and status is ok", async () => {
    expectExit(await fulaNode(box, ["join-as-master", "--yes", ...ADOPT]), 0);
    expect((await box.run(IDS)).stdout).toBe(ids);
    expect((await box.run(IMAGES)).stdout).toBe(`${UPSTREAM_IMAGES.api}\n${UPSTREAM_IMAGES.webui}`);
    expect(before.ann.map(({ status }) => status).toSorted()).toEqual([
      "failed",
      "pinned",
      "pinned",
      "pinned",
      "pinning",
      "queued",
    ]);
    expect(await listAll(box, ann)).toEqual(before.ann);
    expect(await listAll(box, old)).toEqual(before.old);
    expect(await use(ann)).toBe(before.use);
    expect(await kept(last)).toBe(before.kept);
    expect(await rowsOf()).toEqual(before.rows);
    expect(await parts()).toMatchObject({ "pinning API": "ok", "storage API": "ok", database: "ok" });
  });

  test("each service is moved by its name only, and the plan says what is lost", async () => {
    const set = ["PINNING_API_IMAGE", "WEBUI_IMAGE"].flatMap((key) => ["--set", `${key}=fula-node`]);
    const refused = await rejoin(box, set);
    expectExit(refused, 22);
    for (const text of ["--replace pinning-api", "--replace webui", "no web pages"])
      expect(stderrOf(refused)).toContain(text);
    expect((await box.run(IDS)).stdout).toBe(ids);
    expectExit(await rejoin(box, ["--replace", "pinning-api", "--replace", "webui"]), 0);
    expect(await readEnv(box)).toMatchObject({ PINNING_API_IMAGE: "fula-node", WEBUI_IMAGE: "fula-node" });
    expect(await health(box)).toMatchObject({
      "fula-pinning-api": "running healthy",
      "fula-pinning-webui": "running healthy",
    });
    const again = await rejoin(box);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
  });

  test("no row, no session and no pin is lost, and what was queued is pinned in the cluster", async () => {
    await eventually(
      "what upstream's API left is pinned",
      async () => (await psql(box, "SELECT count(*) FROM pin_work;")) === "0",
      60_000,
    );
    const now = await listAll(box, ann);
    expect(now.map(facts)).toEqual(before.ann.map(facts));
    expect((await listAll(box, old)).map(facts)).toEqual(before.old.map(facts));
    expect(before.old.length).toBe(2);
    const statuses = Object.fromEntries(now.map(({ requestid, status }) => [requestid, status]));
    expect(statuses).toMatchObject({
      "was-queued": "pinned",
      "was-pinning": "pinned",
      "was-failed": "failed",
    });
    const [first = "", raw = "", shared = "", gone = "", queued = "", pinning = "", ofOld = ""] = contents;
    expect([...(await clusterPins(box))].toSorted()).toEqual(
      [...others, first, raw, shared, queued, pinning, ofOld].toSorted(),
    );
    expect(await clusterPins(box)).not.toContain(gone);
    expect(await kept(last)).toBe(before.kept);
    expect(await rowsOf()).toEqual(before.rows);
    const added = "SELECT sum(size) FROM pins WHERE requestid IN ('was-queued', 'was-pinning');";
    const grown = Number(await psql(box, added));
    expect(grown).toBeGreaterThanOrEqual(80_000);
    expect(Number(await pinnedBytes())).toBe(Number(before.bytes) + grown);
    expect(await use(ann)).toBe(Number(before.use) + grown);
    expect(await use(old)).toBe(80_000);
    expect(await parts()).toMatchObject({ "pinning API": "ok", "storage API": "ok", database: "ok" });
  });

  test("a deleted pin is unpinned, unless another user has its content", async () => {
    const [first = "", , shared = ""] = contents;
    const idOf = async (user: UpstreamUser, found: (pin: ListedPin) => boolean) =>
      (await listAll(box, user)).find(found)?.requestid ?? "";
    const remove = async (user: UpstreamUser, id: string) => {
      expect((await ask(box, user, "DELETE", `6000/pins/${id}`)).status).toBe(202);
      await eventually(
        `${id} is worked on`,
        async () => (await psql(box, "SELECT count(*) FROM pin_work;")) === "0",
      );
    };
    await remove(ann, await idOf(ann, ({ pin }) => pin.cid === first));
    expect(await clusterPins(box)).not.toContain(first);
    await remove(ann, await idOf(ann, ({ pin }) => pin.cid === shared));
    expect(await clusterPins(box)).toContain(shared);
    await remove(old, "was-shared");
    expect(await clusterPins(box)).not.toContain(shared);
    expect((await listAll(box, ann)).length).toBe(before.ann.length - 2);
  });

  test("the way back: upstream's images serve the same rows again, and the way forth works again", async () => {
    const [ours, mine] = [await listAll(box, ann), await kept(last)];
    const bytes = await use(ann);
    expectExit(await rejoin(box, BACK), 0);
    expect((await box.run(IMAGES)).stdout).toBe(`${UPSTREAM_IMAGES.api}\n${UPSTREAM_IMAGES.webui}`);
    expect((await listAll(box, ann)).map(facts)).toEqual(ours.map(facts));
    expect((await listAll(box, old)).map(({ requestid }) => requestid)).toEqual(["was-old"]);
    expect(await kept(last)).toBe(mine);
    expect(await use(ann)).toBe(bytes);
    expect(await parts()).toMatchObject({ "pinning API": "ok", "storage API": "ok" });
    const cid = await addContent(box, 40_000);
    expect((await ask(box, ann, "POST", "6000/pins", { cid, name: "by upstream" })).status).toBe(202);
    await eventually("upstream's API has pinned it", async () => {
      const pin = (await listAll(box, ann)).find(({ pin: { name } }) => name === "by upstream");
      return pin?.status === "pinned" && (await use(ann)) > bytes;
    });
    const late = await addContent(box, 40_000);
    await insert("was-late", ann, late, "queued");
    const theirs = await listAll(box, ann);
    const used = await use(ann);

    expectExit(await rejoin(box, ["--replace", "pinning-api", "--replace", "webui"]), 0);
    await eventually("the late one is pinned", async () => (await clusterPins(box)).has(late), 60_000);
    expect((await listAll(box, ann)).map(facts)).toEqual(theirs.map(facts));
    await eventually("its size is counted", async () => (await use(ann)) > used);
    const byUpstream = theirs.find(({ pin }) => pin.name === "by upstream")?.requestid ?? "";
    expect((await ask(box, ann, "DELETE", `6000/pins/${byUpstream}`)).status).toBe(202);
    await eventually(
      "what upstream's API pinned meanwhile is unpinned",
      async () => !(await clusterPins(box)).has(cid),
    );
    expectExit(await rejoin(box), 0);
  });
});
