import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { findRemovals, installPackages } from "../../src/machine/apt.ts";
import { parseSockets } from "../../src/machine/processes.ts";
import { programEnvironment, runProgram } from "../../src/machine/run-program.ts";
import { bridgeSubnets, createSystem, parseOsRelease } from "../../src/machine/system.ts";
import { enableUnit, parseUnit, readUnit } from "../../src/machine/systemd.ts";

const temporary: string[] = [];
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});
afterAll(() => {
  for (const path of temporary) rmSync(path, { recursive: true, force: true });
});

function makeTemporary(): string {
  const path = mkdtempSync(join(tmpdir(), "fula-node-system-"));
  temporary.push(path);
  return path;
}

/** A PATH with these scripts on it, and the log that each of them writes its arguments to. */
function makePrograms(scripts: Readonly<Record<string, string>>) {
  const bin = makeTemporary();
  const log = join(bin, "calls.log");
  for (const [name, body] of Object.entries(scripts)) {
    const path = join(bin, name);
    writeFileSync(
      path,
      `#!/bin/sh\ncalls=$(grep -c "^${name} " ${log} 2>/dev/null)\necho "${name} $*" >> ${log}\n${body}\n`,
    );
    chmodSync(path, 0o755);
  }
  const calls = () => (existsSync(log) ? readFileSync(log, "utf8").trim().split("\n") : []);
  return { bin, calls, env: { PATH: `${bin}:/usr/bin:/bin`, HOME: "/root" } };
}

function listen(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    servers.push(server);
    server.once("error", reject);
    server.listen(0, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

describe("the real system", () => {
  const system = createSystem(process.env);

  it("names who listens where, with process and ancestry", async () => {
    const port = await listen("127.0.0.1");
    const every = await listen("0.0.0.0");
    const found = await system.listeners();
    expect(found).toContainEqual(
      expect.objectContaining({
        port,
        address: "127.0.0.1",
        pid: process.pid,
        ancestry: expect.arrayContaining([process.pid, process.ppid, 1]),
      }),
    );
    const mine = found.find((one) => one.port === every);
    expect(mine).toMatchObject({ address: "0.0.0.0", pid: process.pid });
    expect(mine?.process).toBe(readFileSync(`/proc/${process.pid}/comm`, "utf8").trim());
    expect(mine?.ancestry[0]).toBe(process.pid);
  });

  it("no longer names a port that was closed", async () => {
    const port = await listen("127.0.0.1");
    const [server] = servers.splice(0);
    await new Promise((resolve) => server?.close(resolve));
    expect((await system.listeners()).map((one) => one.port)).not.toContain(port);
  });

  it("finds programs on root's PATH, and says when there is none", async () => {
    expect(await system.which("sh")).toMatch(/^\/(usr\/)?bin\/sh$/);
    expect(await system.which("no-such-program")).toBeNull();
    expect(await createSystem({ PATH: "relative:" }).which("sh")).toMatch(/\/sh$/);
  });

  it("knows the machine", async () => {
    expect(await system.os()).toMatchObject({ arch: process.arch });
    expect(system.uid()).toBe(process.geteuid?.());
    expect(system.memoryBytes()).toBeGreaterThan(64 * 1024 ** 2);
    expect(await system.isRunning(readFileSync(`/proc/${process.pid}/comm`, "utf8").trim())).toBe(true);
    expect(await system.isRunning("no-such-process")).toBe(false);
  });

  it("runs a command to its end, or says how it failed", async () => {
    await system.runCommand(["sh", "-c", "exit 0"], { timeoutMs: 10_000 });
    await expect(
      system.runCommand(["sh", "-c", "echo it broke >&2; exit 3"], { timeoutMs: 10_000 }),
    ).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringContaining("exit code 3"),
      why: "it broke",
    });
    await expect(system.runCommand(["no-such-program"], { timeoutMs: 10_000 })).rejects.toMatchObject({
      why: "no-such-program is not installed",
    });
    await expect(system.runCommand(["sleep", "60"], { timeoutMs: 200 })).rejects.toMatchObject({
      why: expect.stringContaining("did not end within"),
    });
  });
});

