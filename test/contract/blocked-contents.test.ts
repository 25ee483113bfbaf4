import { base16upper } from "multiformats/bases/base16";
import { base32 } from "multiformats/bases/base32";
import { CID } from "multiformats/cid";
import { create as digestOf } from "multiformats/hashes/digest";
import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { contentOf, parseCid, spellingsOf } from "../../src/pinning/content-id.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";

/** CIDs of many codecs, hashes and lengths. */
function someCids(): readonly CID[] {
  const hashes = [
    [0x12, 32],
    [0x13, 64],
    [0x1b, 32],
    [0x1e, 32],
    [0xb220, 32],
    [0x00, 1],
    [0x00, 36],
  ] as const;
  return hashes.flatMap(([code, size]) =>
    [0x55, 0x70, 0x71, 0x0129, 0x0200, 0x300000].map((codec) =>
      CID.createV1(codec, digestOf(code, randomBytes(size))),
    ),
  );
}

describeOnPostgres(
  "migration 031",
  (postgres) => {
    test("the database and this program read the same content from a CID in every spelling", async () => {
      const target = await postgres.createDatabase();
      const texts = [V0, ...someCids().map((cid) => cid.toString(base32))].flatMap((text) => {
        const parsed = parseCid(text);
        if (parsed === null) throw new Error(text);
        return spellingsOf(parsed).map((spelling) => ({ spelling, content: contentOf(parsed) }));
      });
      expect(texts.length).toBeGreaterThan(300);
      const read = await sql<{ content: string }>(
        target,
        "SELECT cid_content(t) AS content FROM unnest($1::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n",
        [texts.map(({ spelling }) => spelling)],
      );
      expect(read.map(({ content }) => content)).toEqual(texts.map(({ content }) => content));
    });

    test.each([
      ["", null],
      ["x", null],
      ["Qm", null],
      ["QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbd0", null],
      ["b", null],
      ["z", null],
      ["f01", null],
      ["f0155", null],
      ["bafy!", null],
      [`b${"a".repeat(300)}`, null],
      [`f${"80".repeat(100)}`, null],
      [`f01${"80".repeat(100)}`, null],
      [`/ipfs/${V0}/a`, null],
      ["https://example.org", null],
      ["\u{1F511}", null],
      [` ${V0}\n`, "itself"],
      [`ipfs://${V0}`, "itself"],
      [CID.parse(V0).toV1().toString(base16upper).toLowerCase(), "itself"],
    ])("a row never fails, and what is no CID has no content: %j", async (text, content) => {
      const target = await postgres.createDatabase();
      const own = parseCid(V0);
      await sql(target, "INSERT INTO blocked_cids (cid) VALUES ($1)", [text]);
      const [row] = await sql<{ content: string | null }>(
        target,
        "SELECT cid_content(cid) AS content FROM blocked_cids",
      );
      expect(row?.content ?? null).toBe(content === null || own === null ? null : contentOf(own));
    });

    declarePartTests(postgres, {
      file: "031_blocked_contents.sql",
      breaks: [["DROP INDEX idx_blocked_cids_content", "index idx_blocked_cids_content"]],
    });

    test("down refuses while contents are blocked", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "INSERT INTO blocked_cids (cid) VALUES ($1)", [V0]);
      await expect(migratorOf().down(target, [31], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "031_blocked_contents.down.sql refuses: blocked_cids has 1 row(s).",
      });
      await sql(target, "DELETE FROM blocked_cids");
      await migratorOf().down(target, [31], listen());
      await migratorOf().up(target, listen());
    });
  },
  { template: migrate },
);
