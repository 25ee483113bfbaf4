import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { type Check, type PreflightContext, runPreflight } from "../../../src/preflight/check.ts";
import {
  MASTER_CHECKS,
  MASTER_MINIMUM_FREE_BYTES,
  MASTER_MINIMUM_MEMORY_BYTES,
} from "../../../src/preflight/checks.ts";
import { FakeHost } from "../../support/fake-host.ts";

const GIB = 1024 ** 3;

const CONTEXT: PreflightContext = {
  baseDir: "/opt/fula-master",
  ports: [
    { port: 5432, address: "127.0.0.1", purpose: "PostgreSQL", remedy: "Or set POSTGRES_PORT." },
    { port: 4001, address: "0.0.0.0", purpose: "kubo" },
  ],
  published: null,
  minimumFreeBytes: MASTER_MINIMUM_FREE_BYTES,
  minimumMemoryBytes: MASTER_MINIMUM_MEMORY_BYTES,
  ownership: ({ name }) =>
    name === "postgres-pinning" ? "ours" : name === "ipfs_host" ? "adopted-writer" : "foreign",
  guarded: ["/opt/fula-master", "/etc/cron.d/fula-pinset-snapshot"],
  cronNode: { running: "/usr/bin/node", script: "/root/package/bin/fula-node.js" },
  writerUnits: ["ipfs.service"],
};

function goodHost(): FakeHost {
  const host = new FakeHost();
  host.files.putDirectory("/run/systemd/system");
  return host;
}

async function problemsOf(
  arrange: (host: FakeHost) => void,
  {
    context = CONTEXT,
    ignored = [],
  }: { readonly context?: PreflightContext; readonly ignored?: readonly string[] } = {},
) {
  const host = goodHost();
  arrange(host);
  const before = host.snapshot();
  const problems = await runPreflight(MASTER_CHECKS, host, context, ignored);
  expect(host.writes).toEqual([]);
  expect(host.snapshot()).toEqual(before);
  return problems.map(({ check, severity, what, remedy, ignored: demoted }) => {
    expect(what).toMatch(/\.$/);
    expect(remedy).toMatch(/\.$/);
    return `${check} ${severity}${demoted ? " (ignored)" : ""}: ${what}`;
  });
}

describe("preflight of a master", () => {
  it("warns that ufw does not guard the port of a database that becomes reachable", async () => {
    const context = { ...CONTEXT, published: "10.0.0.7:5432" };
    expect(await problemsOf((host) => host.files.putDirectory("/etc/ufw"), { context })).toEqual([
      "firewall warning: Docker will publish the database at 10.0.0.7:5432. The firewall ufw does not filter that port: Docker puts its own rules in front.",
    ]);
    expect(await problemsOf(() => {}, { context })).toEqual([
      expect.stringMatching(/A firewall such as ufw does not filter that port/),
    ]);
  });

  it("finds no problem on a good machine, new or installed", async () => {
    expect(await problemsOf(() => {})).toEqual([]);
    const bare = (host: FakeHost) => {
      host.docker.engine = null;
      host.docker.compose = null;
    };
    expect(await problemsOf(bare)).toEqual([]);
  });

  it("reports everything at once, in the order of the checks", async () => {
    const problems = await problemsOf((host) => {
      host.system.facts.uid = 1000;
      host.system.facts.memoryBytes = GIB / 2;
      host.system.facts.clockSynchronised = false;
      host.files.freeBytes = GIB;
      host.docker.compose = "2.6.0";
      host.docker.putContainer("watchtower", { image: "containrrr/watchtower:1.7.1", status: "restarting" });
      host.system.listening = [
        { port: 5432, address: "0.0.0.0", pid: 9, process: "postgres", ancestry: [9, 1], unit: null },
      ];
    });
    expect(problems).toEqual([
      "root failure: fula-node runs as user 1000, not as root.",
      "compose failure: Docker Compose 2.6.0 is too old; 2.17.0 is required.",
      "disk failure: /opt/fula-master has 1.0 GiB free; 2.0 GiB are required for settings, data and snapshots.",
      "disk failure: /var/lib/docker has 1.0 GiB free; 5.0 GiB are required for images and volumes.",
      "memory failure: This machine has 0.5 GiB of memory; 1.0 GiB are required.",
      "clock warning: The clock is not synchronised.",
      "ports failure: Port 5432, which PostgreSQL needs, is in use: postgres (process 9) listens on 0.0.0.0:5432.",
      "watchtower warning: The container watchtower (containrrr/watchtower:1.7.1, restarting) belongs to an abandoned updater.",
    ]);
  });

  it("every check has an id, a title and a place in the list, once", () => {
    const ids = MASTER_CHECKS.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { id, title } of MASTER_CHECKS) {
      expect(id).toMatch(/^[a-z]+$/);
      expect(title).not.toBe("");
    }
  });
});

