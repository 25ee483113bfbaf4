import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { PostgresAnswer } from "../../src/database/postgres.ts";
import type { Container } from "../../src/docker/engine.ts";
import { OperatorError } from "../../src/errors.ts";
import { writeHeartbeat } from "../../src/pinset/heartbeat.ts";
import { MASTER_BASE_DIR, masterLayout, NAMES } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { FakeHost } from "./fake-host.ts";

/** The directory of the running package of a fake master. */
export const PACKAGE_DIR = "/root/.npm/_npx/1/node_modules/fula-node";
/** Its version. */
export const VERSION = "0.1.0";
/** The Node.js program that runs it. */
export const NODE_PATH = "/usr/bin/node";

const LAYOUT = masterLayout(MASTER_BASE_DIR);
const DATA_PATH = "/var/lib/postgresql/data";
/** The peer id of every fake kubo. */
export const KUBO_ID = "12D3KooWKuboKuboKuboKuboKuboKuboKuboKuboKuboKuboKubo";
/** The peer id of every fake ipfs-cluster. */
export const CLUSTER_ID = "12D3KooWPeerPeerPeerPeerPeerPeerPeerPeerPeerPeerPeer";
const ENGINE = {
  version: "26.1.5",
  apiVersion: "1.45",
  minApiVersion: "1.24",
  architecture: "amd64",
  rootDirectory: "/var/lib/docker",
  rootless: false,
  userNamespaces: false,
};
const IMAGES = [
  "postgres:16-alpine",
  "postgres:17-alpine",
  "ipfs/kubo:v0.42.0",
  "ipfs/ipfs-cluster:v1.1.6",
  "node:26-trixie-slim",
  "nickfedor/watchtower:1.21.0",
  "caddy:2.11.9-alpine",
];

/** Lower-case hex sha256 of a text. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** The role, its password and its database, as a database's data directory has them. */
interface Role {
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/**
 * A box in memory that can become a master: the running package, a registry, a distribution with its packages, and
 * programs that work while their containers run (Postgres, kubo, ipfs-cluster, the services).
 */
export class FakeMaster extends FakeHost {
  /** The number of rows by table; a table that is not named here is empty. */
  readonly rowCounts = new Map<string, number>();
  /** Databases on other machines, by host. */
  readonly databasesElsewhere = new Map<string, Role>();
  /** The scratch databases of drills in its Postgres. */
  scratches: readonly string[] = [];
  /** The owners of registered names, as the database lists them. */
  registered: readonly {
    readonly owner: string;
    readonly name: string;
    readonly announced_at: Date | null;
  }[] = [];

  constructor() {
    super();
    shipPackage(this);
    for (const image of IMAGES) this.docker.registry.set(image, {});
    for (const major of ["16", "17"]) {
      const env = { PG_MAJOR: major, PGDATA: DATA_PATH, DOCKER_PG_LLVM_DEPS: "llvm19-dev" };
      this.docker.imageEnvs.set(`postgres:${major}-alpine`, env);
    }
    this.#offerPackages();
    this.#answerHttp();
    this.#answerTls();
    this.docker.onStart = (container) =>
      container.name === NAMES.postgres ? this.#startPostgres(container) : container;
    this.postgres.onAsk = (target) => this.#askPostgres(target);
    this.postgres.onQuery = (_target, sql) => this.#query(sql);
    this.system.onCommand = (argv) => this.#runOurs(argv);
  }

  /** Removes engine, Compose and cron: a box as the distribution installs it. */
  strip(): void {
    this.docker.engine = null;
    this.docker.compose = null;
    this.system.units.clear();
    this.system.programs.clear();
    this.system.processes.clear();
  }

  /** Stops the engine, which stays installed. */
  stopEngine(): void {
    this.system.putUnit("docker");
    this.docker.engine = null;
  }

  /** Another box that is equal to this one and generates other secrets. */
  copy(): FakeMaster {
    const box = new FakeMaster();
    box.registered = this.registered;
    const { files, docker, system, migrations } = this;
    refill(box.files.tree, files.tree);
    refill(box.docker.boxes, docker.boxes);
    refill(box.docker.images, docker.images);
    refill(box.docker.volumes, docker.volumes);
    refill(box.docker.networks, docker.networks);
    refill(box.system.programs, system.programs);
    refill(box.system.units, system.units);
    refill(box.rowCounts, this.rowCounts);
    refill(box.databasesElsewhere, this.databasesElsewhere);
    box.docker.engine = docker.engine;
    box.docker.compose = docker.compose;
    for (const name of system.processes) box.system.processes.add(name);
    for (const name of system.installed) box.system.installed.add(name);
    for (const version of migrations.applied) box.migrations.applied.add(version);
    refill(box.migrations.masters, migrations.masters);
    for (let spent = 0; spent < 100; spent += 1) box.random.hex(1);
    return box;
  }

