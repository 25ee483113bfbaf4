import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { status } from "../../../src/commands/status.ts";
import { CONFIG_FILES_LABEL } from "../../../src/docker/compose-document.ts";
import { OperatorError } from "../../../src/errors.ts";
import { CRON_FILES, NAMES } from "../../../src/settings/layout.ts";
import { serialiseRotation } from "../../../src/settings/rotation.ts";
import type { TimedPart } from "../../../src/status/collect.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import { table, wrap } from "../../../src/ui/text.ts";
import { join, LAYOUT } from "../../support/master-boxes.ts";
import type { OperationDeps } from "../../support/operation-deps.ts";
import { FakeStorage, MASTER_ID, worldOf } from "../../support/storage-fake.ts";
import { oneSnapshot } from "../../support/taken-snapshot.ts";

let whole: FakeStorage;
/** Where its snapshots are. */
let snapshots: OperationDeps;

beforeAll(async () => {
  whole = new FakeStorage();
  await join(whole);
  snapshots = await oneSnapshot(whole.clock.now());
  whole.files.put(LAYOUT.snapshotMemory, (await snapshots.files.readText(snapshots.memory.path)) ?? "");
  beat(whole, "snapshot", 2);
  beat(whole, "sweep", 0.2);
  whole.registered = [{ owner: MASTER_ID, name: "other", announced_at: null }];
  whole.revive();
});
afterAll(() => snapshots.clear());

const PINS = { total: 4812, complete: 4790, syncing: 22, below: 0, lackingNodes: 0 };
const NODE = {
  id: "12D3",
  name: "node",
  state: "up",
  sync: "synced",
  pinsDone: 1,
  pinsDue: 1,
  lastSeen: null,
};
const FACTS = { pins: PINS, nodes: [NODE], nodesExpected: 1, strangers: 0, namesFault: null };

/** A joined master as it is right after its first snapshot and sweep, with one thing changed. */
function master(change: (host: FakeStorage) => void = () => {}): FakeStorage {
  const host = whole.copy();
  change(host);
  return host;
}

function beat(
  host: FakeStorage,
  operation: "snapshot" | "sweep",
  hoursAgo: number,
  outcome = "ok",
  facts: object = FACTS,
): void {
  const at = new Date(host.clock.now().getTime() - hoursAgo * 3_600_000).toISOString();
  const beaten = { operation, at, outcome, summary: "as it should", duration_ms: 1, last_good_at: at, facts };
  const path = operation === "snapshot" ? LAYOUT.snapshotHeartbeat : LAYOUT.sweepHeartbeat;
  host.files.put(path, JSON.stringify(beaten));
}

function stop(host: FakeStorage, name: string, stopped: "exited" | "paused" = "exited"): void {
  const container = host.docker.boxes.get(name);
  if (container !== undefined) host.docker.boxes.set(name, { ...container, status: stopped, exitCode: 137 });
}

async function statusOn(
  host: FakeStorage,
  flags: Parameters<typeof status>[0] = {},
  store = snapshots.store,
) {
  const results: Result[] = [];
  const world = worldOf(host);
  const reporter = { ...world.reporter, table, wrap, result: (result: Result) => void results.push(result) };
  const writes = host.writes.length;
  const exit = await status(flags, {
    ...world,
    reporter,
    openSnapshots: async () => store,
    readVerifyingKey: async () => snapshots.key,
  });
  expect(host.writes).toHaveLength(writes);
  const { data, lines } = results[0] as Result;
  expect(lines.filter((line) => line.length > 80)).toEqual([]);
  const parts = data["parts"] as readonly TimedPart[];
  const shown = new Map(
    parts.map(({ name, state, summary, todo }) => [
      name,
      `${state}: ${summary}${todo === null ? "" : ` -> ${todo}`}`,
    ]),
  );
  return { exit, data, lines, parts: shown };
}

describe("which node status looks at", () => {
  it("is the one of the containers, although the files in the usual directory say another one", async () => {
    const host = master(({ files, docker }) => {
      for (const [path, file] of files.tree)
        if (path.startsWith("/opt/fula-master"))
          files.tree.set(path.replace("/opt/fula-master", "/srv/pool"), file);
      for (const path of files.tree.keys())
        if (path.startsWith("/opt/fula-master/") && path !== LAYOUT.envFile) files.tree.delete(path);
      for (const [name, one] of docker.boxes) {
        const config = one.labels[CONFIG_FILES_LABEL]?.replace("/opt/fula-master", "/srv/pool") ?? "";
        docker.boxes.set(name, { ...one, labels: { ...one.labels, [CONFIG_FILES_LABEL]: config } });
      }
    });
    expect((await statusOn(host)).data["baseDir"]).toBe("/srv/pool");
  });
});

