import type { MigrationRun, MigrationStatus } from "./database/migration-plan.ts";
import type { Docker, DockerReader } from "./docker/engine.ts";

/**
 * The hands and eyes of the tool, as types. `HostReader` only looks: a probe that writes does not
 * compile. `Host` is what apply gets. The real adapters are the other files of this folder.
 */

/** What the file system says of one path. */
export interface FileStat {
  readonly kind: "file" | "directory" | "symlink" | "other";
  /** Permission bits only: 0o600. */
  readonly mode: number;
  readonly sizeBytes: number;
  readonly uid: number;
  readonly modifiedAt: Date;
}

/** Looks at files. An absent path is `null`; one that can't be read throws an OperatorError. */
export interface FileReader {
  readText(path: string): Promise<string | null>;
  /** Does not follow a symbolic link. */
  stat(path: string): Promise<FileStat | null>;
  /** The names in a directory, sorted. */
  list(path: string): Promise<readonly string[] | null>;
  readLink(path: string): Promise<string | null>;
  /**
   * Lower-case hex sha256 over relative paths and contents of every file below a directory; with
   * `only`, of these entries of it (one that is missing does not count).
   */
  hashTree(path: string, only?: readonly string[]): Promise<string | null>;
  /** Free and total bytes of the file system that holds the path, or its nearest ancestor. */
  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
}

/** Writes files: whole or not at all, with their mode from the start. */
export interface Files extends FileReader {
  /** Temporary name beside it, fsync, rename, fsync of the directory. Makes missing parents (0755). */
  writeAtomic(path: string, text: string, options: { readonly mode: number }): Promise<void>;
  makeDirectory(path: string, options: { readonly mode: number }): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a tree; an absent one is fine, and a mount point is emptied. */
  remove(path: string): Promise<void>;
  /** Removes a directory that holds nothing; anything else stays, an absent one is fine. */
  removeEmptyDirectory(path: string): Promise<void>;
  /**
   * Copies a tree (with `only`: these entries of it) under a temporary name, fsyncs it and renames it
   * into place, replacing what is there.
   */
  copyTree(from: string, to: string, only?: readonly string[]): Promise<void>;
  /** Points a symbolic link at a target, atomically. */
  link(target: string, path: string): Promise<void>;
  /** Appends one line and fsyncs it; a new file gets the mode. Makes missing parents (0755). */
  append(path: string, line: string, options: { readonly mode: number }): Promise<void>;
}

/** A systemd unit as `systemctl show` has it. */
export interface UnitState {
  readonly name: string;
  readonly loaded: boolean;
  readonly active: boolean;
  readonly execStart: string;
}

/** Who holds a TCP port on this machine. */
export interface Listener {
  readonly port: number;
  /** `127.0.0.1`, `0.0.0.0`, `::`. */
  readonly address: string;
  readonly pid: number | null;
  /** The process's name (`/proc/PID/comm`), null where it can't be told. */
  readonly process: string | null;
  /** The pid and its ancestors, nearest first: to tell whose container it runs in. */
  readonly ancestry: readonly number[];
  /** The systemd service whose control group it is in (`nginx.service`), null where it is in none. */
  readonly unit: string | null;
}

/** Looks at the operating system. */
export interface SystemReader {
  /** Effective user id. */
  uid(): number;
  /** `/etc/os-release` (ID, VERSION_ID, ID_LIKE, PRETTY_NAME) and the machine's architecture as node names it. */
  os(): Promise<{
    readonly id: string;
    readonly versionId: string;
    readonly idLike: readonly string[];
    readonly prettyName: string;
    readonly arch: string;
  }>;
  memoryBytes(): number;
  /** The absolute path of a program on root's PATH, or null. */
  which(program: string): Promise<string | null>;
  /** Null where systemd does not know the unit, or there is no systemd. */
  unit(name: string): Promise<UnitState | null>;
  listeners(): Promise<readonly Listener[]>;
  /** True where the kernel says that the clock is synchronised; null where nothing can be told. */
  clockSynchronised(): Promise<boolean | null>;
  /** True while a process of that name runs (`/proc/PID/comm`). */
  isRunning(process: string): Promise<boolean>;
}