describe("programs get a closed environment", () => {
  it("takes nothing of the shell's but what reaches a network or a home", async () => {
    const env = programEnvironment({
      PATH: "/snap/bin:/usr/bin:relative",
      HOME: "/home/x",
      https_proxy: "http://proxy",
      POSTGRES_PASSWORD: "hunter2",
      COMPOSE_FILE: "/elsewhere",
      DOCKER_CONTEXT: "remote",
      LANG: "de_DE.UTF-8",
    });
    const { stdout } = await runProgram(["env"], { env, timeoutMs: 10_000 });
    const seen = Object.fromEntries(stdout.split("\n").map((line) => line.split("=")));
    expect(seen).toEqual({
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin",
      HOME: "/home/x",
      https_proxy: "http://proxy",
      LC_ALL: "C.UTF-8",
    });
  });

  it("tells lines as they come, keeps the last ones, and passes input", async () => {
    const printed: string[] = [];
    const argv = ["sh", "-c", "cat; for i in $(seq 30); do echo line $i >&2; done; exit 4"];
    const result = await runProgram(argv, {
      env: programEnvironment({}),
      timeoutMs: 10_000,
      input: "from stdin\n",
      onLine: (line) => printed.push(line),
    });
    expect(result).toMatchObject({ exitCode: 4, stdout: "from stdin", stopped: null });
    expect(printed).toHaveLength(31);
    expect(result.lastLines).toHaveLength(20);
    expect(result.lastLines.at(-1)).toBe("line 30");
  });

  it.each([
    ["that has ended", 20_000, "sleep 60 & echo done", { exitCode: 0, stdout: "done", stopped: null }],
    [
      "that takes too long",
      1_000,
      "sleep 60 & sleep 60",
      { exitCode: null, stopped: "sh did not end within 1 s" },
    ],
  ])(
    "does not wait for a child that keeps the output of a program %s",
    async (...[, timeoutMs, script, expected]) => {
      const startedMs = performance.now();
      const result = await runProgram(["sh", "-c", script], { env: programEnvironment({}), timeoutMs });
      expect(result).toMatchObject(expected);
      expect(performance.now() - startedMs).toBeLessThan(30_000);
    },
  );

  it("says so when a program is killed", async () => {
    const env = programEnvironment({});
    const { exitCode, stopped } = await runProgram(["sh", "-c", "kill -9 $$"], { env, timeoutMs: 10_000 });
    expect({ exitCode, stopped }).toEqual({ exitCode: null, stopped: "sh was killed by SIGKILL" });
  });
});

describe("what /proc/net/tcp says", () => {
  it("is read for IPv4, IPv6 and mapped addresses, listening sockets only", () => {
    const row = (address: string, state: string, inode: string) =>
      `   0: ${address} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1 0000000000000000 100 0 0 10 0`;
    const table = [
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
      row("0100007F:1538", "0A", "11"),
      row("00000000:1770", "0A", "12"),
      row("0100007F:1538", "01", "13"),
      row("00000000000000000000000000000000:2386", "0A", "14"),
      row("00000000000000000000000001000000:0FA1", "0A", "15"),
      row("0000000000000000FFFF00000100007F:0050", "0A", "16"),
      row("B80D01200000000067450000EFCDAB89:0051", "0A", "17"),
      "",
    ].join("\n");
    expect(parseSockets(table)).toEqual([
      { address: "127.0.0.1", port: 5432, inode: "11" },
      { address: "0.0.0.0", port: 6000, inode: "12" },
      { address: "::", port: 9094, inode: "14" },
      { address: "::1", port: 4001, inode: "15" },
      { address: "127.0.0.1", port: 80, inode: "16" },
      { address: "2001:db8::4567:89ab:cdef", port: 81, inode: "17" },
    ]);
  });
});

describe("os-release", () => {
  it("is read with and without quotes", () => {
    const text = `PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n# VERSION_ID=1\n`;
    expect(parseOsRelease(text)).toEqual({
      id: "ubuntu",
      versionId: "24.04",
      idLike: ["debian"],
      prettyName: "Ubuntu 24.04.1 LTS",
    });
    expect(parseOsRelease("")).toEqual({ id: "linux", versionId: "", idLike: [], prettyName: "linux" });
  });
});

