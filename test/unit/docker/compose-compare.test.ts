import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parse, stringify } from "yaml";
import { compareCompose } from "../../../src/docker/compose-render.ts";
import { masterOf, sha256, writerOf } from "./compose-fragments.ts";

const wanted = masterOf().text;

function differencesOf(onDisk: string, against = wanted): readonly string[] {
  const verdict = compareCompose(onDisk, against, sha256);
  return verdict.kind === "differs" ? verdict.differences : [];
}

function withKeysReversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withKeysReversed);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, withKeysReversed(item)] as const);
  return Object.fromEntries(entries.toReversed());
}

describe("compareCompose", () => {
  it("distinguishes an absent file, a foreign one and an equal one", () => {
    expect(compareCompose(null, wanted, sha256)).toEqual({ kind: "absent" });
    expect(compareCompose("", wanted, sha256)).toEqual({ kind: "not-ours" });
    expect(compareCompose(wanted.split("\n").slice(1).join("\n"), wanted, sha256)).toEqual({
      kind: "not-ours",
    });
    expect(compareCompose(wanted, wanted, sha256)).toEqual({ kind: "same" });
  });

  it("does not mind comments, layout or the order of keys", () => {
    for (const { text } of [masterOf(), writerOf()]) {
      const [marker = ""] = text.split("\n", 1);
      const reversed = stringify(withKeysReversed(parse(text)), { indent: 4 });
      const onDisk = `${marker}\n# a note of the operator\n${reversed}`;
      expect(onDisk).not.toBe(text);
      expect(compareCompose(onDisk, text, sha256)).toEqual({ kind: "same" });
    }
  });

  it("distinguishes a new desired document from an edit by hand", () => {
    const older = masterOf({ postgres: null }).text;
    expect(compareCompose(older, wanted, sha256)).toMatchObject({ kind: "differs", edited: false });
    const edited = wanted.replace("127.0.0.1:${POSTGRES_PORT", "0.0.0.0:${POSTGRES_PORT");
    expect(compareCompose(edited, wanted, sha256)).toEqual({
      kind: "differs",
      edited: true,
      differences: [
        'services.postgres.ports is ["0.0.0.0:${POSTGRES_PORT:-5432}:5432"]; expected ["127.0.0.1:${POSTGRES_PORT:-5432}:5432"].',
      ],
    });
  });

  it("names what is missing and what is too much", () => {
    const elsewhere = masterOf({ postgres: null }).text;
    expect(differencesOf(elsewhere)).toEqual([
      "services.postgres is missing.",
      "volumes.pgdata is missing.",
      "networks is missing.",
    ]);
    expect(differencesOf(wanted, elsewhere)).toEqual([
      "services.postgres should not be there.",
      "volumes.pgdata should not be there.",
      "networks should not be there.",
    ]);
  });

  it("names a changed script by its hash alone, and hides the hash behind any other difference", () => {
    const scripts = { kubo: "old", "ipfs-cluster": "old" };
    const differences = differencesOf(writerOf({ scripts }).text, writerOf().text);
    expect(differences.length).toBe(2);
    for (const difference of differences)
      expect(difference).toMatch(/^services\.[a-z-]+: its settings or files changed\.$/);
    const both = differencesOf(writerOf({ scripts, startInterval: false }).text, writerOf().text);
    expect(both.join(" ")).not.toMatch(/fula-node\.spec|files changed/);
  });

  it("never repeats what somebody put into an environment", () => {
    const leaked = wanted.replace(/JWT_SECRET: .*/, "JWT_SECRET: hunter2hunter2");
    expect(differencesOf(leaked).length).toBe(1);
    expect(differencesOf(leaked)[0]).toContain("services.pinning-api.environment.JWT_SECRET");
    expect(differencesOf(leaked).join()).not.toContain("hunter2");
    const replaced = wanted.replace(/command:\n\s+- serve\n\s+- webui/, "command: { a: hunter2 }");
    expect(differencesOf(replaced).length).toBe(1);
    expect(differencesOf(replaced).join()).not.toContain("hunter2");
  });

  it("says so if the file is not YAML", () => {
    const broken = wanted.replace("services:", "services: [");
    expect(compareCompose(broken, wanted, sha256)).toMatchObject({ kind: "differs", edited: true });
    expect(differencesOf(broken)[0]).toMatch(/^The file is not valid YAML: /);
  });

  it("notices any single line that is dropped", () => {
    const lines = wanted.split("\n");
    fc.assert(
      fc.property(fc.integer({ min: 2, max: lines.length - 2 }), (index) => {
        const onDisk = lines.toSpliced(index, 1).join("\n");
        const { kind } = compareCompose(onDisk, wanted, sha256);
        expect(kind).toBe("differs");
      }),
    );
  });
});