describe("owners", () => {
  const run = async (arrange: (host: FakeHost) => void, context: Partial<PreflightContext> = {}) => {
    const host = goodHost();
    host.files.putDirectory("/opt/fula-master");
    host.files.putDirectory("/etc/cron.d");
    arrange(host);
    const check = MASTER_CHECKS.filter(({ id }) => id === "owners");
    const found = await runPreflight(check, host, { ...CONTEXT, ...context }, []);
    return found.map(({ severity, what, remedy }) => `${severity} ${what} ${remedy}`);
  };

  it("lets root's directories pass, and what fula-node itself made", async () => {
    expect(await run(() => {})).toEqual([]);
    expect(await run(({ files }) => files.own("/opt/fula-master", 1000))).toEqual([]);
  });

  it("names each directory above that somebody else can write to, once, with the command", async () => {
    const found = await run(({ files }) => {
      files.putDirectory("/opt", 0o777);
      files.putDirectory("/etc/cron.d", 0o775);
      files.own("/etc/cron.d", 33);
    });
    expect(found).toEqual([
      "failure Every user can write to /opt (mode 777). Run chmod go-w /opt, or use another --base-dir.",
      "failure /etc/cron.d belongs to user 33, not to root. Run chown root:root /etc/cron.d, or use another --base-dir.",
    ]);
  });

  it("follows a base directory that is a link", async () => {
    const found = await run(
      ({ files }) => {
        files.putDirectory("/home/me/fula");
        files.own("/home/me", 1000);
        files.putLink("/home/me/fula", "/srv/fula");
      },
      { guarded: ["/srv/fula"] },
    );
    expect(found).toEqual([
      "failure /home/me belongs to user 1000, not to root. Run chown root:root /home/me, or use another --base-dir.",
    ]);
  });
});

describe("os", () => {
  const os = (fields: Partial<FakeHost["system"]["facts"]["os"]>) => (host: FakeHost) => {
    host.system.facts.os = { ...host.system.facts.os, ...fields };
  };
  it.each([
    ["debian", "12"],
    ["debian", "13"],
    ["debian", "14"],
    ["ubuntu", "22.04"],
    ["ubuntu", "24.04"],
  ])("%s %s is supported", async (id, versionId) => {
    expect(await problemsOf(os({ id, versionId, arch: "arm64" }))).toEqual([]);
  });

  it("another systemd distribution, or an old release, is a warning", async () => {
    for (const fields of [
      { id: "debian", versionId: "11", prettyName: "Debian 11" },
      { id: "ubuntu", versionId: "20.04", prettyName: "Ubuntu 20.04" },
      { id: "fedora", versionId: "43", prettyName: "Fedora 43" },
      { id: "debian", versionId: "", prettyName: "Debian sid" },
    ]) {
      expect(await problemsOf(os(fields))).toContain(`os warning: ${fields.prettyName} is not tested.`);
    }
  });

  it("one without systemd, and another architecture, are failures", async () => {
    const alpine = (host: FakeHost) => {
      os({ id: "alpine", versionId: "3.22", prettyName: "Alpine", arch: "riscv64" })(host);
      host.files.drop("/run/systemd");
    };
    expect(await problemsOf(alpine)).toEqual([
      "os failure: This machine's architecture is riscv64.",
      "os failure: Alpine without systemd is not supported.",
    ]);
  });
});

