import { execa } from "execa";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readShipped } from "./compose-fragments.ts";

/** The part of a fresh service.json (ipfs-cluster 1.1.6) that matters here. */
const FRESH = {
  cluster: { secret: "5".repeat(64), peer_addresses: [] },
  consensus: { crdt: { cluster_name: "ipfs-cluster", trusted_peers: ["*"] } },
  api: {
    ipfsproxy: { listen_multiaddress: "/ip4/127.0.0.1/tcp/9095", log_file: "" },
    pinsvcapi: { http_listen_multiaddress: "/ip4/127.0.0.1/tcp/9097", headers: {}, cors: ["*"] },
    restapi: { http_listen_multiaddress: "/ip4/127.0.0.1/tcp/9094" },
  },
  datastore: { pebble: { pebble_options: { levels: [{ a: 1 }, { b: 2 }] } } },
};
const { ipfsproxy: _proxy, pinsvcapi: _service, ...closed } = FRESH.api;

/** Prints how it was called. `init` writes what the real one does, and keeps an identity. */
const FAKE_SERVICE = `echo "$@"
[ "$1" = init ] || exit 0
cd "$IPFS_CLUSTER_PATH"
echo new >service.json
[ -e identity.json ] || echo new >identity.json
: >peerstore`;

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "fula-node-start-"));
  // The script as shipped, but for the program that it starts in the end.
  const script = readShipped("cluster-start.sh").replace(/^program=.*$/m, "program=fake-service");
  await writeFile(join(directory, "start.sh"), script);
  await chmod(join(directory, "start.sh"), 0o755);
  await mkdir(join(directory, "bin"));
  await program("fake-service", FAKE_SERVICE);
  await program("wget", "exit 0");
  await program("sleep", "exit 0");
});

