import { afterAll, beforeAll, describe, expect, it, test } from "vitest";
import { DOCTOR_CHECKS } from "../../../src/doctor/doctor-checks.ts";
import { MASTER_CHECKS } from "../../../src/preflight/checks.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import { type DoctorBench, openDoctorBench } from "../../support/doctor-master.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage } from "../../support/storage-fake.ts";

let bench: DoctorBench;
beforeAll(async () => {
  bench = await openDoctorBench();
});
afterAll(() => bench.clear());

/** What `doctor` says about one change of a whole master. */
const afterChange = async (change: (host: FakeStorage) => void) => {
  const host = bench.master(change);
  const writes = host.writes.length;
  const diagnosed = await bench.doctorOn(host);
  expect(host.writes).toHaveLength(writes);
  expect(diagnosed.lines.filter((line) => line.length > 80)).toEqual([]);
  return diagnosed;
};

const stop = (host: FakeStorage, name: string) => {
  const one = host.docker.boxes.get(name);
  if (one !== undefined) host.docker.boxes.set(name, { ...one, status: "exited", exitCode: 137 });
};

describe("doctor on a whole master", () => {
  it("finds nothing wrong, and says what it has looked at", async () => {
    const { exit, wrong, lines } = await afterChange(() => {});
    expect([...wrong]).toEqual([]);
    expect(exit).toBe("ok");
    expect(lines[0]).toBe("fula-node 0.1.0 · doctor · master box of pool pool");
    expect(lines.at(-1)).toBe("Nothing is wrong (exit 0).");
    expect(lines.join(" ")).toContain("database");
  });

  it("makes every check of its own and of the preflight once", async () => {
    const ids = (await afterChange(() => {})).findings.map(({ id }) => id);
    const notHere = new Set(["ipv6", "firewall", "memory-left", "published-ports", "docker-rules"]);
    for (const { id } of DOCTOR_CHECKS) expect(ids.includes(id), id).toBe(!notHere.has(id));
    for (const { id } of MASTER_CHECKS)
      expect(ids.includes(`preflight-${id}`), id).toBe(!["compose"].includes(id));
  });

  it("shows everything with --verbose", async () => {
    const { lines } = await bench.doctorOn(bench.master(), { verbose: true });
    expect(lines.join("\n")).toMatch(/^ {2}ok +space/m);
  });
});

describe("doctor on a master that is half dead", () => {
  it("names each dead part with what to do, the worst first", async () => {
    const { exit, wrong, findings, lines } = await afterChange((host) => {
      stop(host, NAMES.postgres);
      stop(host, NAMES.kubo);
      host.files.freeBytes = 500 * 1000 ** 2;
    });
    expect(exit).toBe("unhealthy");
    expect(wrong.get("database")).toMatch(/^error: .*-> fula-node join-as-master/);
    expect(wrong.get("writer")).toMatch(/^error: .*-> fula-node join-as-master/);
    expect(wrong.get("space")).toMatch(/^error: the disk of \/opt\/fula-master is nearly full: 500.0 MB/);
    for (const command of [
      "du -xah --max-depth=3 /opt/fula-master | sort -h | tail",
      "fula-node join-as-master",
    ])
      expect(lines.map((line) => line.trim().replace(/^do: +/, ""))).toContain(command);
    const order = findings.map(({ severity }) => severity);
    expect(order).toEqual(order.toSorted((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b)));
  });

  it("works while Docker does not run", async () => {
    const { exit, wrong, findings } = await afterChange((host) => host.stopEngine());
    expect(wrong.get("docker")).toBe(
      "error: does not run: no /var/run/docker.sock -> systemctl start docker",
    );
    // A join would start the engine, so these pass. Nothing was seen of it.
    const ids = findings.map(({ id }) => id);
    for (const id of ["engine", "secrets", "watchtower"]) expect(ids).not.toContain(`preflight-${id}`);
    expect(exit).toBe("unhealthy");
  });

  it("works with settings that nobody can read, and still looks at the machine", async () => {
    const { exit, wrong } = await afterChange((host) => {
      host.files.put(LAYOUT.envFile, 'A="open\n', 0o600);
      host.system.facts.clockSynchronised = false;
    });
    expect(wrong.get("node")).toMatch(/^error: .*\.env/);
    expect(wrong.get("preflight-clock")).toMatch(/^warning: The clock is not synchronised/);
    expect(exit).toBe("unhealthy");
  });
});