  #offerPackages(): void {
    const { packages, onEnable } = this.system;
    packages.set("docker.io", () => {
      this.system.programs.set("dockerd", "/usr/sbin/dockerd");
      this.system.putUnit("docker");
      for (const dependency of ["iptables", "ca-certificates"]) this.system.installed.add(dependency);
    });
    packages.set("docker-compose", () => {
      this.docker.compose = "2.26.1";
    });
    packages.set("docker-cli", () => void this.system.programs.set("docker", "/usr/bin/docker"));
    for (const name of ["iptables", "ca-certificates"]) packages.set(name, () => {});
    packages.set("cron", () => this.#installCron());
    onEnable.set("docker", () => {
      this.docker.engine = ENGINE;
    });
    onEnable.set("cron", () => this.system.processes.add("cron"));
    this.system.programs.set("dockerd", "/usr/sbin/dockerd");
    this.system.programs.set("docker", "/usr/bin/docker");
    this.system.putUnit("docker", { active: true });
  }

  #installCron(): void {
    this.system.programs.set("cron", "/usr/sbin/cron");
    this.system.putUnit("cron");
  }

  #answerHttp(): void {
    const { routes, streams } = this.http;
    const whileRunning =
      (name: string, body: unknown, status = 200) =>
      () =>
        this.docker.boxes.get(name)?.status === "running" ? { status, body } : null;
    routes.set(
      "http://127.0.0.1:5001/api/v0/id",
      whileRunning(NAMES.kubo, { ID: KUBO_ID, AgentVersion: "kubo/0.42.0/" }),
    );
    const kuboRuns = () => this.docker.boxes.get(NAMES.kubo)?.status === "running";
    routes.set("http://127.0.0.1:9094/id", () => {
      const ipfs = kuboRuns() ? { id: KUBO_ID, error: "" } : { error: "connection refused" };
      const body = { id: CLUSTER_ID, version: "1.1.6", ipfs };
      return whileRunning(NAMES.cluster, body)();
    });
    streams.set("http://127.0.0.1:9094/allocations?filter=all", 3);
    routes.set("http://127.0.0.1:6000/health", whileRunning(NAMES.pinningApi, { status: "ok" }));
    routes.set("http://127.0.0.1:3001/health", whileRunning(NAMES.webui, { status: "ok" }));
    routes.set("http://127.0.0.1:6000/pins?limit=1", whileRunning(NAMES.pinningApi, {}, 401));
    routes.set("http://127.0.0.1:3001/api/v1/storage", whileRunning(NAMES.webui, {}, 401));
    routes.set("http://127.0.0.1:3001/api/v1/pool", whileRunning(NAMES.webui, { pins: 4812 }));
  }

  /** Answers on port 443 while the edge runs, with a certificate that is new. */
  #answerTls(): void {
    const day = (days: number) => new Date(this.clock.now().getTime() + days * 86_400_000);
    this.tls.onAsk = () =>
      this.docker.boxes.get(NAMES.edge)?.status === "running"
        ? {
            kind: "answer",
            status: 200,
            body: { pool: "pool" },
            certificate: {
              issuer: "Test CA",
              isSelfSigned: false,
              validFrom: day(-1),
              validTo: day(89),
              coversName: true,
            },
            distrust: null,
          }
        : { kind: "silent", why: "connect ECONNREFUSED 127.0.0.1:443" };
  }

  /** Like the official image: creates the database in an empty volume, and refuses data of another major version. */
  #startPostgres(container: Container): Container {
    const volume = volumeOf(container);
    const major = /:(\d+)/.exec(container.image)?.[1] ?? "";
    const made = this.files.tree.get(`${volume}/PG_VERSION`)?.text.trim();
    if (made !== undefined && made !== major) return { ...container, status: "exited", exitCode: 1 };
    if (made === undefined) {
      const { POSTGRES_USER = "", POSTGRES_PASSWORD = "", POSTGRES_DB = "" } = container.env;
      const role: Role = { user: POSTGRES_USER, password: POSTGRES_PASSWORD, database: POSTGRES_DB };
      putDatabase(this, volume, major, role);
    }
    return container;
  }

  #askPostgres(target: PostgresTarget): PostgresAnswer {
    const role = this.databasesElsewhere.get(target.host) ?? this.#roleHere(target.host);
    if (role === null) return { kind: "unreachable", why: "connection refused" };
    const isLocked = this.#isLocked() && !this.databasesElsewhere.has(target.host);
    if (isLocked && target.ssl === false)
      return { kind: "wants-tls", says: "no pg_hba.conf entry, no encryption" };
    if (role.user !== target.user || role.password !== target.password) return { kind: "wrong-password" };
    if (role.database !== target.database) return { kind: "no-database" };
    return { kind: "open", serverVersion: "16.9", systemIdentifier: "7412345678901234567" };
  }

  #roleHere(host: string): Role | null {
    const container = this.docker.engine === null ? undefined : this.docker.boxes.get(NAMES.postgres);
    const isReached = host === "127.0.0.1" || (host.startsWith("10.") && this.#isLocked());
    if (!isReached || container?.status !== "running") return null;
    const role = this.files.tree.get(`${volumeOf(container)}/role.json`);
    return role === undefined ? null : (JSON.parse(role.text) as Role);
  }

  /** True if Postgres here lets nobody in without TLS. */
  #isLocked(): boolean {
    const mounts = this.docker.boxes.get(NAMES.postgres)?.mounts ?? [];
    return mounts.some(({ destination }) => destination === "/etc/fula-node/tls");
  }

  #query(sql: string): readonly Record<string, unknown>[] {
    const filled = this.migrations.applied.size > 0;
    if (sql.includes("FROM pg_database")) return this.scratches.map((name) => ({ name }));
    if (sql.includes("DROP DATABASE")) this.scratches = this.scratches.filter((name) => !sql.includes(name));
    if (sql.includes("pg_database_size")) return [{ bytes: "1234567890" }];
    // The box is the only master of its pool.
    if (/FROM (?:masters m|removed_masters|node_names n LEFT JOIN node_trust)/.test(sql)) return [];
    if (sql.includes("FROM node_names n LEFT JOIN")) return this.registered;
    if (sql.includes("to_regclass")) return [{ t: filled ? "api_keys" : null }];
    if (sql.includes("information_schema.tables")) return [{ n: filled ? "20" : "0" }];
    const counts = [...this.rowCounts].filter(([table]) => sql.includes(table)).map(([, count]) => count);
    return [{ n: String(counts.reduce((sum, count) => sum + count, 0)) }];
  }

  /** The installed CLI, as cron and steps call it. */
  #runOurs([node, program = "", ...words]: readonly string[]): void {
    const key = this.files.tree.get(LAYOUT.signingKey);
    this.files.textOf(program);
    if (node !== NODE_PATH || words.join(" ") !== `snapshot take --base-dir ${MASTER_BASE_DIR}`) {
      throw new OperatorError({ exit: "usage", what: `Unknown command: ${words.join(" ")}` });
    }
    if (key === undefined) throw new OperatorError({ exit: "settings", what: "No signing key." });
    putSnapshot(this, "20260101T000000Z");
    const at = this.clock.now();
    const run = {
      operation: "snapshot take",
      startedAt: at,
      endedAt: at,
      outcome: "ok",
      summary: "0 pins",
    } as const;
    this.files.put(LAYOUT.snapshotHeartbeat, `${JSON.stringify(writeHeartbeat(null, run))}\n`);
  }
}

