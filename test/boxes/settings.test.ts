import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { FIRST_JOIN, installArtifact } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { ALL_HEALTHY, expectExit, health, readEnv, skipped, stderrOf, watch } from "../support/master-box.ts";

const OLD_KUBO = "ipfs/kubo:v0.42.0";
const NEW_KUBO = "ipfs/kubo:v0.99.0";
const CLUSTER = "ipfs/ipfs-cluster:v1.1.6";

/** Unpacks the artifact under another version, with other default images, as a later release would have them. */
async function makeRelease(box: Box, version: string, images: Readonly<Record<string, string>> = {}) {
  const directory = `/root/release-${version}`;
  await box.run(`cp -a /root/package ${directory}`);
  await box.run(
    `sed -i 's/"${manifest.version}"/"${version}"/g' ${directory}/package.json ${directory}/dist/*.js`,
  );
  for (const [from, to] of Object.entries(images)) {
    await box.run(`sed -i 's#\\(byDefault: *\\)"${from}"#\\1"${to}"#g' ${directory}/dist/*.js`);
    await box.run(`sed -i 's#:-${from}}#:-${to}}#' ${directory}/compose/*.yml`);
  }
  const program = `${directory}/bin/fula-node.js`;
  return (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<ExecResult> =>
    box.exec([
      "env",
      ...Object.entries(env).map(([key, value]) => `${key}=${value}`),
      "node",
      program,
      ...args,
    ]);
}

type Release = Awaited<ReturnType<typeof makeRelease>>;
const JOIN = ["join-as-master", "--yes"];

describe.skipIf(skipped !== undefined)("settings of a master", () => {
  let box: Box;
  let current: Release;

  const startOf = async (...names: readonly string[]): Promise<string> =>
    (await box.run(["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", ...names])).stdout;
  const imageOf = async (name: string): Promise<string> =>
    (await box.run(["docker", "inspect", "--format", "{{.Config.Image}}", name])).stdout.trim();
  const snapshots = async (): Promise<readonly string[]> =>
    (await box.run("ls /opt/fula-master/snapshots")).stdout
      .split("\n")
      .filter((name) => name.endsWith(".json"));

  beforeAll(async () => {
    box = await Box.boot({ name: "settings", image: "docker" });
    await installArtifact(box);
    current = await makeRelease(box, "0.3.0");
    expectExit(await current(FIRST_JOIN), 0);
  });
  afterAll(() => box?.destroy());

  test("a node that 0.2.0 made: nothing that keeps its values is restarted", async () => {
    const names = ["postgres-pinning", "ipfs_host", "ipfs_cluster"];
    const before = await startOf(...names);
    await box.run(
      `cd /opt/fula-master && sed -i 's/^# \\(KEEP\\|KUBO_IMAGE\\|CLUSTER_IMAGE\\|WEBUI_PORT\\)=/\\1=/; s/^FULA_NODE_VERSION=.*/FULA_NODE_VERSION=0.2.0/' .env`,
    );
    expect(await readEnv(box)).toMatchObject({ KUBO_IMAGE: OLD_KUBO, WEBUI_PORT: "3001" });
    expectExit(await current(JOIN), 0);
    expect(Object.keys(await readEnv(box))).not.toEqual(expect.arrayContaining(["KUBO_IMAGE"]));
    expect(await startOf(...names)).toBe(before);
  });

  test("the environment does not overrule what is installed, and a warning says so", async () => {
    const shell = {
      KEEP: "1",
      POSTGRES_HOST: "db.invalid",
      COMPOSE_PROJECT_NAME: "other",
      COMPOSE_PROFILES: "updater",
    };
    expectExit(await current(["snapshot", "take"]), 0);
    const before = await snapshots();
    expect(before.length).toBeGreaterThan(1);
    const take = await current(["snapshot", "take"], shell);
    expectExit(take, 0);
    expect(await snapshots()).toEqual(expect.arrayContaining([...before]));
    expect(stderrOf(take)).toContain('KEEP in the environment ("1") is ignored: the default is used ("28")');
    expectExit(await current(["migrate", "status"], shell), 0);
    expectExit(await current([...JOIN, "--set", "KEEP=9"]), 0);
    const watched = await watch(box);
    const join = await current(JOIN, shell);
    expectExit(join, 0);
    expect(stderrOf(join)).toContain(
      'POSTGRES_HOST in the environment ("db.invalid") is ignored: .env has another one ("127.0.0.1")',
    );
    expect(stderrOf(join)).toContain('KEEP in the environment ("1") is ignored: .env has another one ("9")');
    expect(await watch(box)).toEqual(watched);
  });

  test("COMPOSE_ keys in .env change nothing in what Compose does", async () => {
    await box.run(
      `printf 'COMPOSE_PROJECT_NAME=other\\nCOMPOSE_PROFILES=updater,gateway\\nCOMPOSE_FILE=/nowhere.yml\\nDOCKER_HOST=tcp://192.0.2.1:1\\n' >>/opt/fula-master/.env`,
    );
    expectExit(await current([...JOIN, "--dry-run"]), 0);
    await box.run("docker rm -f fula-pinning-webui");
    expectExit(await current(JOIN), 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
  });

  test("a value from a file or from standard input is saved, and every way to write the directory is one", async () => {
    await box.run("printf 'someone:else\\n' >/root/auth && ln -s /opt/fula-master /root/link");
    const fromFile = ["--set-file", "GOOGLE_CLIENT_ID=/root/auth", "--base-dir", "/opt//fula-master/"];
    expectExit(await current([...JOIN, ...fromFile]), 0);
    const program = "node /root/release-0.3.0/bin/fula-node.js";
    const piped = `printf 'ops@example.com' | ${program} join-as-master --yes --set-file ADMIN_EMAILS=- --base-dir /root/link`;
    expectExit(await box.exec(["sh", "-c", piped]), 0);
    expect(await readEnv(box)).toMatchObject({
      GOOGLE_CLIENT_ID: "someone:else",
      ADMIN_EMAILS: "ops@example.com",
    });
    expectExit(await current([...JOIN, "--dry-run"]), 0);
    const gone = `mkdir /root/gone && cd /root/gone && rmdir /root/gone && ${program} snapshot list --base-dir /opt/fula-master/`;
    expectExit(await box.exec(["sh", "-c", gone]), 0);
  });

  test("a newer release brings its newer kubo; a value that the operator gave stays", async () => {
    expectExit(await current([...JOIN, "--set", `CLUSTER_IMAGE=${CLUSTER}`]), 0);
    await box.run(["docker", "tag", OLD_KUBO, NEW_KUBO]);
    const next = await makeRelease(box, "0.4.0", {
      [OLD_KUBO]: NEW_KUBO,
      [CLUSTER]: "ipfs/ipfs-cluster:v9.9.9",
    });
    const before = await startOf("postgres-pinning", "ipfs_cluster");
    expectExit(await next([...JOIN, "--without-backup"]), 0);
    expect([await imageOf("ipfs_host"), await imageOf("ipfs_cluster")]).toEqual([NEW_KUBO, CLUSTER]);
    expect(await readEnv(box)).toMatchObject({ CLUSTER_IMAGE: CLUSTER, KEEP: "9" });
    expect(await startOf("postgres-pinning", "ipfs_cluster")).toBe(before);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expectExit(await next([...JOIN, "--dry-run"]), 0);
  });
});
