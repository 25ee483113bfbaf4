import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { dockerCli, unfinishedReplacements } from "../../src/docker/compose-run.ts";
import { createDocker } from "../../src/docker/engine-writer.ts";
import { dockerReader } from "../../src/docker/engine-reader.ts";
import { Engine } from "../../src/docker/engine-client.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const directory = mkdtempSync(join(tmpdir(), "fula-node-compose-"));
const log = join(directory, "calls.log");

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A `docker` that writes its arguments down, one a line, and then runs a given script. */
function makeCli(body: string) {
  const bin = mkdtempSync(join(directory, "bin-"));
  const program = join(bin, "docker");
  writeFileSync(program, `#!/bin/sh\nfor word in "$@"; do echo "$word" >> ${log}; done\n${body}\n`);
  chmodSync(program, 0o755);
  rmSync(log, { force: true });
  const env = { PATH: `${bin}:/usr/bin:/bin`, HOME: "/root", DOCKER_HOST: "unix:///var/run/docker.sock" };
  return { env, cli: dockerCli(env), calls: () => readFileSync(log, "utf8").trim().split("\n") };
}

const project = {
  name: "fula-master",
  file: "/opt/x/compose.yml",
  envFile: "/opt/x/.env",
  profiles: ["gateway"],
  environment: {
    POSTGRES_PASSWORD: "pa$word-hunter2",
    POSTGRES_HOST: "127.0.0.1",
    SYSTEM_KEY: "key-0123456789",
    A_KEY: "abc",
    HOME: "/elsewhere",
  },
};
const noReport = () => {};

describe("docker compose up", () => {
  it("starts what is asked for, builds and pulls nothing, and removes no orphans", async () => {
    const { cli, calls } = makeCli("exit 0");
    await cli.composeUp(project, ["postgres", "webui"], noReport);
    expect(calls().join(" ")).toBe(
      `compose --project-name fula-master --file /opt/x/compose.yml --env-file /dev/null --ansi never --profile gateway up --detach --no-build --pull never postgres webui`,
    );
  });

  it("gives Compose the values of the project and the environment of programs, which goes first", async () => {
    const { cli } = makeCli(`echo "$POSTGRES_HOST $HOME"`);
    const lines: string[] = [];
    await cli.composeUp(project, [], (line) => lines.push(line));
    expect(lines).toEqual(["127.0.0.1 /root"]);
  });

  it("reports its lines without secrets", async () => {
    const { cli } = makeCli(
      `echo ' Container postgres-pinning  Started' >&2
       echo 'bad value pa$word-hunter2 for 127.0.0.1 abc' >&2
       echo 'time="x" level=warning msg="The \\"word\\" variable is not set. Defaulting to a blank string."' >&2
       echo >&2`,
    );
    const lines: string[] = [];
    await cli.composeUp(project, [], (line) => lines.push(line));
    expect(lines).toEqual([
      "Container postgres-pinning  Started",
      "bad value <redacted> for 127.0.0.1 abc",
      "a variable that the compose file names is not set",
    ]);
  });

  it("fails with the last lines, again without secrets", async () => {
    const { cli } = makeCli("echo 'Error: no such image; key-0123456789' >&2; exit 1");
    const thrown: unknown = await cli
      .composeUp(project, ["webui"], noReport)
      .catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(OperatorError);
    expect(thrown).toMatchObject({
      exit: "unavailable",
      what: "docker compose could not start webui of the project fula-master.",
      why: "Error: no such image; <redacted>",
      remedy: expect.stringContaining("--env-file /opt/x/.env --ansi never --profile gateway up --detach"),
    });
  });
});

it("what a killed Compose left: a new container goes, or takes the place of one that is gone; others stay", () => {
  const left = unfinishedReplacements([
    { name: "ipfs_host", status: "running" },
    { name: "0123456789ab_ipfs_host", status: "created" },
    { name: "0123456789ab_ipfs_cluster", status: "created" },
    { name: "ba9876543210_ipfs_cluster", status: "created" },
    // One that ran is not of such a Compose.
    { name: "0123456789ab_postgres", status: "exited" },
    { name: "my_own", status: "created" },
  ]);
  expect(left).toEqual({
    remove: ["0123456789ab_ipfs_host", "ba9876543210_ipfs_cluster"],
    rename: [{ from: "0123456789ab_ipfs_cluster", to: "ipfs_cluster" }],
  });
});

describe("docker compose config", () => {
  it("reads a document that is not on disk, with the values that are given and no others", async () => {
    const { cli, calls } = makeCli(`echo "webui $(cat | tr -d ' ')"; echo "api $GIVEN$HOME"`);
    const hashes = await cli.composeHashes({
      name: "fula-master",
      text: "services: {}\n",
      directory: "/opt/x",
      profiles: [],
      environment: { GIVEN: "value", HOME: "/elsewhere" },
    });
    expect(hashes).toEqual({ webui: "services:{}", api: "value/root" });
    expect(calls().join(" ")).toBe(
      "compose --project-name fula-master --file - --project-directory /opt/x --env-file /dev/null config --hash *",
    );
  });

  it("fails with what Compose says, without the secrets it was given", async () => {
    const { cli } = makeCli("echo 'services.webui: bad hunter2' >&2; exit 15");
    const environment = { SYSTEM_KEY: "hunter2" };
    const document = { name: "p", text: "", directory: "/opt/x", profiles: [], environment };
    await expect(cli.composeHashes(document)).rejects.toMatchObject({
      why: "services.webui: bad <redacted>",
    });
  });
});

