import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { dockerPlugins } from "../../src/docker/docker-plugins.ts";
import type { ProgramEnvironment } from "../../src/machine/run-program.ts";

/** A Docker CLI that says what it is told to, and notes that it was asked. */
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
    installPlugin: (content) => writeFile(`${home}/config/cli-plugins/docker-buildx`, content),
    asked: async () =>
      (await readFile(`${home}/asked`, "utf8").catch(() => "")).split("\n").filter((line) => line !== "")
        .length,
  };
}

test("the CLI is asked once while its files and the plugin's stay the same", async () => {
  const { env, say, installPlugin, asked } = await installCli();
  const version = dockerPlugins(env);
  await say("github.com/docker/buildx v0.13.1-4 x");
  await installPlugin("one");

  expect(await version("buildx")).toBe("0.13.1");
  expect(await version("buildx")).toBe("0.13.1");

  expect(await asked()).toBe(1);
});

test("a plugin that was replaced, or removed, is asked anew", async () => {
  const { env, say, installPlugin, asked } = await installCli();
  const version = dockerPlugins(env);
  await say("v0.13.1");
  await installPlugin("one");
  await version("buildx");

  await say("v0.29.1");
  await installPlugin("two");

  expect(await version("buildx")).toBe("0.29.1");
  await rm(`${env["DOCKER_CONFIG"] ?? ""}/cli-plugins/docker-buildx`);
  await writeFile(`${env["HOME"] ?? ""}/bin/docker`, "#!/bin/sh\nexit 1\n");
  expect(await version("buildx")).toBeNull();
  expect(await asked()).toBe(2);
});

test("where no plugin is found nothing is kept: the next call asks again", async () => {
  const { env, say, asked } = await installCli();
  const version = dockerPlugins(env);
  await say("no such plugin");

  expect(await version("buildx")).toBeNull();
  await say("v0.13.1");
  expect(await version("buildx")).toBe("0.13.1");

  expect(await asked()).toBe(2);
});