describe("systemd units", () => {
  const shown =
    "ExecStart={ path=/usr/bin/docker ; argv[]=/usr/bin/docker run --name ipfs_host ipfs/kubo:release ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n";

  it("are read as systemctl shows them", () => {
    expect(parseUnit("ipfs.service", shown)).toEqual({
      name: "ipfs.service",
      loaded: true,
      masked: false,
      active: true,
      atBoot: true,
      execStart: "/usr/bin/docker run --name ipfs_host ipfs/kubo:release",
    });
    expect(parseUnit("x", "LoadState=not-found\nActiveState=inactive\n")).toBeNull();
    expect(parseUnit("x", "LoadState=masked\nActiveState=failed\n")).toMatchObject({
      loaded: false,
      masked: true,
      active: false,
      atBoot: false,
    });
    for (const state of ["disabled", "enabled-runtime", "masked", ""])
      expect(parseUnit("x", `LoadState=loaded\nUnitFileState=${state}\n`)).toMatchObject({ atBoot: false });
  });

  it("are asked for by name, and not at all without systemd", async () => {
    const { env, calls } = makePrograms({ systemctl: `printf '%s' '${shown}'` });
    expect(await readUnit("ipfs.service", env, true)).toMatchObject({ active: true });
    expect(calls()).toEqual([
      "systemctl show --no-pager -p LoadState -p ActiveState -p UnitFileState -p ExecStart -- ipfs.service",
    ]);
    expect(await readUnit("ipfs.service", env, false)).toBeNull();
  });

  it("are enabled and started; a failure carries what systemctl says", async () => {
    const good = makePrograms({ systemctl: "exit 0" });
    await enableUnit("cron", good.env, true);
    expect(good.calls()).toEqual(["systemctl enable --now -- cron"]);
    const bad = makePrograms({ systemctl: "echo Unit cron.service not found. >&2; exit 5" });
    await expect(enableUnit("cron", bad.env, true)).rejects.toMatchObject({
      exit: "unavailable",
      why: "Unit cron.service not found.",
    });
  });

  it("without systemd an init script is started, but never Docker", async () => {
    const { env, calls } = makePrograms({ service: "exit 0" });
    await enableUnit("cron.service", env, false);
    expect(calls()).toEqual(["service cron start"]);
    await expect(enableUnit("docker", env, false)).rejects.toMatchObject({
      what: expect.stringContaining("no systemd"),
    });
    expect(calls()).toHaveLength(1);
  });
});

describe("apt", () => {
  const install =
    "apt-get -y --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 install -- docker.io cron";
  const update = "apt-get -o DPkg::Lock::Timeout=300 update";

  function makeApt(scripts: Readonly<Record<string, string>>, lists = ["deb_dists_trixie_InRelease"]) {
    const programs = makePrograms(scripts);
    const listsDirectory = join(programs.bin, "lists");
    mkdirSync(listsDirectory);
    for (const name of lists) writeFileSync(join(listsDirectory, name), "");
    const printed: string[] = [];
    const waits: number[] = [];
    const run = () =>
      installPackages(["docker.io", "cron"], {
        env: programs.env,
        report: (line) => printed.push(line),
        wait: async (durationMs) => void waits.push(durationMs),
        listsDirectory,
      });
    return { ...programs, printed, waits, run };
  }

  it("installs without asking, and tells what apt says", async () => {
    const says = 'printf "(Reading database ... 5%%\\r(Reading database ... done.\\n"';
    const apt = makeApt({ "apt-get": `${says}; echo "Setting up docker.io ... $DEBIAN_FRONTEND"` });
    await apt.run();
    expect(apt.calls()).toEqual([install]);
    expect(apt.printed).toEqual(["(Reading database ... done.", "Setting up docker.io ... noninteractive"]);
  });

  it("fetches the lists first where there are none", async () => {
    const apt = makeApt({ "apt-get": "exit 0" }, ["lock", "partial"]);
    await apt.run();
    expect(apt.calls()).toEqual([update, install]);
  });

  it("fetches the lists and tries again where they are stale", async () => {
    const stale = 'case "$calls" in ""|0) echo "E: Unable to locate package docker.io" >&2; exit 100;; esac';
    const apt = makeApt({ "apt-get": stale });
    await apt.run();
    expect(apt.calls()).toEqual([install, update, install]);
  });

  it("finishes what an interrupted dpkg left", async () => {
    const cut =
      'case "$calls" in ""|0) echo "E: dpkg was interrupted, you must manually run \'dpkg --configure -a\'" >&2; exit 100;; esac';
    const apt = makeApt({ "apt-get": cut, dpkg: "exit 0" });
    await apt.run();
    expect(apt.calls()).toEqual([install, "dpkg --configure -a --force-confdef --force-confold", install]);
  });

  it("waits for the lock of the lists, which apt-get does not", async () => {
    const locked =
      'case "$calls" in ""|0|1) echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7" >&2; exit 100;; esac';
    const apt = makeApt({ "apt-get": locked }, []);
    await apt.run();
    expect(apt.calls()).toEqual([update, update, update, install]);
    expect(apt.waits).toEqual([5000, 5000]);
  });

  it("goes on when one repository does not answer, and says so", async () => {
    const dead =
      'case "$*" in *update*) echo "E: The repository \'https://dead.example stable\' does not have a Release file." >&2; exit 100;; esac';
    const apt = makeApt({ "apt-get": dead }, []);
    await apt.run();
    expect(apt.calls()).toEqual([update, install]);
    expect(apt.printed).toContainEqual(expect.stringMatching(/^warning: some package lists/));
  });

  it("names the repository that does not answer when the packages are nowhere else", async () => {
    const dead =
      'case "$*" in *update*) echo "E: The repository dead.example has no Release file" >&2;; *) echo "E: Unable to locate package docker.io" >&2;; esac; exit 100';
    await expect(makeApt({ "apt-get": dead }).run()).rejects.toMatchObject({
      what: "The package lists could not be fetched.",
      why: expect.stringContaining("dead.example"),
    });
  });

  it("removes nothing, and names what apt would remove", async () => {
    const conflict =
      'case "$*" in *" -s "*|"-s "*) echo "Remv docker-ce [5:28.1]"; echo "Inst docker.io (1)"; exit 0;; esac; echo "E: Packages need to be removed but remove is disabled." >&2; exit 100';
    const apt = makeApt({ "apt-get": conflict });
    await expect(apt.run()).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("apt would remove docker-ce."),
    });
    expect(await findRemovals(["docker.io"], apt.env)).toEqual(["docker-ce"]);
  });

  it("gives up on a lock after five minutes, and on anything else at once", async () => {
    const locked = 'echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100';
    const patient = makeApt({ "apt-get": locked }, []);
    await expect(patient.run()).rejects.toMatchObject({ what: "The package lists could not be fetched." });
    expect(patient.waits).toHaveLength(60);
    const broken = makeApt({ "apt-get": "echo E: broken packages >&2; exit 100" });
    const thrown: unknown = await broken.run().catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(OperatorError);
    expect(thrown).toMatchObject({ exit: "unavailable", why: "E: broken packages" });
    expect(broken.calls()).toEqual([install]);
  });
});