const ORDER = ["error", "warning", "unknown", "note", "ok"];

describe("doctor without a node", () => {
  it("says so, and what would stop a join", async () => {
    const host = new FakeStorage();
    host.files.put("/run/systemd/system/x", "");
    host.system.facts.memoryBytes = 1024 ** 3 / 2;
    const { exit, wrong } = await bench.doctorOn(host);
    expect(wrong.get("node")).toBe(
      "warning: no node is installed here -> fula-node join-as-master, or fula-node join-as-storage-node --invite TOKEN",
    );
    expect(wrong.get("preflight-memory")).toMatch(/^error: This machine has 0.5 GiB/);
    expect(exit).toBe("unhealthy");
  });

  it("needs root", async () => {
    const host = bench.master((one) => (one.system.facts.uid = 1000));
    await expect(bench.doctorOn(host)).rejects.toMatchObject({ exit: "preflight" });
  });
});

const listener = (port: number, address: string) => ({
  port,
  address,
  pid: 5,
  process: "ipfs",
  ancestry: [5],
  unit: null,
});
const backupsOnOwnDisk = (host: FakeStorage) => {
  const saved = host.files.textOf(LAYOUT.envFile);
  host.files.put(LAYOUT.envFile, `${saved}BACKUP_DIR=/mnt/backups\nBACKUP_RECIPIENT=${RECIPIENT}\n`, 0o600);
  host.files.put("/mnt/backups/a.age", "");
};
const RECIPIENT = `age1${"q".repeat(58)}`;
const meminfo = (availableKb: number) =>
  `MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable: ${availableKb} kB\nSwapFree: 0 kB\n`;
const mountinfo = (options: string) =>
  `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 8:2 / /opt ${options} - ext4 /dev/sdb1 ${options}\n`;
const ufw = (host: FakeStorage, rules: string) => {
  host.files.put("/etc/ufw/ufw.conf", "ENABLED=yes\n");
  host.files.put("/etc/default/ufw", 'DEFAULT_INPUT_POLICY="DROP"\n');
  host.files.put("/etc/ufw/user.rules", rules);
};
const tuple = (ports: string, protocol = "tcp") =>
  `### tuple ### allow ${protocol} ${ports} 0.0.0.0/0 any 0.0.0.0/0 in\n`;
const intent = (attempt: string, at = "2026-01-01T00:00:00.000Z") =>
  `${JSON.stringify({ at, attempt, version: "1", step: "services", phase: "intent", change: {} })}\n`;
/** What runs under a process id, on a machine that started so many hours ago. */
const running = (host: FakeStorage, pid: number, [program, upHours]: readonly [string, number]) => {
  host.files.put(`/proc/${pid}/cmdline`, `/usr/bin/node\0${program}\0join-as-master\0`);
  host.files.put("/proc/uptime", `${upHours * 3600}.50 1.00\n`);
};
const OURS = "/opt/fula-master/cli/current/bin/fula-node.js";
const lock = (host: FakeStorage, hours: number) => {
  const since = new Date(host.clock.now().getTime() - hours * 3_600_000).toISOString();
  const holder = `${JSON.stringify({ pid: 77, verb: "join-as-master", since, name: "/opt/fula-master" })}\n`;
  for (const file of ["a", "b"]) host.files.put(`/run/fula-node/${file}.lock`, holder);
};
const published = (host: FakeStorage, address: string) => {
  ufw(host, tuple("4001", "any") + tuple("9096"));
  change(host, NAMES.webui, { publishedPorts: [8081] });
  host.system.listening = [{ ...listener(8081, address), process: "docker-proxy" }];
};
const iptables = (host: FakeStorage, why: string | null) => {
  host.system.programs.set("iptables", "/usr/sbin/iptables");
  host.system.onTry = ([program]) => (program === "/usr/sbin/iptables" ? why : null);
};
const change = (host: FakeStorage, name: string, more: object) => {
  const one = host.docker.boxes.get(name);
  if (one !== undefined) host.docker.boxes.set(name, { ...one, ...more });
};

