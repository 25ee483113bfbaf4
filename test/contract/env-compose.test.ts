import { parse } from "dotenv";
import { execa } from "execa";
import * as fc from "fast-check";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findEntry, newEnvText, parseEnvFile, quoteValue, setValues } from "../../src/settings/env-file.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { findUnclear } from "../../src/settings/settings.ts";
import { findCompose } from "../support/compose-program.ts";
import { anyEnvText, anyRawValue, anyValue } from "../support/env-values.ts";

const compose = await findCompose();
if (typeof compose === "string") console.warn(`skipped: the judgement of docker compose: ${compose}`);
const KEYS_A_FILE = 300;
const FILES = 4;

describe.skipIf(typeof compose === "string")("docker compose", () => {
  let directory = "";
  beforeAll(async () => (directory = await mkdtemp(join(tmpdir(), "fula-node-env-"))));
  afterAll(() => rm(directory, { recursive: true, force: true }));

  /** What the containers of a service get, where its environment hands every key on in two ways. */
  async function environmentOf(text: string, keys: readonly string[]): Promise<Record<string, string>> {
    const environment = Object.fromEntries(
      keys.flatMap((key) => [
        [`${key}_AS_VALUE`, `\${${key}}`],
        [key, null],
      ]),
    );
    const envFile = join(directory, "judged.env");
    await writeFile(envFile, text);
    return (
      (await config({ judged: { image: "none", environment } }, ["--env-file", envFile]))["judged"] ?? {}
    );
  }

  async function config(services: object, flags: readonly string[] = []) {
    const file = join(directory, "compose.json");
    await writeFile(file, JSON.stringify({ name: "judged", services }));
    const argv = ["compose", "--file", file, ...flags, "config", "--format", "json"];
    const { PATH, HOME, DOCKER_CONFIG } = process.env;
    const env = { PATH, HOME, ...(DOCKER_CONFIG === undefined ? {} : { DOCKER_CONFIG }) };
    const { stdout } = await execa("docker", argv, { env, extendEnv: false });
    const found = JSON.parse(stdout) as {
      services: Record<string, { environment?: Record<string, string> }>;
    };
    return Object.fromEntries(
      Object.entries(found.services).map(([name, { environment = {} }]) => [
        name,
        // `config` prints a file that could be read again, where $$ is one $.
        Object.fromEntries(
          Object.entries(environment).map(([key, value]) => [key, value.replaceAll("$$", "$")]),
        ),
      ]),
    );
  }

  it(`reads back every value that is written, ${FILES * KEYS_A_FILE} of them`, async () => {
    const values = fc.sample(
      anyValue.filter((value) => quoteValue(value) !== null),
      FILES * KEYS_A_FILE,
    );
    expect(values.filter((value) => value.includes("'")).length).toBeGreaterThan(5);
    for (let file = 0; file < FILES; file += 1) {
      const wanted = new Map(
        values
          .slice(file * KEYS_A_FILE, (file + 1) * KEYS_A_FILE)
          .map((value, index) => [`ODD_KEY_${index}`, value]),
      );
      const text = setValues({ ok: true, text: "", entries: [], overridden: [] }, wanted);
      const judged = await environmentOf(text, [...wanted.keys()]);
      const theirs = parse(text);
      const ours = parseEnvFile(text);
      for (const [key, value] of wanted) {
        expect([key, judged[`${key}_AS_VALUE`], judged[key]]).toEqual([key, value, value]);
        expect([key, theirs[key]]).toEqual([key, value]);
        expect(ours.ok && findEntry(ours, key)?.value).toEqual({ text: value });
      }
    }
  });

  it("reads nothing otherwise than dotenv that is not refused by name, in whatever form it is written", async () => {
    const raw = fc.oneof(
      anyRawValue,
      anyRawValue.map((text) => `'${text}'`),
      anyRawValue.map((text) => `"${text}"`),
    );
    const written = fc.sample(raw, 8 * KEYS_A_FILE).filter((value) => parseEnvFile(`KEY=${value}`).ok);
    const keys = written.map((_, index) => `ODD_KEY_${index}`);
    const text = written.map((value, index) => `ODD_KEY_${index}=${value}\n`).join("");
    const ours = parseEnvFile(text);
    if (!ours.ok) throw new Error(ours.what);
    const refused = new Set(findUnclear([], ours, keys).map(({ subject }) => subject));
    const clear = keys.filter((key) => !refused.has(key));
    expect(clear.length).toBeGreaterThan(KEYS_A_FILE);
    expect(refused.size).toBeGreaterThan(KEYS_A_FILE);
    const kept = clear.map((key) => `${key}=${written[Number(key.slice("ODD_KEY_".length))] ?? ""}\n`);
    const judged = await environmentOf(kept.join(""), clear);
    const theirs = parse(text);
    for (const key of clear)
      expect([key, judged[`${key}_AS_VALUE`], judged[key] ?? ""]).toEqual([key, theirs[key], theirs[key]]);
  });

  it("reads every file without a template that is refused by name, and none with one", async () => {
    const parts = fc.constantFrom(
      "${",
      "${A}",
      "${A:-",
      "${A-x}",
      "${A+x}",
      "${A?x}",
      "}",
      "$",
      "$A",
      "a",
      " ",
      '"',
      "'",
      "\\",
      "#",
      ":",
    );
    const raw = fc.array(parts, { maxLength: 6 }).map((chosen) => chosen.join(""));
    const written = fc.sample(raw, 4 * KEYS_A_FILE).filter((value) => parseEnvFile(`KEY=${value}`).ok);
    const linesOf = (values: readonly string[]) =>
      values.map((value, index) => `ODD_KEY_${index}=${value}\n`).join("");
    const isRefused = (value: string) => {
      const file = parseEnvFile(`KEY=${value}\n`);
      return file.ok && findUnclear([], file, []).length > 0;
    };
    const good = written.filter((value) => !isRefused(value));
    expect(good.filter((value) => value.includes("${")).length).toBeGreaterThan(20);
    const file = `A=1\n${linesOf(good)}`;
    await expect(environmentOf(file, ["A"]), file).resolves.toMatchObject({ A: "1" });
    for (const value of ["${", "a${b", "${a b}", "${a:?must}", "${${A}a}", " #${"]) {
      expect([value, isRefused(value)]).toEqual([value, true]);
      await expect(environmentOf(`A=1\nX=${value}\n`, ["A"])).rejects.toThrow();
    }
  });

  it.each([
    ["FOO=${\nFOO=ok\n"],
    ['CLUSTERNAME="${X"\nCLUSTERNAME=pool\n'],
    ["WEBUI_PORT=${NONE:?must}\nWEBUI_PORT=1\n"],
  ])(
    "reads no key of a file in which an earlier assignment is broken: %j is refused by name",
    async (text) => {
      await expect(environmentOf(`A=1\n${text}`, ["A"])).rejects.toThrow();
      const file = parseEnvFile(text);
      if (!file.ok) throw new Error(file.what);
      const key = text.slice(0, text.indexOf("="));
      expect(findUnclear(MASTER_SETTINGS, file, []).map(({ subject }) => subject)).toEqual([key]);
    },
  );

  it.each([["ab#cd"], ["a$HOME"], ["a$$b"], ['"a\\$b"'], ['"a\\tb"'], ['"tab\\\\n"'], ["'it\\'s'"]])(
    "reads %s otherwise than dotenv: it is refused by name",
    async (value) => {
      const text = `FULA_PIN_SERVICE_SECRET=${value}\nAFTER=1\n`;
      const judged = await environmentOf(text, ["FULA_PIN_SERVICE_SECRET"]);
      expect(judged["FULA_PIN_SERVICE_SECRET"]).not.toBe(parse(text)["FULA_PIN_SERVICE_SECRET"]);
      const ours = parseEnvFile(text);
      if (!ours.ok) throw new Error(ours.what);
      const problems = findUnclear([], ours, ["AFTER", "FULA_PIN_SERVICE_SECRET"]);
      expect(problems.map(({ subject }) => subject)).toEqual(["FULA_PIN_SERVICE_SECRET"]);
      expect(JSON.stringify(problems)).not.toContain(value.slice(0, 4));
    },
  );

  it("reads a new .env as it was meant, comments and all", async () => {
    const values = new Map(MASTER_SETTINGS.map(({ key, byDefault = "it's #1" }) => [key, byDefault]));
    const judged = await environmentOf(newEnvText(MASTER_SETTINGS, values), [...values.keys()]);
    expect(judged).toEqual(
      Object.fromEntries(
        [...values].flatMap(([key, value]) => [
          [key, value],
          [`${key}_AS_VALUE`, value],
        ]),
      ),
    );
  });

  it("reads no file otherwise that we take for clear", async () => {
    const texts = fc.sample(anyEnvText, 1500).filter((text) => {
      const file = parseEnvFile(text);
      return file.ok && file.entries.length > 0;
    });
    expect(texts.length).toBeGreaterThan(50);
    const services: Record<string, object> = {};
    for (const [index, text] of texts.entries()) {
      const path = join(directory, `${index}.env`);
      await writeFile(path, text);
      services[`s${index}`] = { image: "none", env_file: [path] };
    }
    const judged = await config(services);
    for (const [index, text] of texts.entries()) {
      const file = parseEnvFile(text);
      const theirs = judged[`s${index}`] ?? {};
      if (!file.ok) continue;
      const clear = file.entries.filter(({ key }) => "text" in (findEntry(file, key)?.value ?? {}));
      const ours = clear.map(({ key }) => [key, findEntry(file, key)?.value]);
      expect({ text, ours }).toEqual({ text, ours: clear.map(({ key }) => [key, { text: theirs[key] }]) });
      expect(Object.keys(theirs).sort()).toEqual([...new Set(file.entries.map(({ key }) => key))].sort());
    }
  });
});