describe("engine", () => {
  const absent = (host: FakeHost) => {
    host.docker.engine = null;
  };

  it("installed but stopped: passes if systemd can start it", async () => {
    const stopped = (host: FakeHost) => {
      absent(host);
      host.system.programs.set("dockerd", "/usr/sbin/dockerd");
    };
    const startable = (host: FakeHost) => {
      stopped(host);
      host.system.putUnit("docker");
    };
    expect(await problemsOf(startable)).toEqual([]);
    expect(await problemsOf(stopped)).toEqual([
      "engine failure: Docker is installed (/usr/sbin/dockerd), but does not answer: no /var/run/docker.sock.",
    ]);
  });

  it("half unpacked by an apt that was killed: passes, since apt can go on", async () => {
    const killed = (state: string) => (host: FakeHost) => {
      absent(host);
      host.system.programs.set("dockerd", "/usr/sbin/dockerd");
      host.files.put("/var/lib/dpkg/status", "Package: docker.io\nStatus: deinstall ok config-files\n");
      // Newest last, and not yet in the status file.
      host.files.put("/var/lib/dpkg/updates/0009", "Package: docker.io\nStatus: install ok unpacked\n");
      host.files.put("/var/lib/dpkg/updates/0010", `Package: docker.io\nStatus: install ok ${state}\n`);
    };
    expect(await problemsOf(killed("half-installed"))).toEqual([]);
    expect(await problemsOf(killed("installed"))).toHaveLength(1);
  });

  it("absent: a failure if the distribution has no suitable packages", async () => {
    const bookworm = (host: FakeHost) => {
      absent(host);
      host.docker.compose = null;
      host.system.facts.os = { ...host.system.facts.os, versionId: "12" };
    };
    expect(await problemsOf(bookworm)).toEqual([
      "engine failure: There is no Docker engine on this machine (no /var/run/docker.sock).",
      "compose failure: Docker Compose v2 is not installed.",
    ]);
  });

  it("too old, rootless, or from a snap: refused", async () => {
    const engine = (fields: object) => (host: FakeHost) => {
      if (host.docker.engine !== null) host.docker.engine = { ...host.docker.engine, ...fields };
    };
    expect(await problemsOf(engine({ version: "19.03", apiVersion: "1.40" }))).toEqual([
      "engine failure: Docker 19.03 is too old: it has API version 1.40, and 1.41 is required.",
    ]);
    expect(await problemsOf(engine({ apiVersion: "1.41" }))).toEqual([]);
    expect(await problemsOf(engine({ rootless: true }))).toEqual([
      "engine failure: The Docker engine runs in rootless mode.",
    ]);
    const snap = "engine failure: Docker is installed as a snap.";
    const rootDirectory = "/var/snap/docker/common/var-lib-docker";
    expect(await problemsOf(engine({ rootDirectory }))).toEqual([snap]);
    const stoppedSnap = (host: FakeHost) => {
      absent(host);
      host.system.programs.set("docker", "/snap/bin/docker");
    };
    expect(await problemsOf(stoppedSnap)).toEqual([snap]);
  });

  it("maps the users of containers: refused, with the way out", async () => {
    expect(
      await problemsOf((host) => {
        if (host.docker.engine !== null) host.docker.engine = { ...host.docker.engine, userNamespaces: true };
      }),
    ).toEqual(["engine failure: The Docker engine maps the users of containers (userns-remap)."]);
  });

  it.each([
    [{ iptables: false, "userland-proxy": false }, true],
    [{ iptables: false }, false],
    [{ "userland-proxy": false }, false],
    [{ "log-driver": "none", bip: "10.9.0.1/24", "live-restore": true, "data-root": "/data" }, false],
  ])("%j in daemon.json", async (settings, isRefused) => {
    const context = {
      ...CONTEXT,
      ports: [{ port: 5432, address: "127.0.0.1", purpose: "Postgres" }] as const,
    };
    const arrange = (host: FakeHost) => host.files.put("/etc/docker/daemon.json", JSON.stringify(settings));
    expect(await problemsOf(arrange, { context })).toEqual(
      isRefused
        ? ["engine failure: The Docker engine forwards no ports: iptables and userland-proxy are both off."]
        : [],
    );
    // A storage node, or a master with its database elsewhere, forwards nothing.
    expect(await problemsOf(arrange)).toEqual([]);
  });

  it("one that answers with an error is a failure of every check that needs it, not a crash", async () => {
    const failing = (host: FakeHost) => {
      host.docker.version = () =>
        Promise.reject(new OperatorError({ exit: "unavailable", what: "This user may not open it." }));
    };
    expect(await problemsOf(failing)).toEqual([
      "engine failure: This user may not open it.",
      "disk failure: This user may not open it.",
    ]);
  });
});