/** Each check, with a machine on which it finds something, and what it says; null: it finds nothing. */
const FAULTS: readonly (readonly [
  name: string,
  change: (host: FakeStorage) => void,
  id: string,
  said: RegExp | null,
])[] = [
  [
    "little space",
    (h) => (h.files.freeBytes = 5e9),
    "space",
    /^warning: the disk .* 5.0 GB are left -> du -xah/,
  ],
  [
    "little space for backups",
    (h) => {
      const space = h.files.space.bind(h.files);
      backupsOnOwnDisk(h);
      Object.assign(h.files, {
        space: async (path: string) => ({
          ...(await space()),
          ...(path === "/mnt/backups" ? { freeBytes: 5e9 } : {}),
        }),
      });
    },
    "space",
    /^warning: the disk of \/mnt\/backups is nearly full: 5.0 GB are left -> ls -lht \/mnt\/backups; to keep fewer, such as 7: fula-node join-as-master --set BACKUP_KEEP=7/,
  ],
  [
    "enough space of a small disk",
    (h) => ((h.files.freeBytes = 5e9), (h.files.totalBytes = 20e9)),
    "space",
    null,
  ],
  [
    "few inodes",
    (h) => (h.files.freeInodes = 20_000),
    "space",
    /^warning: .*only 20000 more files.* -> du --inodes/,
  ],
  ["no inodes", (h) => (h.files.freeInodes = 5), "space", /^error: /],
  [
    "a disk that is read-only",
    (h) => h.files.put("/proc/self/mountinfo", mountinfo("ro")),
    "read-only",
    /^error: \/opt\/fula-master and \/opt\/fula-master\/snapshots and \/opt\/fula-writer can't be written to: \/opt is mounted/,
  ],
  [
    "a disk of backups that is read-only",
    (h) => (
      backupsOnOwnDisk(h),
      h.files.put("/proc/self/mountinfo", mountinfo("ro").replace("/opt", "/mnt"))
    ),
    "read-only",
    /^error: \/mnt\/backups can't be written to: \/mnt is mounted read-only/,
  ],
  ["a disk that is not", (h) => h.files.put("/proc/self/mountinfo", mountinfo("rw")), "read-only", null],
  [
    "a huge log of ours",
    (h) => h.files.put(LAYOUT.sweepLog, "x".repeat(70 * 1024 ** 2)),
    "large-logs",
    /^warning: \/opt\/fula-master\/sweep.log has 73.4 MB.* -> truncate -s 0/,
  ],
  [
    "little memory",
    (h) => h.files.put("/proc/meminfo", meminfo(100_000)),
    "memory-left",
    /^warning: only 102.4 MB of memory/,
  ],
  ["enough memory", (h) => h.files.put("/proc/meminfo", meminfo(4_000_000)), "memory-left", null],
  [
    "a container that memory ended",
    (h) => change(h, NAMES.kubo, { oomKilled: true }),
    "restarts",
    /^warning: the kernel ended ipfs_host because memory ran out -> journalctl/,
  ],
  [
    "a container that loops",
    (h) => change(h, NAMES.webui, { restartCount: 9 }),
    "restarts",
    /^warning: fula-pinning-webui starts again and again: 9 restarts -> docker logs/,
  ],
  [
    "one that looped long ago",
    (h) => change(h, NAMES.webui, { restartCount: 9, startedAt: "2025-12-01T00:00:00Z" }),
    "restarts",
    null,
  ],
  [
    "kubo's RPC open to all",
    (h) => (h.system.listening = [listener(5001, "0.0.0.0")]),
    "open-ports",
    /^error: other machines can reach port 5001: kubo's RPC -> /,
  ],
  [
    "kubo's RPC on loopback, its swarm open",
    (h) => (h.system.listening = [listener(5001, "127.0.0.1"), listener(4001, "::")]),
    "open-ports",
    null,
  ],
  [
    "the database open to all",
    (h) => (h.system.listening = [listener(5432, "::")]),
    "open-ports",
    /port 5432: Postgres/,
  ],
  [
    "ufw without the swarm",
    (h) => ufw(h, tuple("22")),
    "firewall",
    /^warning: ufw drops port \d+.*-> ufw allow/,
  ],
  ["ufw with it", (h) => ufw(h, tuple("4001", "any") + tuple("9000:9100")), "firewall", null],
  [
    "a run that was killed",
    (h) => h.files.put(LAYOUT.journal, intent("x-99")),
    "interrupted-run",
    /^warning: the last run was ended in the middle of a change, at the step services -> fula-node join-as-master/,
  ],
  [
    "a run that goes on",
    (h) => (h.files.put(LAYOUT.journal, intent("x-99")), running(h, 99, [OURS, 1000])),
    "interrupted-run",
    /^note: a run goes on now \(process 99\)/,
  ],
  [
    "a run that was killed, and another program with its process id",
    (h) => (h.files.put(LAYOUT.journal, intent("x-99")), running(h, 99, ["/srv/other.js", 1000])),
    "interrupted-run",
    /^warning: the last run was ended/,
  ],
  [
    "a run that a loss of power ended, and one of now with its process id",
    (h) => (
      h.files.put(LAYOUT.journal, intent("x-99", "2025-12-31T00:00:00.000Z")),
      running(h, 99, [OURS, 2])
    ),
    "interrupted-run",
    /^warning: the last run was ended/,
  ],
  [
    "a journal that was cut off",
    (h) => h.files.put(LAYOUT.journal, '{"at":'),
    "interrupted-run",
    /^warning: /,
  ],
  [
    "a run that holds a lock for hours",
    (h) => (lock(h, 3), running(h, 77, [OURS, 4])),
    "locks",
    /^warning: fula-node join-as-master \(process 77\) holds the lock on \/opt\/fula-master for 3 h -> ps /,
  ],
  ["a run that holds it for minutes", (h) => (lock(h, 0.1), running(h, 77, [OURS, 4])), "locks", null],
  [
    "a lock of an ended process, whose id is in use again",
    (h) => (lock(h, 3), running(h, 77, ["a", 4])),
    "locks",
    null,
  ],
  ["a lock of a process that has ended", (h) => lock(h, 3), "locks", null],
  [
    "a port past ufw",
    (h) => published(h, "0.0.0.0"),
    "published-ports",
    /^warning: the container fula-pinning-webui is open to everybody at port 8081/,
  ],
  ["a port on loopback", (h) => published(h, "127.0.0.1"), "published-ports", null],
  [
    "Docker's rules gone",
    (h) => iptables(h, "iptables: No chain/target/match by that name"),
    "docker-rules",
    /^error: Docker's firewall rules are gone.* -> systemctl restart docker/,
  ],
  ["Docker's rules in place", (h) => iptables(h, null), "docker-rules", null],
  ["iptables that can't be asked", (h) => iptables(h, "Permission denied"), "docker-rules", /^unknown: /],
  [
    "a recent alarm",
    (h) =>
      h.files.put(
        LAYOUT.alertLog,
        `${new Date(h.clock.now().getTime() - 3_600_000).toISOString()} run-failed x=1\n`,
      ),
    "alarms",
    /^note: an alarm in the last day, the last one 60 min ago -> tail/,
  ],
  [
    "an old alarm",
    (h) => h.files.put(LAYOUT.alertLog, "2025-12-01T00:00:00Z run-failed x=1\n"),
    "alarms",
    null,
  ],
  [
    "Docker from snap",
    (h) => (h.docker.engine = { ...engineOf(h), rootDirectory: "/var/snap/docker/common" }),
    "preflight-engine",
    /^error: Docker is installed as a snap -> Remove it/,
  ],
  [
    "a clock that is not right",
    (h) => (h.system.facts.clockSynchronised = false),
    "preflight-clock",
    /^warning: /,
  ],
  [
    "no cron",
    (h) => (h.system.processes.clear(), h.system.units.delete("cron")),
    "cron",
    /^error: cron is not running/,
  ],
];

