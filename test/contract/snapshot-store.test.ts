import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openAlertLog } from "../../src/pinset/alerts.ts";
import { openSnapshotStore } from "../../src/pinset/snapshot/store.ts";
import { cidOf } from "../support/cids.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "fula-store-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const line = (text: string): Buffer => Buffer.from(`${JSON.stringify({ cid: cidOf(text), type: "pin" })}\n`);

test("files get their names only at commit, and are private from the start", async () => {
  const store = openSnapshotStore(join(directory, "snapshots"));
  const draft = await store.begin("pinset-1");
  await draft.write(line("a"));
  expect(readdirSync(store.directory)).toEqual([".pinset-1.ndjson.gz.partial"]);
  const facts = await draft.finish();
  expect(facts).toMatchObject({ count: 1, byType: { pin: 1 }, plainBytes: line("a").length });
  await draft.commit(Buffer.from("manifest"), Buffer.from("signature"));
  expect(readdirSync(store.directory)).toEqual([
    "pinset-1.manifest.json",
    "pinset-1.manifest.sig",
    "pinset-1.ndjson.gz",
  ]);
  for (const file of readdirSync(store.directory))
    expect(statSync(join(store.directory, file)).mode & 0o777).toBe(0o600);
  expect(statSync(store.directory).mode & 0o777).toBe(0o700);
  expect(await store.hashBody("pinset-1")).toBe(facts.sha256);
  expect(await store.list()).toMatchObject([{ name: "pinset-1", bodyBytes: facts.sizeBytes }]);
  await store.remove("pinset-1");
  expect(readdirSync(store.directory)).toEqual([]);
  expect(await store.hashBody("pinset-1")).toBeNull();
});

const [BODY, MANIFEST, SIGNATURE] = ["pinset-1.ndjson.gz", "pinset-1.manifest.json", "pinset-1.manifest.sig"];
const hidden = (file: string): string => `.${file}.partial`;

test.each([
  ["before its first rename", [hidden(BODY), hidden(MANIFEST), hidden(SIGNATURE)]],
  ["after its body's rename", [BODY, hidden(MANIFEST), hidden(SIGNATURE)]],
  ["after its manifest's rename", [BODY, MANIFEST, hidden(SIGNATURE)]],
  ["while the next one removed it", [MANIFEST, hidden(SIGNATURE)]],
])("a commit that was cut off %s is no snapshot, and the next one removes it", async (_when, left) => {
  const store = openSnapshotStore(directory);
  for (const file of left) writeFileSync(join(directory, file), file);
  expect(await store.list()).toEqual([]);
  const draft = await store.begin("pinset-2");
  expect(readdirSync(directory)).toEqual([".pinset-2.ndjson.gz.partial"]);
  await draft.discard();
});

test("a snapshot that has its signature stays, whatever was left hidden; one without any is shown, as damaged", async () => {
  const store = openSnapshotStore(directory);
  for (const file of [BODY, MANIFEST, SIGNATURE, hidden(SIGNATURE)]) writeFileSync(join(directory, file), "");
  writeFileSync(join(directory, "pinset-0.manifest.json"), "");
  expect((await store.list()).map(({ name }) => name)).toEqual(["pinset-0", "pinset-1"]);
  await (await store.begin("pinset-2")).discard();
  expect(readdirSync(directory).sort()).toEqual([
    "pinset-0.manifest.json",
    ...[BODY, MANIFEST, SIGNATURE].sort(),
  ]);
});

test("a commit that fails between its renames leaves nothing", async () => {
  const store = openSnapshotStore(directory);
  const draft = await store.begin("pinset-1");
  await draft.write(line("a"));
  await draft.finish();
  mkdirSync(join(directory, SIGNATURE, "in-the-way"), { recursive: true });
  await expect(draft.commit(Buffer.from("manifest"), Buffer.from("signature"))).rejects.toMatchObject({
    exit: "unavailable",
  });
  rmSync(join(directory, SIGNATURE), { recursive: true });
  expect(await store.list()).toEqual([]);
  await draft.discard();
  expect(readdirSync(directory)).toEqual([]);
});

test("a discarded draft leaves nothing", async () => {
  const store = openSnapshotStore(directory);
  const draft = await store.begin("pinset-1");
  await draft.write(line("a"));
  await draft.discard();
  expect(readdirSync(directory)).toEqual([]);
});

test.skipIf(process.getuid?.() !== 0)(
  "a full disk is reported as full, and no incomplete file stays",
  async () => {
    const disk = join(directory, "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]);
    try {
      const store = openSnapshotStore(disk);
      const draft = await store.begin("pinset-1");
      const fill = async (): Promise<void> => {
        for (let turn = 0; turn < 100; turn++) {
          const metadata = { noise: randomBytes(40_000).toString("base64") };
          await draft.write(Buffer.from(`${JSON.stringify({ cid: cidOf(String(turn)), metadata })}\n`));
        }
        await draft.finish();
      };
      await expect(fill()).rejects.toMatchObject({
        exit: "unavailable",
        what: expect.stringContaining("is full"),
      });
      await draft.discard();
      expect(readdirSync(disk)).toEqual([]);
    } finally {
      execFileSync("umount", [disk]);
    }
  },
);

test("the alert log is appended to, and rotated before it grows too large", async () => {
  const path = join(directory, "logs", "replication-alerts.log");
  const log = openAlertLog(path, { maxBytes: 10, keep: 2 });
  for (const text of ["first line", "second line", "third line", "fourth line"]) await log.append([text]);
  await log.append([]);
  expect(readFileSync(path, "utf8")).toBe("fourth line\n");
  expect(readFileSync(`${path}.1`, "utf8")).toBe("third line\n");
  expect(readFileSync(`${path}.2`, "utf8")).toBe("second line\n");
  expect(readdirSync(join(directory, "logs"))).toHaveLength(3);
});