/** Changes the operating system. */
export interface System extends SystemReader {
  /** `apt-get install` of distribution packages, waiting for apt's lock; lines of its output are reported. */
  installPackages(names: readonly string[], report: (line: string) => void): Promise<void>;
  /** Enables and starts a unit; without systemd, starts the service by its init script. */
  enableUnit(name: string): Promise<void>;
  /** Runs a program of ours to its end (the very command a cron line has); throws OperatorError unless it exits 0. */
  runCommand(argv: readonly string[], options: { readonly timeoutMs: number }): Promise<void>;
}

/** How to reach one database; `password` never appears in an error. */
export interface PostgresTarget {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly ssl: boolean;
}

/** Whether a database lets us in, told apart because each has another way out. */
export type PostgresAnswer =
  | { readonly kind: "open"; readonly serverVersion: string; readonly systemIdentifier: string }
  | { readonly kind: "wrong-password" }
  | { readonly kind: "no-database" }
  | { readonly kind: "unreachable"; readonly why: string };

/** Looks into Postgres over the network, in sessions that Postgres itself holds read-only. */
export interface PostgresReader {
  ask(target: PostgresTarget): Promise<PostgresAnswer>;
  query<Row extends Record<string, unknown>>(
    target: PostgresTarget,
    sql: string,
    values?: readonly unknown[],
  ): Promise<readonly Row[]>;
}

/** Time of this machine. */
export interface Clock {
  now(): Date;
  /** Resolves after so long; only for polls with a deadline. */
  wait(durationMs: number): Promise<void>;
}

/** Reads over http(s): health endpoints and the REST APIs of kubo and ipfs-cluster. */
export interface HttpReader {
  /**
   * Null where nothing answers at all; a body that is no JSON, or longer than `maxBytes` (16 MiB), is
   * `body: null`. `method` POST serves kubo, whose reads are POSTs.
   */
  json(
    url: string,
    options?: {
      readonly method?: "GET" | "POST";
      readonly timeoutMs?: number;
      readonly basicAuth?: string;
      readonly maxBytes?: number;
    },
  ): Promise<{ readonly status: number; readonly body: unknown } | null>;
  /** Counts the lines of a stream until it ends or the time is up; null where nothing answers. */
  countLines(
    url: string,
    options: { readonly timeoutMs: number; readonly basicAuth?: string },
  ): Promise<{ readonly lines: number; readonly complete: boolean } | null>;
}

/** Looks at ed25519 keys as PEM text. */
export interface SigningReader {
  /** The id and the public half of a private key; throws an OperatorError (`settings`) for anything else. */
  publicKey(pem: string, path: string): { readonly id: string; readonly publicPem: string };
}

/** Makes them, too. */
export interface Signing extends SigningReader {
  /** A new ed25519 private key as PKCS8 PEM. */
  generate(): string;
}

/** Looks at a database's schema and its ledger. */
export interface MigratorReader {
  /** What is applied and what `up` would do; works on an empty database, and changes nothing. */
  status(target: PostgresTarget): Promise<MigrationStatus>;
  /** The guarded flags that a master is recorded with, sorted; null where there is no ledger. */
  readFlags(target: PostgresTarget, master: string): Promise<readonly string[] | null>;
}

/** Moves a database's schema, under one lock for the whole run. */
export interface Migrator extends MigratorReader {
  up(target: PostgresTarget, options: { readonly report: (line: string) => void }): Promise<MigrationRun>;
  down(
    target: PostgresTarget,
    version: number,
    options: { readonly report: (line: string) => void },
  ): Promise<MigrationRun>;
  /** Writes down which flags a master runs with: down files refuse while one that they serve is in use. */
  recordFlags(target: PostgresTarget, master: string, flags: readonly string[]): Promise<void>;
}

/** Everything that may look. */
export interface HostReader {
  readonly files: FileReader;
  readonly system: SystemReader;
  readonly docker: DockerReader;
  readonly postgres: PostgresReader;
  readonly migrations: MigratorReader;
  readonly http: HttpReader;
  readonly signing: SigningReader;
  readonly clock: Clock;
}

/** Everything that may also touch. */
export interface Host extends HostReader {
  readonly files: Files;
  readonly system: System;
  readonly docker: Docker;
  readonly migrations: Migrator;
  readonly signing: Signing;
  readonly random: {
    /** So many random bytes as lower-case hex. */
    hex(bytes: number): string;
    /** So many characters of [A-Za-z0-9_-]. */
    token(characters: number): string;
  };
}