function engineOf({ docker }: FakeStorage) {
  if (docker.engine === null) throw new Error("no engine");
  return docker.engine;
}

test.each(FAULTS)("%s", async (_name, make, id, said) => {
  const { wrong, findings } = await afterChange(make);
  if (said === null) expect(wrong.get(id)).toBeUndefined();
  else expect(wrong.get(id)).toMatch(said);
  expect(findings.map((one) => one.id)).toContain(id);
});

test("names in the settings that DNS does not know, or that nobody answers for", async () => {
  const elsewhere = (answer: boolean | null) =>
    afterChange((host) => {
      const saved = host.files.textOf(LAYOUT.envFile);
      host.files.put(LAYOUT.envFile, `${saved}STORAGE_API_URL=https://api.example.org\n`, 0o600);
      host.files.put("/etc/resolv.conf", "nameserver 192.0.2.53\n");
      host.system.onDns = () => answer;
    });
  expect((await elsewhere(false)).wrong.get("dns")).toMatch(/^error: DNS does not know api.example.org/);
  expect((await elsewhere(null)).wrong.get("dns")).toMatch(/^unknown: the name servers do not answer/);
  expect((await elsewhere(true)).wrong.get("dns")).toBeUndefined();
});

test("a name whose IPv6 address is another machine's", async () => {
  const withIpv6 = (ipv6: readonly string[] | null, more = "") =>
    afterChange((host) => {
      const saved = host.files.textOf(LAYOUT.envFile);
      host.files.put(LAYOUT.envFile, `${saved}PUBLIC_HOST=m.example.org\n${more}`, 0o600);
      host.system.facts.addresses = ["192.0.2.7", "2001:db8::7"];
      host.system.ipv6 = ipv6;
    });
  expect((await withIpv6(["2001:db8::9"])).wrong.get("ipv6")).toMatch(
    /^warning: DNS has the IPv6 address 2001:db8::9 for m.example.org/,
  );
  expect((await withIpv6(["2001:db8::9"], "EDGE_TLS=internal\n")).wrong.get("ipv6")).toMatch(/^note: /);
  expect((await withIpv6(["2001:db8::7"])).wrong.get("ipv6")).toBeUndefined();
  expect((await withIpv6([])).wrong.get("ipv6")).toBeUndefined();
  expect((await withIpv6(null)).wrong.get("ipv6")).toBeUndefined();
});

test("what does not answer in time is unknown, and delays nothing else", async () => {
  const { makeCheck } = await import("../../../src/doctor/doctor-check.ts");
  const silent = { id: "x", fine: "", look: () => new Promise<never>(() => {}) };
  const clock = { nowMs: () => 0, after: (_ms: number, act: () => void) => (queueMicrotask(act), () => {}) };
  const [found] = await makeCheck(silent, {} as never, clock);
  expect(found).toMatchObject({ id: "x", severity: "unknown", what: "did not answer within 8.0 s" });
});