describe("the plugin's version", () => {
  const versionOf = (body: string) => {
    const { env } = makeCli(body);
    return dockerReader(new Engine(join(directory, "none.sock")), env).composeVersion();
  };

  it.each([
    ["2.26.1-4", "2.26.1"],
    ["v2.40.3", "2.40.3"],
    ["5.5.0", "5.5.0"],
    ["2.38.2-desktop.1", "2.38.2"],
  ])("%s", async (said, expected) => {
    expect(await versionOf(`echo '${said}'`)).toBe(expected);
  });

  it("is null if the plugin, or the whole CLI, is missing", async () => {
    expect(await versionOf('echo "docker: unknown command: docker $1" >&2; exit 1')).toBeNull();
    const env = { PATH: directory, HOME: "/root" };
    const reader = dockerReader(new Engine(join(directory, "none.sock")), env);
    expect(await reader.composeVersion()).toBeNull();
  });
});

function isComposeThere(): boolean {
  try {
    docker("compose", "version", "--short");
    return isEngineThere();
  } catch {
    return false;
  }
}

const compose = isComposeThere();

describe.runIf(compose)(
  `the real Compose${compose ? "" : " (skipped: no engine with Compose v2 here; the boxes have it)"}`,
  () => {
    const id = `fula-node-compose-${process.pid}`;
    const image = `${id}/tiny:1`;
    const subject = createDocker({ ...process.env });
    const real = {
      name: id,
      file: join(directory, "compose.yml"),
      envFile: join(directory, "real.env"),
      profiles: [],
      environment: { SECRET: "a $b 'c #d" },
    };
    const text = `
services:
  one:
    image: ${image}
    container_name: ${id}-one
    network_mode: none
    command: ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]
    environment:
      SECRET: \${SECRET:?set SECRET}
    volumes: ["./data:/data"]
  two:
    image: ${image}
    container_name: ${id}-two
    network_mode: none
    profiles: [extra]
    command: ["/bin/sh"]
`;
    beforeAll(() => {
      makeTinyImage(image, []);
      writeFileSync(real.file, text);
      // Compose must not read this file, whatever stands in it.
      writeFileSync(join(directory, ".env"), "COMPOSE_PROFILES=extra\nSECRET=wrong\n");
    });
    afterAll(() => {
      docker("rm", "--force", "--volumes", `${id}-one`, `${id}-two`);
      docker("image", "rm", "--force", image);
    });

    it("makes the containers of the active profiles, with hashes that match, and leaves them alone after", async () => {
      await subject.composeCreate(real, ["one"], noReport);
      const created = await subject.container(`${id}-one`);
      expect(created).toMatchObject({ status: "created" });
      await subject.composeUp(real, [], noReport);
      const one = await subject.container(`${id}-one`);
      expect(one).toMatchObject({ id: created?.id, status: "running", env: real.environment });
      expect(await subject.container(`${id}-two`)).toBeNull();
      const { environment } = real;
      const hashes = await subject.composeHashes({ name: id, text, directory, profiles: [], environment });
      expect(hashes).toEqual({ one: one?.labels["com.docker.compose.config-hash"] });
      await subject.composeUp(real, ["one"], noReport);
      expect(await subject.container(`${id}-one`)).toEqual(one);
    });

    it("goes on where a Compose was killed while it replaced a container", async () => {
      const [final, temporary] = [`${id}-one`, `0123456789ab_${id}-one`];
      // The new one is there, and the old one is, too.
      const labels = { project: id, service: "one", "container-number": "1", oneoff: "False" };
      const flags = Object.entries(labels).map(
        ([key, value]) => `--label=com.docker.compose.${key}=${value}`,
      );
      docker("create", "--name", temporary, ...flags, image, "/bin/sh");
      await subject.composeUp({ ...real, environment: { SECRET: "new" } }, ["one"], noReport);
      expect(await subject.container(final)).toMatchObject({ status: "running", env: { SECRET: "new" } });
      expect(await subject.container(temporary)).toBeNull();
      // The old one is gone, and the new one has not got its name yet.
      docker("rm", "--force", final);
      await subject.composeCreate(real, ["one"], noReport);
      docker("rename", final, temporary);
      const created = await subject.container(temporary);
      await subject.composeUp(real, ["one"], noReport);
      expect(await subject.container(final)).toMatchObject({ id: created?.id, status: "running" });
      expect(await subject.container(temporary)).toBeNull();
    });

    it("names a missing value and a missing image", async () => {
      await expect(subject.composeUp({ ...real, environment: {} }, [], noReport)).rejects.toMatchObject({
        why: expect.stringContaining("set SECRET"),
      });
      writeFileSync(join(directory, "other.yml"), text.replaceAll(image, `${id}/none:1`));
      await expect(
        subject.composeUp({ ...real, file: join(directory, "other.yml") }, [], noReport),
      ).rejects.toMatchObject({ why: expect.stringMatching(/No such image|not found/i) });
    });

    it("builds an image with its labels", async () => {
      const context = mkdtempSync(join(directory, "context-"));
      writeFileSync(join(context, "Dockerfile"), `ARG BASE\nFROM \${BASE}\nCMD ["/bin/sh"]\n`);
      const tag = `${id}/built:1`;
      const options = {
        context,
        dockerfile: join(context, "Dockerfile"),
        tag,
        labels: { "land.fx.test": "built here" },
        buildArgs: { BASE: image },
      };
      await subject.build(options, noReport);
      expect((await subject.image(tag))?.labels).toMatchObject({ "land.fx.test": "built here" });
      docker("image", "rm", "--force", tag);
    });
  },
);