/** Writes the data directory of a database to a volume. */
export function putDatabase(host: FakeHost, mountpoint: string, major: string, role: Role): void {
  host.files.put(`${mountpoint}/PG_VERSION`, `${major}\n`, 0o600);
  host.files.put(`${mountpoint}/role.json`, JSON.stringify(role), 0o600);
  // Databases and tables of users have numbers from 16384 on.
  for (const file of ["1/1259", "5/1259", "16384/1259", "16384/16401"])
    host.files.put(`${mountpoint}/base/${file}`, "", 0o600);
}

/** Adds a signed snapshot. */
export function putSnapshot(host: FakeHost, stamp: string): void {
  host.files.put(`${LAYOUT.snapshotsDir}/pinset-${stamp}.ndjson.gz`, "");
  host.files.put(`${LAYOUT.snapshotsDir}/pinset-${stamp}.manifest.json`, "{}");
  host.files.put(`${LAYOUT.snapshotsDir}/pinset-${stamp}.manifest.sig`, "signature");
}

function refill<V>(to: Map<string, V>, from: ReadonlyMap<string, V>): void {
  to.clear();
  for (const [key, value] of from) to.set(key, value);
}

function volumeOf({ mounts }: Container): string {
  return mounts.find(({ destination }) => destination === DATA_PATH)?.source ?? "";
}

/** The package as npx unpacks it: the real fragments and migrations, stand-ins for the programs. */
function shipPackage(host: FakeHost): void {
  const root = fileURLToPath(new URL("../../", import.meta.url));
  for (const folder of ["compose", "migrations"]) {
    for (const name of readdirSync(`${root}${folder}`).sort()) {
      host.files.put(`${PACKAGE_DIR}/${folder}/${name}`, textOnce(`${root}${folder}/${name}`));
    }
  }
  host.files.put(`${PACKAGE_DIR}/package.json`, JSON.stringify({ name: "fula-node", version: VERSION }));
  host.files.put(`${PACKAGE_DIR}/bin/fula-node.js`, "import '../dist/cli.js';\n", 0o755);
  host.files.put(`${PACKAGE_DIR}/dist/cli.js`, "// the bundle\n");
  host.files.put(`${PACKAGE_DIR}/node_modules/.cache/x`, "npx leaves such things");
  host.migrations.files = readdirSync(`${root}migrations`)
    .filter((name) => name.endsWith(".sql") && !name.endsWith(".down.sql"))
    .sort()
    .map((file) => ({ version: Number.parseInt(file, 10), name: file.slice(4, -4) }));
}

const texts = new Map<string, string>();

function textOnce(path: string): string {
  const text = texts.get(path) ?? readFileSync(path, "utf8");
  texts.set(path, text);
  return text;
}
