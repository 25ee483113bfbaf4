import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type EnvFile, parseEnvFile } from "../../../src/settings/env-file.ts";
import { FORMER_DEFAULTS } from "../../../src/settings/former-defaults.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import { RULES } from "../../../src/settings/rules.ts";
import { findUnclear, resolveSettings, type SettingSpec, showValue } from "../../../src/settings/settings.ts";
import { LOG_LEVEL, STORAGE_SETTINGS } from "../../../src/settings/storage.ts";

const SPECS: readonly SettingSpec[] = [
  { key: "NAME", about: "a name", rule: RULES.name, byDefault: "standard" },
  { key: "PORT", about: "a port", rule: RULES.port, byDefault: "5432" },
  { key: "OPTION", about: "off unless given", rule: RULES.any },
  { key: "PASSWORD", about: "a secret", rule: RULES.secret, secret: true },
];

function saved(text: string): EnvFile & { ok: true } {
  const file = parseEnvFile(text);
  if (!file.ok) throw new Error(file.what);
  return file;
}

function resolve(
  flags: Readonly<Record<string, string>> = {},
  environment: Readonly<Record<string, string | undefined>> = {},
  text = "",
  adoptsEnvironment = true,
) {
  return resolveSettings(SPECS, {
    flags: new Map(Object.entries(flags)),
    environment,
    adoptsEnvironment,
    version: "1.2.3",
    saved: saved(text),
  });
}

