import type { Refusal } from "../../src/database/connection-fault.ts";
import type { PostgresAnswer } from "../../src/database/postgres.ts";
import { OperatorError } from "../../src/errors.ts";
import type { Host } from "../../src/host.ts";
import type { Clock } from "../../src/machine/clock.ts";
import type { TlsAnswer, TlsReader } from "../../src/machine/tls.ts";
import type { HttpReader } from "../../src/machine/http.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { fakeCertificates, inspectFake } from "./fake-certificates.ts";
import { FakeDocker } from "./fake-docker.ts";
import { FakeFiles } from "./fake-files.ts";
import { FakeMigrator } from "./fake-migrator.ts";
import { FakeRandom } from "./fake-random.ts";
import { FakeSystem } from "./fake-system.ts";
import { type KillMoment, WriteGate } from "./write-gate.ts";

export { Killed } from "./write-gate.ts";

/** Everything on a fake box, as plain data to compare. Times of files are left out. */
export interface Snapshot {
  readonly files: Readonly<Record<string, string>>;
  readonly containers: Readonly<Record<string, unknown>>;
  readonly images: Readonly<Record<string, unknown>>;
  readonly volumes: Readonly<Record<string, unknown>>;
  readonly networks: Readonly<Record<string, unknown>>;
  readonly packages: readonly string[];
  readonly units: Readonly<Record<string, unknown>>;
  readonly migrations: { readonly applied: readonly number[]; readonly masters: unknown };
}

const START = Date.UTC(2026, 0, 1);

/**
 * A box in memory: a Debian 13 with a running, empty engine, until a test changes that. It records every write, can die at
 * any of them, and can show everything that is on it.
 */
export class FakeHost implements Host {
  readonly gate = new WriteGate();
  readonly files: FakeFiles;
  readonly system: FakeSystem;
  readonly docker: FakeDocker;
  readonly migrations = new FakeMigrator(this.gate);
  readonly clock: Clock & {
    /** Called after each wait with the new time, for things that come up later. */
    onWait: (now: Date) => void;
    /** Sets the date, as NTP does: `monotonicMs` and deadlines go on as before. */
    setBy: (differenceMs: number) => void;
  };
  readonly http: HttpReader & {
    /** Endpoints by their whole URL. A function is called for each request and may return null. */
    readonly routes: Map<string, HttpAnswer | (() => HttpAnswer | null)>;
    /** The number of lines of a stream, by its whole URL. */
    readonly streams: Map<string, number>;
  };
  readonly tls: TlsReader & {
    /** What answers on port 443 to a request for a name. */
    onAsk: (name: string, asked: Parameters<TlsReader["ask"]>[0]) => TlsAnswer;
    onInspect: (
      pem: string,
      options: Parameters<TlsReader["inspect"]>[1],
    ) => Awaited<ReturnType<TlsReader["inspect"]>>;
  };
  readonly postgres: Host["postgres"] & {
    onAsk: (target: PostgresTarget) => PostgresAnswer;
    onWriter: (target: PostgresTarget) => Refusal | null;
    onQuery: (
      target: PostgresTarget,
      sql: string,
      values: readonly unknown[],
    ) => readonly Record<string, unknown>[];
    /** Changes a role's password, after the gate. */
    onSetPassword: (target: PostgresTarget, password: string) => void;
  };
  readonly random: Host["random"];
  readonly signing: Host["signing"];
  readonly certificates: Host["certificates"];
  readonly #mint = new FakeRandom(this.gate);
  #elapsedMs = 0;
  #differenceMs = 0;