/** A program that the scripts find first. */
async function program(name: string, script: string): Promise<void> {
  await writeFile(join(directory, "bin", name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

afterEach(() => rm(directory, { recursive: true, force: true }));

async function start(options: {
  /** null: no service.json. */
  readonly config?: string | null;
  readonly trusted?: string;
  readonly args?: readonly string[];
  readonly follower?: boolean;
  readonly auth?: string;
  readonly masters?: string;
}): Promise<{ readonly exitCode?: number | undefined; readonly stdout: string; readonly stderr: string }> {
  const {
    config = JSON.stringify(FRESH, null, 2),
    trusted,
    args = ["closed-daemon"],
    follower,
    auth,
    masters,
  } = options;
  if (config !== null) await writeFile(configFile(), config, { mode: 0o600 });
  await writeFile(join(directory, "identity.json"), JSON.stringify({ id: "12D3KooWOwn" }, null, 4));
  const mode = follower === true ? { CLUSTER_FOLLOWERMODE: "true" } : {};
  const trust = trusted === undefined ? {} : { CLUSTER_CRDT_TRUSTEDPEERS: trusted };
  return await execa(join(directory, "start.sh"), args, {
    env: {
      PATH: `${join(directory, "bin")}:${process.env["PATH"] ?? ""}`,
      IPFS_CLUSTER_PATH: directory,
      ...mode,
      ...trust,
      ...(auth === undefined ? {} : { CLUSTER_CREDENTIALS: auth }),
      ...(masters === undefined ? {} : { CLUSTER_PEERADDRESSES: masters }),
    },
    extendEnv: false,
    reject: false,
  });
}

const configFile = (): string => join(directory, "service.json");

describe("cluster-start.sh", () => {
  it("takes both open endpoints out, leaves the rest, and starts the daemon", async () => {
    const { exitCode, stdout } = await start({ trusted: "", args: ["closed-daemon", "--upgrade"] });
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: "daemon --upgrade" });
    expect(JSON.parse(await readFile(configFile(), "utf8"))).toEqual({ ...FRESH, api: closed });
    expect((await stat(configFile())).mode & 0o777).toBe(0o600);
  });

  it("manages when they are the last in their object, or the only ones", async () => {
    const { restapi, ...open } = FRESH.api;
    await start({ trusted: "", config: JSON.stringify({ api: { restapi, ...open }, z: 1 }, null, "\t") });
    expect(JSON.parse(await readFile(configFile(), "utf8"))).toEqual({ api: { restapi }, z: 1 });
    await start({ trusted: "", config: JSON.stringify({ a: 1, api: open }, null, 4) });
    expect(JSON.parse(await readFile(configFile(), "utf8"))).toEqual({ a: 1, api: {} });
  });

  it("does not touch a file without them", async () => {
    const config = JSON.stringify({ api: closed });
    expect((await start({ trusted: "", config })).stdout).toBe("daemon");
    expect(await readFile(configFile(), "utf8")).toBe(config);
  });

  it.each([
    ["a master", true, undefined],
    ["a follower, which its masters tell again", false, "12D3KooWMaster"],
  ])("%s: each write is synced: %j", async (_, synced, master) => {
    const config = (sync_writes: boolean) => ({
      api: closed,
      datastore: { badger3: { badger_options: { dir: "", sync_writes, read_only: false } } },
    });
    await start({
      trusted: master ?? "",
      follower: master !== undefined,
      config: JSON.stringify(config(false), null, 2),
    });
    expect(JSON.parse(await readFile(configFile(), "utf8"))).toEqual(config(synced));
    expect((await stat(configFile())).mode & 0o777).toBe(0o600);
  });

  it("does not start if it can't take them out", async () => {
    const config = JSON.stringify(FRESH);
    const { exitCode, stdout, stderr } = await start({ trusted: "", config });
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toContain("delete both sections by hand");
    expect(await readFile(configFile(), "utf8")).toBe(config);
  });

  it.each([["*"], ["12D3KooWA,*"], [undefined]])("does not start while it trusts %j", async (trusted) => {
    const { exitCode, stdout, stderr } = await start(trusted === undefined ? {} : { trusted });
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toContain("everyone could rewrite the pinset");
  });

  it.each([[""], [","], ["12D3KooWOwn"], ["12D3KooWMaster,12D3KooWOwn"]])(
    "a follower does not start while it trusts %j",
    async (trusted) => {
      const { exitCode, stdout, stderr } = await start({ trusted, follower: true });
      expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
      expect(stderr).toContain("a follower obeys the masters");
    },
  );

  it("a follower starts with the trusted masters", async () => {
    expect((await start({ trusted: "12D3KooWMaster", follower: true })).stdout).toBe("daemon");
  });

  it("has a follower join by the masters' addresses, which gives them no trust", async () => {
    const masters = "/ip4/192.0.2.1/tcp/9096/p2p/12D3KooWMaster";
    const started = await start({ trusted: "12D3KooWMaster", follower: true, masters });
    expect(started.stdout).toBe(`daemon --bootstrap ${masters} --no-trust`);
    expect((await start({ trusted: "12D3KooWMaster", masters })).stdout).toBe("daemon");
  });

  it("waits for kubo, because a pin that kubo does not take is tried again only much later", async () => {
    const asked = join(directory, "asked");
    await program("wget", `echo "$*" >>${asked}; [ "$(wc -l <${asked})" -ge 4 ]`);
    expect((await start({ trusted: "" })).stdout).toBe("daemon");
    const lines = (await readFile(asked, "utf8")).trimEnd().split("\n");
    expect(lines).toHaveLength(4);
    expect(lines[0]).toContain("http://127.0.0.1:5001/api/v0/id");
  });

  it("does not wait for ever for a kubo that stays away, and not at all for other commands", async () => {
    const slept = join(directory, "slept");
    await program("wget", "exit 1");
    await program("sleep", `echo "$1" >>${slept}`);
    expect((await start({ args: ["state", "ls"] })).stdout).toBe("state ls");
    await expect(readFile(slept, "utf8")).rejects.toThrow("ENOENT");
    expect((await start({ trusted: "" })).stdout).toBe("daemon");
    expect((await readFile(slept, "utf8")).trimEnd().split("\n")).toHaveLength(60);
  });

  it("gives the password to the daemon, and never writes it into service.json; a blank one is none", async () => {
    const script = await readFile(join(directory, "start.sh"), "utf8");
    const shown = script
      .replace(/^program=.*$/m, "program=show")
      .replace(
        "set -eu",
        'set -eu\nshow() { printf "%s %s\\n" "$1" "${CLUSTER_RESTAPI_BASICAUTHCREDENTIALS-none}"; }',
      );
    await writeFile(join(directory, "start.sh"), shown.replaceAll('exec "$program"', '"$program"'));
    const daemon = async (auth?: string) =>
      (await start({ trusted: "", ...(auth === undefined ? {} : { auth }) })).stdout;
    expect(await daemon("fula-node:word")).toBe("daemon fula-node:word");
    expect(await daemon("")).toBe("daemon none");
    expect(await daemon()).toBe("daemon none");
    expect(await readFile(configFile(), "utf8")).not.toContain("word");
    const init = await start({ config: null, args: ["init"], auth: "fula-node:word" });
    expect(init.stdout.split("\n")[0]).toBe("init none");
  });

  it("passes on any other call unchanged", async () => {
    expect((await start({ args: ["state", "export", "-f", "a b"] })).stdout).toBe("state export -f a b");
    expect((await start({ args: [] })).stdout).toBe("");
    expect(JSON.parse(await readFile(configFile(), "utf8"))).toEqual(FRESH);
  });

  it("makes a new peer with a store that outlives a kill, before what the caller says", async () => {
    const asked = ["init", "--consensus", "crdt", "--datastore", "leveldb", "https://host/a b"];
    expect((await start({ config: null, args: asked })).stdout).toBe(
      "init --datastore badger3 --consensus crdt --datastore leveldb https://host/a b",
    );
  });

  it("gives a new peer's files their names only after a sync: the image looks for service.json alone", async () => {
    const seen = join(directory, "seen");
    await program("sync", `ls ${directory} ${directory}/init.fula-node >>${seen} 2>&1; echo -- >>${seen}`);
    expect((await start({ config: null, args: ["init"] })).exitCode).toBe(0);
    const [before, after] = (await readFile(seen, "utf8")).split("--\n");
    expect(before).toContain(`${directory}/init.fula-node:\nidentity.json\npeerstore\nservice.json`);
    expect(before?.split("\n\n")[0]).not.toContain("service.json");
    expect(after).toContain("service.json");
    expect(await readFile(configFile(), "utf8")).toBe("new\n");
    // The identity that was there is kept.
    expect(await readFile(join(directory, "identity.json"), "utf8")).toContain("12D3KooWOwn");
  });

  it("does not start with an empty file, and says where it stands what to do", async () => {
    const { exitCode, stdout, stderr } = await start({ trusted: "", config: "" });
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toContain("service.json is empty. See docs/troubleshooting.md#");
  });

  it("chooses for a follower too, and not if there is a configuration", async () => {
    const init = { args: ["init", "--force"], config: null };
    expect((await start({ ...init, follower: true })).stdout).toBe("init --datastore badger3 --force");
    expect((await start({ args: init.args })).stdout).toBe("init --force");
  });

  it.each([
    ["pebble", ["pebble"]],
    ["leveldb", ["leveldb"]],
    ["badger", ["badger"]],
    ["badger3", ["badger3", "pebble"]],
  ])("goes on with %s if %j lie without a configuration", async (chosen, kept) => {
    for (const name of kept) await mkdir(join(directory, name));
    expect((await start({ config: null, args: ["init"] })).stdout).toBe(`init --datastore ${chosen}`);
  });
});
