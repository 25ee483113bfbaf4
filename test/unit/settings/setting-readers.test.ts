import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { WRITER_SCRIPTS } from "../../../src/docker/compose-document.ts";
import {
  MASTER_FRAGMENTS,
  namedKeys,
  parseFragment,
  STORAGE_FRAGMENTS,
  WRITER_FRAGMENTS,
} from "../../../src/docker/compose-render.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import { describeSetting, type SettingSpec } from "../../../src/settings/settings.ts";
import { STORAGE_SETTINGS } from "../../../src/settings/storage.ts";
import { readShipped } from "../docker/compose-fragments.ts";

const SRC = new URL("../../../src/", import.meta.url).pathname;
/** Lists of settings name every key, and read none. */
const LIST = /export const (?:(?:MASTER|STORAGE)_(?:SETTINGS|RECOVERABLE)|ROTATED)/;

/** Scripts that run inside kubo's and ipfs-cluster's containers are ours too. */
const scripts = Object.values(WRITER_SCRIPTS).map(readShipped);
const sources = readdirSync(SRC, { recursive: true, encoding: "utf8" })
  // What compares two settings, or gives them to another master, does not read them.
  .filter(
    (name) => name.endsWith(".ts") && !/(?:settings\/conflicts|federation\/master-invite)\.ts$/.test(name),
  )
  .map((name) => readFileSync(join(SRC, name), "utf8"))
  .filter((text) => !LIST.test(text))
  // A problem that is about a key is not a reader of it.
  .map((text) => text.replaceAll(/subject: "[A-Z_]+"/g, ""));

/** True if a step, a verb, a service or a script of ours asks for the value. */
function isRead(key: string): boolean {
  const reading = new RegExp(`"${key}"|\\.${key}\\b`);
  const expanding = new RegExp(`\\$\\{?${key}\\b`);
  return sources.some((text) => reading.test(text)) || scripts.some((text) => expanding.test(text));
}

/** SQL that counts the rows which depend on the secret; the value itself is never used. */
const COUNTED = ["SESSION_SECRET"];

describe.each<[string, readonly SettingSpec[], readonly string[]]>([
  ["master", MASTER_SETTINGS, [...MASTER_FRAGMENTS, ...WRITER_FRAGMENTS]],
  ["storage node", STORAGE_SETTINGS, STORAGE_FRAGMENTS],
])("every setting of a %s", (_, specs, fragments) => {
  const passedOn = new Set(fragments.flatMap((name) => namedKeys(parseFragment(readShipped(`${name}.yml`)))));

  it("is read by fula-node, or a compose document passes it on to images that are named", () => {
    const unread = specs.filter(({ key, readBy }) =>
      readBy === undefined ? !isRead(key) : !passedOn.has(key),
    );
    expect(unread.map(({ key }) => key)).toEqual([]);
  });

  it("has the default of the compose documents, since a default is in no .env", () => {
    const texts = fragments.map((name) => readShipped(`${name}.yml`));
    for (const { key, byDefault, bound } of specs) {
      const named = texts.flatMap((text) =>
        Array.from(
          text.matchAll(new RegExp(`\\$\\{${key}(?::-([^{}]*))?\\}`, "g")),
          ([, value]) => value ?? "",
        ),
      );
      const ownDefaults = named.filter((value) => value !== (byDefault ?? ""));
      expect(ownDefaults, key).toEqual([]);
      // A key without a value gets nothing where .env has nothing.
      const isHandedOn = texts.some((text) => new RegExp(`^ +${key}:$`, "m").test(text));
      expect(isHandedOn && byDefault !== undefined && bound !== true, key).toBe(false);
    }
  });

  it("is marked as read by images only while fula-node does not read it", () => {
    const marked = specs.filter(({ key, readBy }) => readBy !== undefined && isRead(key));
    expect(marked.map(({ key }) => key).filter((key) => !COUNTED.includes(key))).toEqual([]);
  });

  it("says in its description which images read it", () => {
    for (const spec of specs) {
      const remark = { none: "", upstream: "upstream's images", "ipfs-cluster": "ipfs-cluster itself" };
      expect(describeSetting(spec)).toContain(spec.about);
      expect(describeSetting(spec)).toContain(remark[spec.readBy ?? "none"]);
    }
  });
});

it("knows a reader from a key that only stands in a list", () => {
  expect([isRead("KEEP"), isRead("ADMIN_EMAILS"), isRead("NO_SUCH_SETTING")]).toEqual([true, false, false]);
});