describe("compose", () => {
  it("Compose is missing: passes if the docker step can install it", async () => {
    const without = (host: FakeHost) => {
      host.docker.compose = null;
    };
    const elsewhere = (host: FakeHost) => {
      without(host);
      host.system.facts.os = { ...host.system.facts.os, id: "fedora", prettyName: "Fedora" };
    };
    expect(await problemsOf(without)).toEqual([]);
    expect(await problemsOf(elsewhere)).toContain("compose failure: Docker Compose v2 is not installed.");
  });

  it("Compose 2.17 and later pass", async () => {
    for (const compose of ["2.17.0", "2.26.1", "5.5.0"]) {
      expect(await problemsOf((host) => void (host.docker.compose = compose))).toEqual([]);
    }
  });
});

describe("disk, memory, clock", () => {
  it("measures where Docker keeps its data", async () => {
    const problems = await problemsOf((host) => {
      if (host.docker.engine !== null)
        host.docker.engine = { ...host.docker.engine, rootDirectory: "/data/docker" };
      host.files.freeBytes = 3 * GIB;
    });
    expect(problems).toEqual([
      "disk failure: /data/docker has 3.0 GiB free; 5.0 GiB are required for images and volumes.",
    ]);
  });

  it.each([
    [8, []],
    [1.9, []],
    [1.7, ["memory warning: This machine has 1.7 GiB of memory; 2.0 GiB are recommended."]],
    [0.95, ["memory warning: This machine has 0.9 GiB of memory; 2.0 GiB are recommended."]],
    [0.8, ["memory failure: This machine has 0.8 GiB of memory; 1.0 GiB are required."]],
  ])("%s GiB of memory", async (gibibytes, expected) => {
    expect(await problemsOf((host) => void (host.system.facts.memoryBytes = gibibytes * GIB))).toEqual(
      expected,
    );
  });

  it("a clock before 2025 is wrong, an unsynchronised one a warning, an unknown one fine", async () => {
    expect(
      await problemsOf((host) => void (host.clock.now = () => new Date("2024-12-31T23:59:59Z"))),
    ).toEqual(["clock failure: The clock is wrong: it shows 2024-12-31T23:59:59.000Z."]);
    expect(await problemsOf((host) => void (host.system.facts.clockSynchronised = null))).toEqual([]);
  });
});