  constructor() {
    const now = () => new Date(START + this.#elapsedMs + this.#differenceMs);
    this.files = new FakeFiles(this.gate, now);
    this.system = new FakeSystem(this.gate);
    this.docker = new FakeDocker(this.gate, now, (path) => this.files.textOf(path));
    // A new volume gets the owner and the mode of the image's directory.
    this.docker.onVolumeMade = (name) =>
      this.files.putDirectory(`/var/lib/docker/volumes/${name}/_data`, 0o755, 1000);
    this.docker.onVolumeGone = (name) => this.files.drop(`/var/lib/docker/volumes/${name}`);
    this.clock = this.#makeClock(now);
    this.http = this.#makeHttp();
    this.tls = this.#makeTls();
    this.postgres = this.#makePostgres();
    this.random = this.#mint.random;
    this.signing = this.#mint.signing;
    this.certificates = fakeCertificates(this.signing);
  }

  /** Every write since the start or the last `revive`, in order: `files.writeAtomic /x 600`. */
  get writes(): readonly string[] {
    return this.gate.writes;
  }

  /** Every generated random text that is long enough to be a secret, in order. */
  get generated(): readonly string[] {
    return this.#mint.secrets;
  }

  /** True after a planned kill has happened. */
  get killed(): boolean {
    return this.gate.killed;
  }

  /** Plans a kill at the k-th write from now on: before, during or after it. */
  killAt(k: number, moment: KillMoment): void {
    this.gate.killAt(k, moment);
  }

  /** Starts a new process on the same box. */
  revive(): void {
    this.gate.revive();
  }

  /** Everything on the box. If two snapshots are equal, nothing was changed in between. */
  snapshot(): Snapshot {
    const files = [...this.files.tree].map(
      ([path, { kind, mode, text, uid = 0 }]) =>
        [path, `${kind} ${mode.toString(8)} ${uid === 0 ? "" : `uid ${uid} `}${text}`] as const,
    );
    return {
      files: sorted(files),
      containers: sorted([...this.docker.boxes]),
      images: sorted([...this.docker.images]),
      volumes: sorted([...this.docker.volumes]),
      networks: sorted([...this.docker.networks]),
      packages: [...this.system.installed].sort(),
      units: sorted([...this.system.units]),
      migrations: {
        applied: [...this.migrations.applied].sort((a, b) => a - b),
        masters: sorted([...this.migrations.masters]),
      },
    };
  }

  /**
   * The snapshot without what may differ between two runs with the same result: ids, pids, start times and config hashes
   * of containers, and the text of generated secrets.
   */
  outcome(): Snapshot {
    const whole = this.snapshot();
    const containers = [...this.docker.boxes].map(([name, container]) => {
      const labels = { ...container.labels, "com.docker.compose.config-hash": "" };
      return [name, { ...container, labels, id: "", pid: 0, startedAt: "" }] as const;
    });
    return JSON.parse(
      this.#mint.mask(JSON.stringify({ ...whole, containers: sorted(containers) })),
    ) as Snapshot;
  }

  /** The generated secrets that the box has now, in a file with their name or in a container. */
  heldSecrets(): readonly string[] {
    const { files, containers } = this.snapshot();
    const kept = Object.entries(files).filter(([path]) => !path.includes(".fula-node-tmp."));
    const text = JSON.stringify([kept, containers]);
    return this.generated.filter((secret) => text.includes(secret));
  }

  #makeClock(now: () => Date): FakeHost["clock"] {
    const clock: FakeHost["clock"] = {
      onWait: () => {},
      setBy: (differenceMs) => void (this.#differenceMs += differenceMs),
      monotonicMs: () => {
        this.gate.look();
        return this.#elapsedMs;
      },
      now: () => {
        this.gate.look();
        return now();
      },
      wait: async (durationMs) => {
        this.gate.look();
        this.#elapsedMs += durationMs;
        clock.onWait(now());
      },
    };
    return clock;
  }

  #makeHttp(): FakeHost["http"] {
    const routes: FakeHost["http"]["routes"] = new Map();
    const streams: FakeHost["http"]["streams"] = new Map();
    return {
      routes,
      streams,
      json: async (url) => {
        this.gate.look();
        const answer = routes.get(url) ?? null;
        return typeof answer === "function" ? answer() : answer;
      },
      countLines: async (url) => {
        this.gate.look();
        const lines = streams.get(url);
        return lines === undefined ? null : { lines, complete: true };
      },
    };
  }

  #makeTls(): FakeHost["tls"] {
    const tls: FakeHost["tls"] = {
      onAsk: () => ({ kind: "silent", why: "connect ECONNREFUSED 127.0.0.1:443" }),
      onInspect: inspectFake,
      ask: async (asked) => {
        this.gate.look();
        return tls.onAsk(asked.name, asked);
      },
      inspect: async (pem, options) => {
        this.gate.look();
        return tls.onInspect(pem, options);
      },
    };
    return tls;
  }

  #makePostgres(): FakeHost["postgres"] {
    const postgres = {
      onAsk: (): PostgresAnswer => ({ kind: "unreachable", why: "connection refused" }),
      onWriter: () => null,
      onQuery: (): readonly Record<string, unknown>[] => {
        throw new OperatorError({ exit: "unavailable", what: "Postgres does not answer." });
      },
      onSetPassword: () => {},
    } as unknown as FakeHost["postgres"];
    return Object.assign(postgres, {
      ask: async (target: PostgresTarget) => {
        this.gate.look();
        return postgres.onAsk(target);
      },
      whyNoWriter: async (target: PostgresTarget) => {
        this.gate.look();
        return postgres.onWriter(target);
      },
      query: async (target: PostgresTarget, sql: string, values: readonly unknown[] = []) => {
        this.gate.look();
        return postgres.onQuery(target, sql, values) as never;
      },
      setPassword: (target: PostgresTarget, password: string) =>
        this.gate.write(`postgres.setPassword ${target.user}`, () =>
          postgres.onSetPassword(target, password),
        ),
      session: async (target: PostgresTarget, work: Parameters<Host["postgres"]["session"]>[1]) =>
        work({
          query: async (sql, values = []) => {
            const answer = () => postgres.onQuery(target, sql, values) as never;
            this.gate.look();
            const [verb = ""] = /UPDATE \w+/.exec(sql) ?? [];
            return verb === "" ? answer() : this.gate.write(`postgres ${verb}`, answer);
          },
        }),
    });
  }
}

/** The answer of a fake HTTP endpoint. */
export interface HttpAnswer {
  readonly status: number;
  readonly body: unknown;
}

function sorted<T>(entries: readonly (readonly [string, T])[]): Readonly<Record<string, T>> {
  return Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
}
