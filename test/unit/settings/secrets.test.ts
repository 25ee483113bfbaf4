import { describe, expect, it } from "vitest";
import { RULES } from "../../../src/settings/rules.ts";
import {
  decideSecret,
  mayBeLost,
  type SecretFacts,
  type SecretVerdict,
} from "../../../src/settings/secrets.ts";
import type { SettingSpec } from "../../../src/settings/settings.ts";

const about = "for the test";
const OPTION: SettingSpec = { key: "OPTION", about, rule: RULES.any };
const PORT: SettingSpec = { key: "PORT", about, rule: RULES.port, byDefault: "1" };
const TOKEN: SettingSpec = { key: "TOKEN", about, rule: RULES.any, secret: true };
const PASSWORD: SettingSpec = {
  ...TOKEN,
  key: "PASSWORD",
  immutable: true,
  generated: { kind: "token", characters: 40 },
};
/** An identity: nothing is encrypted or signed with it. */
const IDENTITY: SettingSpec = {
  key: "IDENTITY",
  about,
  rule: RULES.any,
  generated: { kind: "hex", bytes: 16 },
};
const KEY: SettingSpec = { ...PASSWORD, key: "KEY", immutable: false };

const NOTHING = { setting: undefined, saved: undefined, container: undefined, hasData: false };
const container = { name: "postgres-pinning", value: "old" };
const byFlag = { value: "given", origin: "flag" } as const;
const kept = { value: "old", origin: "saved" } as const;
const byDefault = { value: "1", origin: "default" } as const;

const CASES: readonly (readonly [string, Partial<SecretFacts> & { spec: SettingSpec }, SecretVerdict])[] = [
  ["an identity is generated also over data", { spec: IDENTITY, hasData: true }, { kind: "generate" }],
  ["an identity is kept", { spec: IDENTITY, setting: kept, saved: "old", hasData: true }, { kind: "keep" }],
  ["a saved one is kept", { spec: PASSWORD, setting: kept, saved: "old", hasData: true }, { kind: "keep" }],
  [
    "the same one by flag is kept",
    { spec: PASSWORD, setting: { ...byFlag, value: "old" }, saved: "old", hasData: true },
    { kind: "keep" },
  ],
  [
    "a given one is written if no data exists",
    { spec: PASSWORD, setting: byFlag, saved: "old" },
    { kind: "write-given" },
  ],
  [
    "a given one is written if none was saved",
    { spec: PASSWORD, setting: byFlag, hasData: true },
    { kind: "write-given" },
  ],
  [
    "a given one does not replace one that data depends on",
    { spec: PASSWORD, setting: byFlag, saved: "old", hasData: true },
    { kind: "would-replace" },
  ],
  [
    "nor one that only a container knows",
    { spec: PASSWORD, setting: byFlag, container, hasData: true },
    { kind: "would-replace" },
  ],
  [
    "a key that no data depends on can be replaced",
    { spec: KEY, setting: byFlag, saved: "old", hasData: true },
    { kind: "write-given" },
  ],
  [
    "a token of another service can be replaced",
    { spec: TOKEN, setting: byFlag, saved: "old", hasData: true },
    { kind: "write-given" },
  ],
  [
    "a setting can be replaced",
    { spec: OPTION, setting: byFlag, saved: "old", hasData: true },
    { kind: "write-given" },
  ],
  ["one is generated on a new box", { spec: PASSWORD }, { kind: "generate" }],
  ["none is generated while data exists", { spec: PASSWORD, hasData: true }, { kind: "lost" }],
  ["nor a key", { spec: KEY, hasData: true }, { kind: "lost" }],
  [
    "a container knows it",
    { spec: PASSWORD, container, hasData: true },
    { kind: "recover", container: container.name },
  ],
  [
    "a container knows it, and no data exists",
    { spec: PASSWORD, container },
    { kind: "recover", container: container.name },
  ],
  [
    "the value in a container overrides a default",
    { spec: PORT, setting: byDefault, container },
    { kind: "recover", container: container.name },
  ],
  ["a default is not written", { spec: PORT, setting: byDefault }, { kind: "leave-out" }],
  [
    "a default that data is bound to is written",
    { spec: { ...PORT, bound: true }, setting: byDefault },
    { kind: "write-given" },
  ],
  [
    "a default that an earlier version saved is released",
    { spec: PORT, setting: { ...byDefault, released: "2" }, saved: "2" },
    { kind: "release" },
  ],
  [
    "another value that was saved meanwhile is kept",
    { spec: PORT, setting: { ...byDefault, released: "2" }, saved: "3" },
    { kind: "keep" },
  ],
  ["an option without a value is left out", { spec: OPTION, hasData: true }, { kind: "leave-out" }],
  ["so does a token", { spec: TOKEN }, { kind: "leave-out" }],
];

describe("decideSecret", () => {
  it.each(CASES)("%s", (_name, facts, verdict) => {
    expect(decideSecret({ ...NOTHING, ...facts })).toEqual(verdict);
  });

  it("never generates or replaces a secret while data exists, whatever is known", () => {
    for (const setting of [undefined, byFlag, kept, byDefault]) {
      for (const saved of [undefined, "old"]) {
        for (const known of [undefined, container]) {
          const verdict = decideSecret({ spec: PASSWORD, setting, saved, container: known, hasData: true });
          expect(verdict.kind).not.toBe("generate");
          const older = saved ?? known?.value;
          if (setting?.origin === "flag" && older !== undefined) expect(verdict.kind).toBe("would-replace");
        }
      }
    }
  });
});

describe("mayBeLost", () => {
  const KEEP: SettingSpec = { ...PORT, key: "KEEP", byDefault: "30" };

  it.each<[string, SettingSpec, string, boolean, boolean]>([
    ["a secret, always", TOKEN, "x", false, true],
    ["a default that data is bound to, always", { ...KEEP, bound: true }, "30", false, true],
    ["another value than the default, with the whole file", KEEP, "7", true, true],
    ["another value, if .env is there: it is missing on purpose", KEEP, "7", false, false],
    ["the default", KEEP, "30", true, false],
    ["the default of an earlier version", KEEP, "28", true, false],
  ])("%s", (_, spec, value, isEnvLost, expected) => {
    expect(mayBeLost(spec, value, isEnvLost)).toBe(expected);
  });
});