describe("ports and watchtower", () => {
  const listener = (port: number, pid: number, process: string, unit: string | null = null) => ({
    port,
    address: "127.0.0.1",
    pid,
    process,
    ancestry: [pid, pid - 1, 1],
    unit,
  });

  it("our own containers and the adopted writer may hold them", async () => {
    const held = (host: FakeHost) => {
      host.docker.putContainer("postgres-pinning", { pid: 100 });
      host.docker.putContainer("ipfs_host", { pid: 200 });
      host.system.listening = [listener(5432, 101, "postgres"), listener(4001, 201, "ipfs")];
    };
    expect(await problemsOf(held)).toEqual([]);
    expect(
      await problemsOf((host) => void (host.system.listening = [listener(4001, 7, "ipfs", "ipfs.service")])),
    ).toEqual([]);
  });

  it("without an engine, the owner of a container is unknown, and the check says so", async () => {
    const host = goodHost();
    host.docker.engine = null;
    host.system.listening = [listener(5432, 101, "postgres")];
    const problems = await runPreflight(MASTER_CHECKS, host, CONTEXT, []);
    expect(problems).toMatchObject([
      {
        check: "ports",
        why: expect.stringContaining("Docker does not answer"),
        remedy: "Stop it, or change its port. Or set POSTGRES_PORT.",
      },
    ]);
  });

  it("the maintained fork of watchtower passes", async () => {
    for (const [image, expected] of [
      ["nickfedor/watchtower:1.21.0", 0],
      ["containrrr/watchtower", 1],
      ["docker.io/containrrr/watchtower@sha256:00", 1],
      ["mirror.example/notcontainrrr/watchtower", 0],
    ] as const) {
      expect(await problemsOf((host) => void host.docker.putContainer("w", { image }))).toHaveLength(
        expected,
      );
    }
  });
});

describe("--ignore", () => {
  const small = (host: FakeHost) => {
    host.system.facts.memoryBytes = GIB / 4;
    host.files.freeBytes = 3 * GIB;
  };

  it("turns one named failure into a warning, and no other", async () => {
    expect(await problemsOf(small, { ignored: ["memory"] })).toEqual([
      "disk failure: /var/lib/docker has 3.0 GiB free; 5.0 GiB are required for images and volumes.",
      "memory warning (ignored): This machine has 0.2 GiB of memory; 1.0 GiB are required.",
    ]);
  });

  it.each(["all", "", "Memory", "port"])("refuses %j, which is not a check", async (name) => {
    await expect(problemsOf(small, { ignored: [name] })).rejects.toMatchObject({
      exit: "usage",
      problems: [{ subject: `--ignore ${name}`, what: "There is no such check." }],
      remedy: expect.stringContaining("memory"),
    });
  });

  it("refuses a check that only a restore makes, and says so", async () => {
    const run = runPreflight(MASTER_CHECKS, goodHost(), CONTEXT, ["old-master"], ["old-master"]);
    await expect(run).rejects.toMatchObject({
      exit: "usage",
      problems: [
        { subject: "--ignore old-master", what: "Only a join with --from-backup makes this check." },
      ],
      remedy: expect.stringMatching(/memory.*; with --from-backup also old-master\.$/),
    });
  });

  it.each(["root", "engine", "compose"])("refuses %s, without which nothing works", async (name) => {
    await expect(problemsOf(small, { ignored: ["disk", name] })).rejects.toMatchObject({
      exit: "usage",
      problems: [{ subject: `--ignore ${name}`, what: "fula-node can't work if this check fails." }],
    });
  });

  it("is refused before any check runs", async () => {
    const ran: string[] = [];
    const check: Check = {
      id: "one",
      title: "one",
      ignorable: true,
      run: async () => (ran.push("one"), []),
    };
    await expect(runPreflight([check], goodHost(), CONTEXT, ["two"])).rejects.toBeInstanceOf(OperatorError);
    expect(ran).toEqual([]);
  });
});

describe("a check that crashes", () => {
  it("is a bug, not a failure", async () => {
    const check: Check = {
      id: "broken",
      title: "broken",
      ignorable: true,
      run: () => Promise.reject(new TypeError("oops")),
    };
    await expect(runPreflight([check], goodHost(), CONTEXT, [])).rejects.toBeInstanceOf(TypeError);
  });
});

