import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "dotenv";
import { execa } from "execa";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findEntry, parseEnvFile, setValues } from "../../src/settings/env-file.ts";
import { newEnvText } from "../../src/settings/env-template.ts";
import { quoteValue } from "../../src/settings/env-value.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { findCompose } from "../support/compose-program.ts";
import { anyEnvText, anyValue } from "../support/env-values.ts";

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
    expect(values.filter((value) => value.includes("'")).length).toBeGreaterThan(20);
    for (let file = 0; file < FILES; file += 1) {
      const wanted = new Map(
        values
          .slice(file * KEYS_A_FILE, (file + 1) * KEYS_A_FILE)
          .map((value, index) => [`ODD_KEY_${index}`, value]),
      );
      const text = setValues({ ok: true, text: "", entries: [] }, wanted);
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
