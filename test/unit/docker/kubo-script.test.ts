import { execa } from "execa";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readShipped } from "./compose-fragments.ts";

const CONFIG = '{\n  "Identity": { "PeerID": "12D3KooWOwn", "PrivKey": "CAESx" },\n  "Internal": {}\n}';
/** Like kubo: `init` makes a new peer, and everything is written without a sync. */
const FAKE_IPFS = `echo "ipfs $*" >>"$LOG"
[ "\${1:-}" != init ] || { mkdir -p "$IPFS_PATH/blocks"; printf '%s' '${CONFIG.replace("Own", "New")}' >"$IPFS_PATH/config"; }
exit "\${FAIL:-0}"`;
/** What kubo's image does before the daemon. */
const IMAGE_START = `set -e
ipfs version
[ -e "$IPFS_PATH/config" ] || ipfs init --profile=server
"$INIT"`;

let directory: string;
let repo: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "fula-node-kubo-"));
  repo = join(directory, "repo");
  for (const name of ["repo", "bin", "real", "tmp"]) await mkdir(join(directory, name));
  await program("real/ipfs", FAKE_IPFS);
  await program("real/sync", 'cd "$IPFS_PATH" && echo "sync:" * >>"$LOG"');
  // As shipped, but for the place of the real program. It is mounted at both places.
  const script = readShipped("kubo-init.sh").replace(/^program=.*$/m, `program=${directory}/real/ipfs`);
  for (const name of ["bin/ipfs", "init.sh"]) await writeFile(join(directory, name), script, { mode: 0o755 });
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function program(name: string, script: string): Promise<void> {
  await writeFile(join(directory, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

/** Starts the container; false: it ends with an error. Returns the calls, and what was said. */
async function start(env: Readonly<Record<string, string>> = {}, script = IMAGE_START) {
  const log = join(directory, "log");
  await writeFile(log, "");
  await rm(join(directory, "tmp"), { recursive: true });
  await mkdir(join(directory, "tmp"));
  const { exitCode, stdout, stderr } = await execa("/bin/sh", ["-c", script], {
    env: {
      PATH: `${directory}/bin:${directory}/real:${process.env["PATH"] ?? ""}`,
      IPFS_PATH: repo,
      TMPDIR: join(directory, "tmp"),
      INIT: join(directory, "init.sh"),
      LOG: log,
      ...env,
    },
    extendEnv: false,
    reject: false,
  });
  return { exitCode, said: stdout + stderr, calls: (await readFile(log, "utf8")).trim().split("\n") };
}

const configFile = (): string => join(repo, "config");
const config = (): Promise<string> => readFile(configFile(), "utf8");

/** A repository that was started before. */
async function started(): Promise<void> {
  await writeFile(configFile(), CONFIG, { mode: 0o600 });
  await mkdir(join(repo, "blocks"));
  await writeFile(join(repo, "blocks", "one"), "a block");
  expect((await start()).exitCode).toBe(0);
}

const hasBlock = async (): Promise<boolean> => (await readdir(join(repo, "blocks"))).includes("one");

describe("kubo-init.sh, before the daemon", () => {
  it("binds RPC and gateway to loopback, limits the storage if told so, and fails when it can't", async () => {
    const sets = ({ calls }: Awaited<ReturnType<typeof start>>) =>
      calls.filter((call) => call.startsWith("ipfs config"));
    const expected = [
      "ipfs config Addresses.API /ip4/127.0.0.1/tcp/5001",
      "ipfs config Addresses.Gateway /ip4/127.0.0.1/tcp/8080",
    ];
    expect(sets(await start())).toEqual(expected);
    const limited = await start({ KUBO_STORAGE_MAX: "500GB" });
    expect(sets(limited)).toEqual([...expected, "ipfs config Datastore.StorageMax 500GB"]);
    expect((await start({ FAIL: "3" }, '"$INIT"')).exitCode).toBe(3);
  });

  it("syncs after the last change, keeps a synced copy, and only then ends the first start", async () => {
    const { exitCode, calls } = await start({ KUBO_PRIVATE_NETWORK: "true" });
    expect(exitCode).toBe(0);
    const last = calls.findLastIndex((call) => call.startsWith("ipfs"));
    expect(calls.slice(last + 1)).toEqual([
      "sync: blocks config config.fula-node.new first-start.fula-node",
      "sync: blocks config config.fula-node first-start.fula-node",
      "sync: blocks config config.fula-node",
    ]);
    expect((await start()).calls.at(-1)).toBe("sync: blocks config config.fula-node");
    expect(calls.indexOf("sync: first-start.fula-node")).toBeLessThan(
      calls.indexOf("ipfs init --profile=server"),
    );
  });
});

describe("kubo-init.sh, after a power cut", () => {
  it("makes a repository anew whose first start was cut off, whatever is left of it", async () => {
    expect((await start({}, "ipfs version; ipfs init")).exitCode).toBe(0);
    await writeFile(configFile(), "");
    await writeFile(join(repo, "version"), "");
    const { exitCode, said } = await start();
    expect({ exitCode, said }).toEqual({ exitCode: 0, said: expect.stringContaining("is made once more") });
    expect(await config()).toContain("12D3KooWNew");
    expect((await readdir(repo)).sort()).toEqual(["blocks", "config", "config.fula-node"]);
  });

  it.each([
    ["empty", ""],
    ["cut off", CONFIG.slice(0, 80)],
    ["zeros in the middle", `${CONFIG.slice(0, 70)}\0\0\0${CONFIG.slice(73)}`],
    ["zeros", "\0".repeat(200)],
    ["missing", null],
  ])("puts the copy back, with the same peer, if the configuration is %s", async (_, left) => {
    await started();
    if (left === null) await rm(configFile());
    else await writeFile(configFile(), left);
    const { exitCode, said, calls } = await start();
    expect({ exitCode, said }).toEqual({ exitCode: 0, said: expect.stringContaining("the same peer id") });
    expect(await config()).toBe(CONFIG);
    expect((await stat(configFile())).mode & 0o777).toBe(0o600);
    expect(calls.join("\n")).not.toContain("ipfs init");
    expect(await hasBlock()).toBe(true);
  });

  it.each([
    ["is empty or not complete", ""],
    ["has blocks, but no configuration", null],
  ])("never makes a new peer of a repository that %s and has no copy", async (words, left) => {
    await started();
    await rm(join(repo, "config.fula-node"));
    if (left === null) await rm(configFile());
    else await writeFile(configFile(), left);
    const { exitCode, said } = await start();
    expect({ exitCode, said }).toEqual({ exitCode: 1, said: expect.stringContaining(words) });
    expect(said).toContain("docs/troubleshooting.md#");
    expect(await hasBlock()).toBe(true);
    expect((await readdir(repo)).includes("config")).toBe(left !== null);
  });

  it("removes what a daemon left that says where it listens", async () => {
    await started();
    for (const name of ["api", "gateway"]) await writeFile(join(repo, name), "");
    await start();
    expect((await readdir(repo)).sort()).toEqual(["blocks", "config", "config.fula-node"]);
  });

  it("leaves a repository alone that is whole, and one that runs: the version is asked for by others, too", async () => {
    await started();
    expect((await start()).said).toBe("");
    await writeFile(join(repo, "first-start.fula-node"), "");
    // Somebody asks for it in the same container, after the image did.
    const asked = await start({}, "ipfs version; ipfs init; ipfs version; ipfs id");
    expect(asked.calls.at(-1)).toBe("ipfs id");
    expect(await config()).toContain("12D3KooWNew");
  });
});