describe("uid", () => {
  it("is a failure if a user or a group has the number of the containers", async () => {
    const problems = await problemsOf((host) => {
      host.files.put(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/bash\nzoe:x:61077:100::/nonexistent:/usr/sbin/nologin\n",
      );
      host.files.put("/etc/group", "root:x:0:\nzoes:x:61077:zoe\n");
    });
    expect(problems).toEqual([
      "uid failure: On this machine, the user zoe has uid 61077 and the group zoes has gid 61077.",
    ]);
  });
});

describe("users", () => {
  const passwd =
    (...lines: readonly string[]) =>
    (host: FakeHost) => {
      for (const name of ["anna", "bo"]) host.files.putDirectory(`/home/${name}`);
      host.files.put("/etc/passwd", `root:x:0:0::/root:/bin/bash\n${lines.join("\n")}\n`);
    };

  it("is a warning if people can log in, with their names", async () => {
    const two = ["anna:x:1000:1000::/home/anna:/bin/bash", "bo:x:1001:1001::/home/bo:/usr/bin/zsh"];
    expect(await problemsOf(passwd(...two))).toEqual([
      "users warning: Other users can log in to this machine: anna, bo.",
    ]);
  });

  it.each([
    ["only root", ""],
    ["a user of a package", "www-data:x:33:33::/home/anna:/bin/bash"],
    ["nobody", "nobody:x:65534:65534::/home/anna:/bin/bash"],
    ["a user without a shell", "anna:x:1000:1000::/home/anna:/usr/sbin/nologin"],
    ["a user without a home", "carl:x:1000:1000::/home/carl:/bin/bash"],
  ])("says nothing about %s", async (_name, line) => {
    expect(await problemsOf(passwd(line))).toEqual([]);
  });
});

describe("secrets", () => {
  const DATA = "/srv/writer";
  const FILES = [`${DATA}/cluster/identity.json`, `${DATA}/cluster/service.json`, `${DATA}/kubo/config`];
  const withWriter =
    (change: (host: FakeHost) => void = () => {}) =>
    (host: FakeHost) => {
      const mount = (name: string, destination: string) => ({
        type: "bind",
        name: "",
        source: `${DATA}/${name}`,
        destination,
      });
      host.docker.putContainer("ipfs_host", {
        mounts: [mount("kubo", "/data/ipfs"), mount("cluster", "/data/ipfs-cluster")],
      });
      for (const path of FILES) host.files.put(path, "{}", 0o600, 1000);
      change(host);
    };

  it("is a warning for an adopted writer whose files the first person on a Debian can read", async () => {
    expect(await problemsOf(withWriter())).toEqual([
      `secrets warning: The user uid 1000 can read keys and secrets of the writer: ${[FILES[2], FILES[0], FILES[1]].join(", ")}.`,
    ]);
  });

  it("names each person that can read them", async () => {
    const found = await problemsOf(
      withWriter((host) => {
        host.files.put(
          "/etc/passwd",
          "anna:x:1000:1000::/home/anna:/bin/bash\nbo:x:1001:1001::/home/bo:/bin/sh\n",
        );
        host.files.put(FILES[0] ?? "", "{}", 0o644, 1000);
      }),
    );
    expect(found.map((line) => /The user (\S+) can read.*: (.*)\.$/.exec(line)?.slice(1))).toEqual([
      ["anna", `${FILES[2]}, ${FILES[0]}, ${FILES[1]}`],
      ["bo", FILES[0]],
    ]);
  });

  it.each<[string, (host: FakeHost) => void]>([
    ["a directory above is root's alone", (host) => host.files.putDirectory(DATA, 0o700)],
    ["the files belong to root", (host) => FILES.forEach((path) => host.files.put(path, "{}", 0o600))],
    ["Docker does not answer", (host) => void (host.docker.engine = null)],
  ])("says nothing if %s", async (_name, change) => {
    const problems = await problemsOf(withWriter(change));
    expect(problems.filter((line) => line.startsWith("secrets"))).toEqual([]);
  });

  it("says nothing about a writer of ours", async () => {
    const context = { ...CONTEXT, ownership: () => "ours" as const };
    expect(await problemsOf(withWriter(), { context })).toEqual([]);
  });
});