describe("resolveSettings", () => {
  it("takes the flag, else .env, else the environment in a join, else the default, for each key by itself", () => {
    const maybe = fc.constantFrom(undefined, "", "one", "two", "three");
    fc.assert(
      fc.property(
        fc.constantFrom("NAME", "OPTION"),
        maybe,
        maybe,
        maybe,
        fc.boolean(),
        (key, flag, inherited, kept, isJoin) => {
          fc.pre(flag !== "");
          const { settings, problems, warnings } = resolve(
            flag === undefined ? {} : { [key]: flag },
            { [key]: inherited },
            kept === undefined ? "" : `${key}=${kept}\n`,
            isJoin,
          );
          const byDefault = key === "NAME" ? { value: "standard", origin: "default" } : undefined;
          const wanted =
            flag !== undefined
              ? { value: flag, origin: "flag" }
              : kept
                ? { value: kept, origin: "saved" }
                : inherited && isJoin
                  ? { value: inherited, origin: "environment" }
                  : byDefault;
          expect(settings.get(key)).toEqual(wanted);
          expect(settings.get("PORT")).toEqual({ value: "5432", origin: "default" });
          expect(problems).toEqual([]);
          // The operator hears of each environment value that is not used, unless a flag was given.
          const isIgnored = Boolean(inherited) && flag === undefined && inherited !== wanted?.value;
          expect(warnings.map((text) => text.split(" ")[0])).toEqual(isIgnored ? [key] : []);
        },
      ),
    );
  });

  it("names both values of an ignored variable, and of a secret none", () => {
    const environment = { PORT: "1", PASSWORD: "hush-hush-hush" };
    expect(resolve({}, environment, "PORT=2\nPASSWORD=hush-hush-saved\n").warnings).toEqual([
      'PORT in the environment ("1") is ignored: .env has another one ("2"). To change it, run the join command with --set PORT=VALUE.',
      "PASSWORD in the environment is ignored: .env has another one. To change it, run the join command with --set-file PASSWORD=PATH.",
    ]);
    expect(resolve({}, environment, "", false).warnings.map((text) => text.split(". ", 1)[0])).toEqual([
      'PORT in the environment ("1") is ignored: the default is used ("5432")',
      "PASSWORD in the environment is ignored: this node has no value for it",
    ]);
  });

  it("resets nothing if a flag is omitted", () => {
    const { settings } = resolve({ PORT: "6000" }, {}, "NAME=kept\nOPTION='it is on'\n");
    expect(Object.fromEntries([...settings].map(([key, { value }]) => [key, value]))).toEqual({
      NAME: "kept",
      PORT: "6000",
      OPTION: "it is on",
    });
  });

  it("returns every problem at once, and the valid settings", () => {
    const { settings, problems } = resolve(
      { NAEM: "x", PORT: "080", OPTION: "" },
      { PASSWORD: "short" },
      "NAME='f\u0443la'\n",
    );
    expect(problems).toEqual([
      { subject: "NAEM", what: "NAEM is not a setting of this command.", remedy: "Did you mean NAME?" },
      {
        subject: "NAME",
        what: 'NAME in .env is "f\\u0443la"; it must be 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, starting with a letter or digit.',
        remedy: "Correct it in .env, or pass --set NAME=standard.",
      },
      {
        subject: "PORT",
        what: 'PORT given by flag is "080"; it must be a TCP port from 1 to 65535, in plain digits.',
        remedy: "Give another value: --set PORT=5432.",
      },
      {
        subject: "OPTION",
        what: "OPTION given by flag is empty.",
        remedy: "Omit the flag. To remove a saved value, write OPTION= without a value in .env.",
      },
      {
        subject: "PASSWORD",
        what: "PASSWORD from the environment is (5 characters, not shown); it must be at least 8 characters.",
        remedy: "Unset the variable PASSWORD or change its value. --set-file PASSWORD=PATH overrides it.",
      },
    ]);
    expect([...settings.keys()]).toEqual([]);
  });

  it("a flag that a remedy shows is accepted if it is pasted", () => {
    const problemsWith = (flags: Readonly<Record<string, string>>) =>
      resolveSettings([LOG_LEVEL], {
        flags: new Map(Object.entries(flags)),
        environment: { LOG_LEVEL: "banana" },
        adoptsEnvironment: true,
        version: "1.2.3",
        saved: saved(""),
      }).problems;
    const [problem] = problemsWith({});
    const [, pasted = ""] = /--set LOG_LEVEL=(\w+)/.exec(problem?.remedy ?? "") ?? [];
    expect(problemsWith({ LOG_LEVEL: pasted })).toEqual([]);
  });

  it.each([
    ["two\nlines", /line break/],
    ["half \uD83D an emoji", /UTF-8/],
    ["it's $5 a month", /docker compose do not read/],
  ])("refuses %j, which can't be written to .env, although its rule allows it", (value, why) => {
    const { problems } = resolve({ OPTION: value, PASSWORD: `${value}, hush` });
    expect(problems.map(({ subject }) => subject)).toEqual(["OPTION", "PASSWORD"]);
    for (const { what, remedy } of problems) {
      expect(what).toMatch(why);
      expect(remedy).toBeTruthy();
      expect(what).not.toContain("hush");
    }
  });

  it("reports the line of an unclear saved value, and accepts a flag instead", () => {
    const text = '# comment\nOPTION="pa$word"\n';
    expect(resolve({}, {}, text).problems).toEqual([
      {
        subject: "OPTION",
        what: "OPTION in line 2 of .env is ambiguous: programs read a $ or a backslash inside double quotes differently.",
        remedy: "Write it as OPTION='VALUE', on one line and in single quotes.",
      },
    ]);
    expect(resolve({ OPTION: "given" }, {}, text).problems).toEqual([]);
  });

  it("shows no secret in any problem, whatever is wrong with it and wherever it comes from", () => {
    const secrets = fc
      .string({ unit: "binary", minLength: 4, maxLength: 40 })
      .filter((text) => /[^ -~]|['$#\\]/.test(text));
    fc.assert(
      fc.property(secrets, fc.boolean(), (secret, byFlag) => {
        const value = `hush-${secret}`.slice(0, 7) + secret;
        const { problems } = byFlag ? resolve({ PASSWORD: value }) : resolve({}, { PASSWORD: value });
        expect(JSON.stringify(problems)).not.toContain("hush-");
      }),
    );
    expect(JSON.stringify(resolve({}, {}, 'PASSWORD="hush-$x"').problems)).not.toContain("hush");
    expect(JSON.stringify(resolve({ PASSWROD: "hush" }).problems)).not.toContain("hush");
  });

  it.each([
    ["PASSWROD", "Did you mean PASSWORD?"],
    ["password", "Did you mean PASSWORD?"],
    ["NAMES", "Did you mean NAME?"],
    ["SOMETHING_ELSE", "See docs/settings.md for all settings."],
    ["X".repeat(100_000), "See docs/settings.md for all settings."],
  ])("answers the unknown key %.20s", (key, remedy) => {
    expect(resolve({ [key]: "x" }).problems).toEqual([
      { subject: key, what: `${key} is not a setting of this command.`, remedy },
    ]);
  });
});

describe("defaults that 0.1.0 and 0.2.0 saved", () => {
  const text = (version: string, rest: string) => `FULA_NODE_VERSION=${version}\n${rest}`;
  const resolveMaster = (
    given: string,
    {
      flags = {},
      environment = {},
      version = "0.3.0",
    }: { flags?: Record<string, string>; environment?: Record<string, string>; version?: string } = {},
  ) =>
    resolveSettings(MASTER_SETTINGS, {
      flags: new Map(Object.entries(flags)),
      environment,
      adoptsEnvironment: true,
      version,
      saved: saved(given),
    });

  it.each(["0.1.0", "0.2.0", "0.2.7-rc.1"])("of %s are released", (version) => {
    const { settings } = resolveMaster(text(version, "KEEP=28\nNODE_BASE_IMAGE=node:20-trixie-slim\n"));
    expect(settings.get("KEEP")).toEqual({ value: "28", origin: "default", released: "28" });
    expect(settings.get("NODE_BASE_IMAGE")).toMatchObject({
      origin: "default",
      released: "node:20-trixie-slim",
    });
  });

  it.each<[string, string, string?]>([
    ["a later version wrote the file", text("0.3.0", "KEEP=28\n")],
    ["1.0 wrote it", text("1.0.2", "KEEP=28\n")],
    ["0.30 wrote it", text("0.30.0", "KEEP=28\n")],
    ["the running version wrote it", text("0.2.0", "KEEP=28\n"), "0.2.0"],
    ["nobody knows who wrote it", "KEEP=28\n"],
    ["it is another value", text("0.1.0", "KEEP=29\n")],
  ])("stay if %s", (_, given, version = "0.3.0") => {
    expect(resolveMaster(given, { version }).settings.get("KEEP")?.origin).toBe("saved");
  });

  it("make room for a newer default, and a choice does not", () => {
    const newer = MASTER_SETTINGS.map((spec) =>
      spec.key === "KUBO_IMAGE" ? { ...spec, byDefault: "ipfs/kubo:v0.99.0" } : spec,
    );
    const kuboOf = (given: string) =>
      resolveSettings(newer, {
        flags: new Map(),
        environment: {},
        adoptsEnvironment: true,
        version: "1.2.3",
        saved: saved(given),
      }).settings.get("KUBO_IMAGE")?.value;
    expect(kuboOf(text("0.2.0", "KUBO_IMAGE=ipfs/kubo:v0.42.0\n"))).toBe("ipfs/kubo:v0.99.0");
    expect(kuboOf(text("0.3.0", ""))).toBe("ipfs/kubo:v0.99.0");
    expect(kuboOf(text("0.3.0", "KUBO_IMAGE=ipfs/kubo:v0.42.0\n"))).toBe("ipfs/kubo:v0.42.0");
  });

  it("stay if the operator gives them to this version, or if the environment has another value", () => {
    const given = text("0.1.0", "KEEP=28\n");
    expect(resolveMaster(given, { flags: { KEEP: "28" } }).settings.get("KEEP")).toEqual({
      value: "28",
      origin: "flag",
    });
    const inherited = resolveMaster(given, { environment: { KEEP: "1" } });
    expect(inherited.settings.get("KEEP")).toEqual({ value: "28", origin: "saved" });
    expect(inherited.warnings).toHaveLength(1);
  });

  it("stay if data is bound to them", () => {
    const known = new Set([...MASTER_SETTINGS, ...STORAGE_SETTINGS].map(({ key }) => key));
    expect(Object.keys(FORMER_DEFAULTS).filter((key) => !known.has(key))).toEqual([]);
    const bound = text("0.1.0", "POSTGRES_IMAGE=postgres:16-alpine\nPOSTGRES_DB=pinning_service\n");
    for (const key of ["POSTGRES_IMAGE", "POSTGRES_DB"])
      expect(resolveMaster(bound).settings.get(key)?.origin).toBe("saved");
  });
});

describe("findUnclear", () => {
  const text = "PASSED_ON=ab#cd\nPORT=x#y\nOTHERS=ab#cd\nCLEAR='ab#cd'\n";

  it("names the keys of documents that programs read differently, and no value", () => {
    const problems = findUnclear(SPECS, saved(text), ["ABSENT", "CLEAR", "PASSED_ON", "PORT"]);
    expect(problems).toEqual([
      {
        subject: "PASSED_ON",
        what: "PASSED_ON in line 1 of .env is ambiguous: only some programs read its # as the start of a comment.",
        remedy: "Write it as PASSED_ON='VALUE', on one line and in single quotes.",
      },
    ]);
    expect(JSON.stringify(problems)).not.toContain("ab");
  });

  it.each([
    ["${", true],
    ["a${b", true],
    ["${a b}", true],
    ["${a:?must}", true],
    ["${a:-${}", true],
    ['"${"', true],
    ["'${'", false],
    ["${a}$b", false],
    ["${a:-x}${b-}${c:+y}", false],
    ["${a:-${b:-c}}", false],
    ["ab#cd", false],
  ])(
    "in an unknown key, refuses %s: %s, since Compose then reads no key of the file",
    (written, isRefused) => {
      const problems = findUnclear(SPECS, saved(`OF_NOBODY=${written}\n`), []);
      expect(problems.map(({ subject }) => subject)).toEqual(isRefused ? ["OF_NOBODY"] : []);
    },
  );
});

describe("showValue", () => {
  const [name, , , password] = SPECS as [SettingSpec, SettingSpec, SettingSpec, SettingSpec];

  it("escapes characters that look like others, and shortens long values", () => {
    expect(showValue(name, "p\u043Eol \u001B[31m")).toBe('"p\\u043eol \\u001b[31m"');
    expect(showValue(name, "x".repeat(500))).toBe(`"${"x".repeat(80)}"... (500 characters)`);
  });

  it("shows of a secret its length only", () => {
    expect(showValue(password, "correct horse")).toBe("(13 characters, not shown)");
  });
});