describe("status of a master", () => {
  it("reports every part in plain words, and that everything works", async () => {
    const { exit, lines } = await statusOn(master());
    expect(lines).toEqual([
      "fula-node 0.1.0 · master box of pool pool",
      "",
      "  ok  Docker       26.1.5, Compose 2.26.1",
      "  ok  writer       kubo 0.42.0, ipfs-cluster 1.1.6, 2 peers",
      "  ok  database     16.9, schema 040, 1.2 GB",
      "  ok  pinning API  127.0.0.1:6000",
      "  ok  storage API  127.0.0.1:3001",
      "  ok  snapshots    2 h ago, 2 pins, chain complete",
      "  ok  sweep        12 min ago",
      "  ok  cron         runs, with the entries for snapshots and sweeps",
      "  ok  settings     as in .env, nothing to repair",
      "",
      "  Pins   4,812: 4,790 complete, 22 syncing",
      "  Space  this box 107.4 GB used of 214.7 GB",
      "  Nodes  node (here), other (new, not looked at yet)",
      "",
      "Everything works (exit 0).",
    ]);
    expect(exit).toBe("ok");
  });

  it("shows hashes and API numbers only with --verbose, and then everything that was looked at", async () => {
    const noise = /[0-9a-f]{12}|API version|system identifier/;
    const [plain, verbose] = [await statusOn(master()), await statusOn(master(), { verbose: true })];
    expect(plain.lines.join("\n")).not.toMatch(noise);
    const text = verbose.lines.join("\n");
    for (const fact of ["API version: 1.45", "system identifier: 74", "/health: 200", "018_"])
      expect(text).toContain(fact);
    expect(verbose.lines.filter((line) => !line.startsWith("      "))).toHaveLength(plain.lines.length);
  });

  it("has everything in --json, with the keys of before", async () => {
    const { data } = await statusOn(master());
    expect(data).toMatchObject({
      verb: "status",
      version: "0.1.0",
      kind: "master",
      baseDir: "/opt/fula-master",
      pending: false,
      heartbeats: { snapshot: { state: "ok" }, sweep: { state: "ok" } },
      verdict: "ok",
      exit: "ok",
      exitCode: 0,
      notes: { Pins: "4,812: 4,790 complete, 22 syncing" },
    });
    expect((data["items"] as { step: string }[]).map(({ step }) => step)).toContain("services");
    expect((data["parts"] as TimedPart[])[2]).toMatchObject({
      name: "database",
      state: "ok",
      summary: "16.9, schema 040, 1.2 GB",
      todo: null,
      evidence: { address: "127.0.0.1:5432" },
    });
  });

  it("shows no secret, not even with --verbose", async () => {
    const host = master();
    const { data, lines } = await statusOn(host, { verbose: true });
    const env = host.files.textOf(LAYOUT.envFile);
    const secrets = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET"].map(
      (key) => new RegExp(`^${key}=(\\S+)`, "m").exec(env)?.[1] ?? "missing",
    );
    expect(secrets.every((secret) => secret.length > 20)).toBe(true);
    for (const secret of secrets) expect(`${JSON.stringify(data)}${lines.join()}`).not.toContain(secret);
  });

  it.each<[string, (host: FakeStorage) => unknown, string, RegExp]>([
    ["kubo", (host) => stop(host, NAMES.kubo), "writer", /^down: the container ipfs_host is stopped/],
    [
      "kubo and ipfs-cluster",
      (host) => {
        for (const name of [NAMES.kubo, NAMES.cluster]) stop(host, name, "paused");
      },
      "writer",
      /^down: the container ipfs_host is paused; the container ipfs_cluster is paused -> /,
    ],
    [
      "ipfs-cluster, by pausing it",
      (host) => stop(host, NAMES.cluster, "paused"),
      "writer",
      /^down: the container ipfs_cluster is paused -> fula-node join-as-master/,
    ],
    [
      "the database",
      (host) => stop(host, NAMES.postgres),
      "database",
      /^down: the container postgres-pinning is stopped \(exit code 137\)/,
    ],
    ["the pinning API", (host) => stop(host, NAMES.pinningApi), "pinning API", /^down: the container/],
    ["the storage API", (host) => stop(host, NAMES.webui), "storage API", /^down: the container/],
    [
      "the database, whose disk is full",
      (host) => {
        const { onQuery } = host.postgres;
        const full = Object.assign(new Error("could not extend file"), { severity: "ERROR", code: "53100" });
        host.postgres.onQuery = (target, sql, values) => {
          if (!sql.includes("generate_series")) return onQuery(target, sql, values);
          throw new OperatorError({ exit: "unavailable", what: "PostgreSQL stopped.", cause: full });
        };
      },
      "database",
      /^down: PostgreSQL can't write: its disk is full -> Free space on the disk/,
    ],
    [
      "the database, a server that only reads",
      (host) => {
        const { onQuery } = host.postgres;
        host.postgres.onQuery = (target, sql, values) =>
          sql.includes("pg_is_in_recovery") ? [{ recovering: true }] : onQuery(target, sql, values);
      },
      "database",
      /^down: PostgreSQL can't write: it is read-only -> /,
    ],
    [
      "the database, whose default is read-only transactions",
      (host) => {
        host.postgres.onWriter = () => ({ kind: "read-only", says: "default_transaction_read_only is on" });
      },
      "database",
      /^down: PostgreSQL can't write: it is read-only -> .*default_transaction_read_only/,
    ],
    [
      "Docker",
      (host) => host.stopEngine(),
      "Docker",
      /^down: does not run: no \/var\/run\/docker\.sock -> systemctl start docker/,
    ],
    [
      "cron",
      (host) => {
        host.system.processes.clear();
        host.system.putUnit("cron", { active: false });
      },
      "cron",
      /^down: cron is not running, so no snapshot is taken -> fula-node join-as-master/,
    ],
  ])("a part that does not run is down, exit 27: %s", async (_name, change, part, said) => {
    const { exit, parts, lines } = await statusOn(master(change));
    expect(parts.get(part)).toMatch(said);
    expect(exit).toBe("unhealthy");
    expect(lines.at(-1)).toMatch(/do(?:es)? not work.*\(exit 27\)\.$/);
  });

  it.each<[string, (host: FakeStorage) => unknown, string, RegExp]>([
    [
      "snapshots stopped days ago",
      (host) => beat(host, "snapshot", 120),
      "snapshots",
      /^attention: 5 days ago, which is too long -> .*fula-node snapshot take/,
    ],
    [
      "the last sweep failed",
      (host) => beat(host, "sweep", 0.2, "unavailable"),
      "sweep",
      /^attention: .*the last run failed/,
    ],
    [
      "an entry of cron was edited",
      (host) => host.files.put(CRON_FILES.sweep, host.files.textOf(CRON_FILES.sweep).replace("*/30", "*/45")),
      "cron",
      /^attention: \/etc\/cron\.d\/fula-replication-sweep was/,
    ],
    [
      "the healthcheck fails because only the cluster is away",
      (host) => {
        const one = host.docker.boxes.get(NAMES.pinningApi);
        if (one !== undefined) host.docker.boxes.set(NAMES.pinningApi, { ...one, health: "unhealthy" });
        const checks = { postgres: { ok: true }, cluster: { ok: false, error: "no answer" } };
        host.http.routes.set("http://127.0.0.1:6000/health", () => ({ status: 503, body: { checks } }));
      },
      "pinning API",
      /^attention: 127\.0\.0\.1:6000 accepts pins, but they wait in its queue: cluster: no answer -> /,
    ],
    [
      "a migration is not applied",
      (host) => host.migrations.applied.delete(24),
      "database",
      /^attention: 16\.9, schema 040, 1\.2 GB; 1 migration not applied -> fula-node join-as-master/,
    ],
    [
      "a join would change something",
      (host) => host.files.put(LAYOUT.envFile, host.files.textOf(LAYOUT.envFile), 0o644),
      "settings",
      /^attention: 1 change pending: env-file: make \S+\.env readable by root only -> fula-node join-as-master/,
    ],
    [
      "a change of a secret is not finished",
      (host) =>
        host.files.put(
          LAYOUT.rotation,
          serialiseRotation({ secret: "jwt-secret", previous: "p".repeat(20), next: "n".repeat(20) }),
          0o600,
        ),
      "settings",
      /^attention: .*not finished.* -> .*fula-node secret rotate jwt-secret/,
    ],
    [
      "the program for alarms is gone",
      ({ files }) =>
        files.put(LAYOUT.envFile, `${files.textOf(LAYOUT.envFile)}ALERT_COMMAND=/opt/gone\n`, 0o600),
      "settings",
      /^attention: ALERT_COMMAND can't be run: .* -> repair that file/,
    ],
    [
      "the pool has too few nodes",
      (host) => {
        const pins = { ...PINS, complete: 0, below: 4812, lackingNodes: 4812 };
        beat(host, "sweep", 0.2, "pending", { ...FACTS, pins });
      },
      "sweep",
      /^attention: 12 min ago.* -> add storage nodes, or lower REPL_MIN: the pool has 1 node$/,
    ],
    [
      "a service has lost its routes",
      (host) => host.http.routes.set("http://127.0.0.1:3001/api/v1/storage", { status: 404, body: {} }),
      "storage API",
      /^attention: 127\.0\.0\.1:3001 answers, but \/api\/v1\/storage answers 404, not 401/,
    ],
  ])("what works and needs the operator is attention, exit 20: %s", async (_name, change, part, said) => {
    const { exit, parts, lines } = await statusOn(master(change));
    expect(parts.get(part)).toMatch(said);
    expect(exit).toBe("pending");
    expect(lines.at(-1)).toMatch(/needs? attention.*\(exit 20\)\.$/);
  });

  it("a database that only lets time pass is unknown, exit 29, and every other part is still judged", async () => {
    const host = master((box) => {
      box.postgres.onAsk = () => ({ kind: "unreachable", why: "timeout expired" });
    });
    host.files.put(
      LAYOUT.envFile,
      host.files.textOf(LAYOUT.envFile).replace(/^POSTGRES_HOST=.*$/m, "POSTGRES_HOST=db.example"),
      0o600,
    );
    const { parts, exit } = await statusOn(host);
    expect(parts.get("database")).toMatch(/^unknown: db\.example:5432 did not answer in time/);
    expect(parts.get("writer")).toMatch(/^ok: /);
    expect(parts.get("settings")).toMatch(/not checked: .*postgres/);
    // The containers were made for the database on this machine.
    expect(exit).toBe("pending");
  });

  it.each<[string, (host: FakeStorage) => unknown, RegExp]>([
    [
      "refuses the password",
      (host) => (host.postgres.onAsk = () => ({ kind: "wrong-password" })),
      /^down: .*password/,
    ],
    [
      "lacks the database",
      (host) => (host.postgres.onAsk = () => ({ kind: "no-database" })),
      /^down: .*no database/,
    ],
  ])("a database that %s is down", async (_name, change, said) => {
    expect((await statusOn(master(change))).parts.get("database")).toMatch(said);
  });

  it("an error of one part is its state, and not the end of the whole", async () => {
    const host = master((box) => {
      box.docker.version = () =>
        Promise.reject(new OperatorError({ exit: "unavailable", what: "The Docker request failed." }));
    });
    const { parts, exit } = await statusOn(host);
    expect(parts.get("Docker")).toBe("unknown: The Docker request failed.");
    expect(parts.get("database")).toMatch(/^ok: /);
    expect(parts.get("settings")).toMatch(
      /^unknown: not checked: every step \(The Docker request failed\.\)/,
    );
    expect(exit).toBe("unavailable");
  });

  it("right after a join nothing is late: no sweep has run yet", async () => {
    const host = master(({ files }) => files.drop(LAYOUT.sweepHeartbeat));
    const { parts, exit } = await statusOn(host);
    expect(parts.get("sweep")).toBe("ok: no sweep on record; cron starts one");
    expect(exit).toBe("ok");
    await host.clock.wait(61 * 60_000);
    expect((await statusOn(host)).parts.get("sweep")).toMatch(
      /^attention: no sweep on record -> .*fula-node sweep/,
    );
  });

  it("snapshots that are gone together with their record are missed: the last run had taken one", async () => {
    const host = master(({ files }) => files.drop(LAYOUT.snapshotMemory));
    const empty = Object.assign(Object.create(snapshots.store) as typeof snapshots.store, {
      list: async () => [],
    });
    const { parts, exit } = await statusOn(host, {}, empty);
    expect(parts.get("snapshots")).toBe(
      "down: no snapshot is left, and the record of them is gone -> " +
        "look for the missing snapshots, then: fula-node snapshot take",
    );
    expect(exit).toBe("unhealthy");
  });

  it("a node that registered after the last sweep and is away is shown at once, with its last sign of life", async () => {
    const now = whole.clock.now().getTime();
    const host = master((box) => {
      box.registered = [
        ...box.registered,
        { owner: "12D3away", name: "berlin-1", announced_at: new Date(now - 4 * 60_000) },
      ];
    });
    const { parts, lines, exit } = await statusOn(host);
    const nodes =
      "node (here), berlin-1 (away, announced itself 4 min ago, new, not looked at yet), other (new, not looked at yet)";
    expect(lines.join("\n").replaceAll(/\s+/g, " ")).toContain(`Nodes ${nodes}`);
    expect(parts.get("sweep")).toBe(
      "attention: berlin-1 (away, announced itself 4 min ago, new, not looked at yet) -> " +
        "start berlin-1, or remove it for good: fula-node node forget berlin-1",
    );
    expect(exit).toBe("pending");
    host.files.drop(LAYOUT.sweepHeartbeat);
    expect((await statusOn(host)).parts.get("sweep")).toMatch(/^attention: .*berlin-1/);
  });

  it("without the registered names or the cluster, the nodes are those of the last sweep", async () => {
    const silent = master(({ postgres }) => {
      const { onQuery } = postgres;
      postgres.onQuery = (target, sql, values) => {
        if (!sql.includes("node_names")) return onQuery(target, sql, values);
        throw new OperatorError({ exit: "unavailable", what: "Postgres does not answer." });
      };
    });
    expect((await statusOn(silent)).lines).toContain("  Nodes  node");
  });

  it("a node that is only half installed: what is missing, and the command that repairs it", async () => {
    const host = master((box) => {
      box.files.drop(LAYOUT.composeFile);
      box.files.drop(LAYOUT.cliDir);
    });
    const { parts, exit } = await statusOn(host);
    expect(parts.get("settings")).toMatch(
      /^attention: not completely installed, \d+ changes pending; missing: cli, compose-file.* -> fula-node join-as-master/,
    );
    // What cron runs is missing.
    expect(parts.get("cron")).toMatch(/^down: .*is missing/);
    expect(exit).toBe("unhealthy");
  });

  it("settings that no join would accept are listed, and the other parts are still judged", async () => {
    const host = master();
    const env = host.files.textOf(LAYOUT.envFile);
    host.files.put(LAYOUT.envFile, `${env}REPL_MIN=many\n`, 0o600);
    const { parts, exit } = await statusOn(host);
    expect(parts.get("settings")).toMatch(/^attention: fula-node join-as-master would stop.*REPL_MIN/);
    expect(parts.get("writer")).toMatch(/^ok: /);
    expect(exit).toBe("pending");
  });

  it("a writer that answers works, also beside stopped containers with its names", async () => {
    const host = master();
    const routes = ["http://127.0.0.1:5001/api/v0/id", "http://127.0.0.1:9094/id"];
    for (const url of routes) {
      const answer = host.http.routes.get(url);
      const now = typeof answer === "function" ? answer() : answer;
      if (now != null) host.http.routes.set(url, now);
    }
    stop(host, NAMES.kubo);
    expect((await statusOn(host)).parts.get("writer")).toMatch(/^ok: /);
  });

  it("an updater that is on and not there is down; a gateway that is there is shown", async () => {
    const host = master();
    host.files.put(LAYOUT.envFile, `${host.files.textOf(LAYOUT.envFile)}AUTO_UPDATE=true\n`, 0o600);
    host.docker.putContainer(NAMES.gateway);
    const { parts } = await statusOn(host);
    expect(parts.get("updater")).toMatch(/^down: there is no container fula-updater/);
    expect(parts.get("gateway")).toMatch(/^ok: runs/);
    host.stopEngine();
    expect((await statusOn(host)).parts.get("updater")).toBe(
      "unknown: not checked: Docker does not run -> see the line of Docker",
    );
  });

  it("where the database is stopped, it is the cause of what needs it", async () => {
    const host = master((one) => stop(one, NAMES.postgres));
    const body = { checks: { postgres: { ok: false, error: "refused" } } };
    host.http.routes.set("http://127.0.0.1:3001/health", () => ({ status: 503, body }));
    expect((await statusOn(host)).parts.get("storage API")).toBe(
      "down: 127.0.0.1:3001 does not work: postgres: refused -> the cause is the database: see its line",
    );
  });

  it("where Docker does not run, it is the fault: what is in it is not known, and nothing is missing", async () => {
    const host = master((one) => one.stopEngine());
    host.http.routes.clear();
    const { exit, parts, lines, data } = await statusOn(host);
    const notChecked = "unknown: not checked: Docker does not run -> see the line of Docker";
    expect(Object.fromEntries(parts)).toMatchObject({
      Docker: expect.stringMatching(/^down: does not run: .* -> systemctl start docker$/),
      writer: notChecked,
      "pinning API": notChecked,
      "storage API": notChecked,
      snapshots: "ok: 2 h ago, 2 pins, chain complete",
      cron: "ok: runs, with the entries for snapshots and sweeps",
      settings: expect.stringMatching(
        /^unknown: not checked: .*services.*\(Docker does not run\) -> see the line of Docker$/,
      ),
    });
    expect(lines.join(" ")).not.toMatch(/missing|not completely installed|docker logs/);
    expect(lines.at(-1)).toMatch(/^1 part does not work, \d parts could not be checked \(exit 27\)\.$/);
    expect(exit).toBe("unhealthy");
    const items = data["items"] as { step: string; changes: unknown[] }[];
    expect(items.filter(({ changes }) => changes.length > 0).map(({ step }) => step)).toEqual(["docker"]);
  });

  it("where Docker is not installed any more, the cure is a join", async () => {
    const { parts } = await statusOn(
      master((host) => {
        host.docker.engine = null;
        host.system.programs.delete("dockerd");
      }),
    );
    expect(parts.get("Docker")).toMatch(/^down: is not installed: .* -> fula-node join-as-master$/);
  });

  it("one fault is one line: a container that stopped is no second thing that needs attention", async () => {
    const { lines, parts, data } = await statusOn(master((host) => stop(host, NAMES.pinningApi)));
    expect(parts.get("settings")).toBe("ok: nothing else to repair");
    expect(lines.at(-1)).toBe("1 part does not work (exit 27).");
    expect(data["pending"]).toBe(true);
    const two = await statusOn(
      master((host) => {
        stop(host, NAMES.pinningApi);
        const text = host.files.textOf(LAYOUT.composeFile);
        host.files.put(LAYOUT.composeFile, text.replaceAll("unless-stopped", "always"));
      }),
    );
    expect(two.parts.get("settings")).toMatch(/^attention: 1 change pending: compose-file: write \S+\.yml,/);
  });

  it("a join that was interrupted: every cure works, and is the join", async () => {
    const host = master((one) => {
      for (const path of [
        LAYOUT.verifyingKey,
        LAYOUT.signingKey,
        LAYOUT.snapshotHeartbeat,
        LAYOUT.sweepHeartbeat,
      ])
        one.files.tree.delete(path);
      one.docker.boxes.delete(NAMES.postgres);
      one.docker.boxes.delete(NAMES.pinningApi);
      one.http.routes.delete("http://127.0.0.1:6000/health");
      one.postgres.onAsk = () => ({ kind: "unreachable", why: "connection refused" });
      one.system.processes.clear();
      one.system.units.delete("cron");
      one.system.programs.delete("cron");
    });
    const { parts } = await statusOn(host);
    for (const part of ["database", "pinning API", "snapshots", "sweep", "cron"])
      expect(parts.get(part), part).toMatch(/-> fula-node join-as-master$/);
    expect(parts.get("database")).toMatch(/there is no container postgres-pinning/);
    expect(parts.get("snapshots")).toMatch(/there is no snapshot key/);
  });
});

describe("a machine without a node", () => {
  it("says that none is installed, and how to make one", async () => {
    const { exit, lines, data } = await statusOn(new FakeStorage());
    expect(lines).toEqual([
      "fula-node 0.1.0",
      "",
      "No fula-node node is installed on this machine.",
      "  Make it the master of a pool:      fula-node join-as-master",
      "  Make it a storage node of a pool:",
      "      fula-node join-as-storage-node --invite TOKEN",
      "",
      "There is no node to look at (exit 20).",
    ]);
    expect(exit).toBe("pending");
    expect(data).toMatchObject({ kind: null, items: [], parts: [], pending: true });
  });

  it("names what an earlier node left", async () => {
    const host = new FakeStorage();
    host.files.put(LAYOUT.journal, "");
    const { lines, data } = await statusOn(host);
    expect(lines).toContain("What a master left here:");
    expect(lines.join("\n")).toContain(LAYOUT.journal);
    expect(data["left"]).toMatchObject({ kind: "master", baseDir: "/opt/fula-master" });
  });
});
