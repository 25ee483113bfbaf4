import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { composePlugin } from "../../src/docker/engine-reader.ts";
import type { ProgramEnvironment } from "../../src/machine/run-program.ts";

/** A Docker CLI that prints a given text, and notes that it was asked. */
async function installCli(): Promise<{
  readonly env: ProgramEnvironment;
  readonly say: (line: string) => Promise<void>;
  readonly installPlugin: (content: string) => Promise<void>;
  readonly asked: () => Promise<number>;
}> {
  const home = await mkdtemp(join(tmpdir(), "fula-node-plugins-"));
  onTestFinished(() => rm(home, { recursive: true }));
  const env = { HOME: home, PATH: `${home}/bin:/usr/bin:/bin`, DOCKER_CONFIG: `${home}/config` };
  await mkdir(`${home}/bin`);
  await mkdir(`${home}/config/cli-plugins`, { recursive: true });
  await writeFile(`${home}/bin/docker`, `#!/bin/sh\necho "$*" >>${home}/asked\ncat ${home}/says\n`);
  await chmod(`${home}/bin/docker`, 0o755);
  return {
    env,
    say: (line) => writeFile(`${home}/says`, `${line}\n`),
    installPlugin: (content) => writeFile(`${home}/config/cli-plugins/docker-compose`, content),
    asked: async () =>
      (await readFile(`${home}/asked`, "utf8").catch(() => "")).split("\n").filter((line) => line !== "")
        .length,
  };
}

test("the CLI is asked once while its files and the plugin's stay the same", async () => {
  const { env, say, installPlugin, asked } = await installCli();
  const version = composePlugin(env);
  await say("v2.26.1-4");
  await installPlugin("one");

  expect(await version()).toBe("2.26.1");
  expect(await version()).toBe("2.26.1");

  expect(await asked()).toBe(1);
});

test("a plugin that was replaced, or removed, is asked again", async () => {
  const { env, say, installPlugin, asked } = await installCli();
  const version = composePlugin(env);
  await say("v2.26.1");
  await installPlugin("one");
  await version();

  await say("v2.40.3");
  await installPlugin("two");

  expect(await version()).toBe("2.40.3");
  await rm(`${env["DOCKER_CONFIG"] ?? ""}/cli-plugins/docker-compose`);
  await writeFile(`${env["HOME"] ?? ""}/bin/docker`, "#!/bin/sh\nexit 1\n");
  expect(await version()).toBeNull();
  expect(await asked()).toBe(2);
});

test("where no plugin is found nothing is kept: the next call asks again", async () => {
  const { env, say, asked } = await installCli();
  const version = composePlugin(env);
  await say("no such plugin");

  expect(await version()).toBeNull();
  await say("v2.26.1");
  expect(await version()).toBe("2.26.1");

  expect(await asked()).toBe(2);
});