describe("bridgeSubnets", () => {
  const HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT";
  const route = (name: string, destination: string, mask: string): string =>
    `${name}\t${destination}\t00000000\t0001\t0\t0\t0\t${mask}\t0\t0\t0`;

  function makeNetwork(files: Readonly<Record<string, string>>, bridges: readonly string[]) {
    const net = makeTemporary();
    const interfaces = makeTemporary();
    for (const [name, text] of Object.entries(files)) writeFileSync(join(net, name), text);
    for (const name of bridges) mkdirSync(join(interfaces, name, "bridge"), { recursive: true });
    return { net, interfaces };
  }

  it("are those of bridges, whether a container runs there or not, but not of one with the default route", async () => {
    const lines = [
      HEAD,
      route("eth0", "00000000", "00000000"),
      route("eth0", "000200C0", "00FFFFFF"),
      route("docker0", "000011AC", "0000FFFF"),
      route("br-0123456789ab", "000012AC", "0000FFFF"),
      "",
    ].join("\n");
    const addresses = [
      "fd000000000000170000000000000001 05 40 00 80  docker0",
      "00000000000000000000000000000001 01 80 10 80       lo",
      "",
    ].join("\n");
    const bridges = ["docker0", "br-0123456789ab"];
    const subnets = ["172.17.0.0/16", "172.18.0.0/16", "fd00:0000:0000:0017:0000:0000:0000:0001/64"];
    expect(await bridgeSubnets(makeNetwork({ route: lines, if_inet6: addresses }, bridges))).toEqual(subnets);
    // The machine's own network goes through a bridge, as on a host of virtual machines.
    const uplink = lines.replaceAll("eth0", "vmbr0");
    expect(
      await bridgeSubnets(makeNetwork({ route: uplink, if_inet6: addresses }, [...bridges, "vmbr0"])),
    ).toEqual(subnets);
    expect(await bridgeSubnets(makeNetwork({ route: lines }, []))).toEqual([]);
    expect(await bridgeSubnets(makeNetwork({}, bridges))).toEqual([]);
  });

  it("reads this machine's", async () => {
    expect(await bridgeSubnets()).toEqual(expect.any(Array));
  });
});
