import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { openCluster } from "./cluster/client.ts";
import { createMigrator } from "./database/migrator.ts";
import { postgresWriter } from "./database/postgres-writer.ts";
import { createPostgres, openPostgresPool } from "./database/postgres.ts";
import { OperatorError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { JoinDeps } from "./join/join-run.ts";
import { clock, random } from "./machine/clock.ts";
import { resolvable } from "./machine/file-errors.ts";
import { files } from "./machine/file-writer.ts";
import { createHttp } from "./machine/http.ts";
import type { Lock, LockHolder } from "./machine/lock.ts";
import { proxyFor } from "./machine/proxy.ts";
import type { SigningKey, VerifyingKey } from "./machine/signing.ts";
import { createSystem } from "./machine/system.ts";
import { type AlarmChannels, openAlertLog, rotateLog } from "./pinset/alerts.ts";
import type { SnapshotFile, SnapshotStore } from "./pinset/snapshot/store.ts";
import type { PinsetWorkspace } from "./pinset/workspace.ts";
import type { ServeDeps } from "./services/serve.ts";
import { createJson } from "./ui/json.ts";
import { createLines } from "./ui/lines.ts";
import type { Reporter } from "./ui/reporter.ts";

/** Creates the World from this process. No other code passes the process to the verbs. */
export async function createWorld(
  process: NodeJS.Process,
  version: string,
  options: { readonly json: boolean; readonly stop: AbortSignal },
): Promise<World> {
  const { json, stop } = options;
  const packageDir = PACKAGE_DIR;
  const live = process.stdin.isTTY && process.stdout.isTTY && !json;
  const reporter = await createReporter(process, json, live && !isPlain(process.env));
  return {
    host: createHost({ env: process.env, migrationsDir: `${packageDir}/migrations`, toolVersion: version }),
    reporter,
    questions: live
      ? (await import("./ui/ask.ts")).createQuestions(process.stdin, process.stdout, {
          isPlain: isPlain(process.env),
          before: () => reporter.close(),
        })
      : null,
    environment: process.env,
    version,
    packageDir,
    nodePath: process.execPath,
    hostname: hostname(),
    pid: process.pid,
    hash: (text) => createHash("sha256").update(text).digest("hex"),
    takeLock: async (...given) => (await import("./machine/lock.ts")).takeLock(...given),
    openCluster,
    openSnapshots: async (directory) => (await loadSnapshots()).openSnapshotStore(resolvable(directory)),
    openSnapshotFile: async (path) => (await loadSnapshots()).openSnapshotFile(resolvable(path)),
    listSnapshotFiles: async (directory) => (await loadSnapshots()).listSnapshotFiles(resolvable(directory)),
    openWorkspace: async () =>
      (await import("./pinset/workspace.ts")).openWorkspace(process.env["TMPDIR"] ?? "/var/tmp"),
    openChannels: async ({ log, command, pool }) => ({
      log: openAlertLog(log),
      command: command === undefined ? null : await openCommand(command, process.env),
      source: { host: hostname(), pool },
    }),
    rotateLog: (path) => rotateLog(path),
    readSigningKey: async (path) => (await loadSigning()).readSigningKey(path),
    // Loaded at the first announcement, because most commands announce nothing.
    openNodesClient: (url, ca) => ({
      url: url.replace(/\/+$/, ""),
      send: async (...request) =>
        (await import("./federation/announce-name.ts"))
          .openNodesClient(url, { proxy: proxyFor(url, process.env), ca })
          .send(...request),
    }),
    loadKeyParser: async () => (await loadSigning()).parseVerifyingKey,
    readStdin: () => readAll(process.stdin),
    stdinLines: () => createInterface({ input: process.stdin }),
    readVerifyingKey: async (paths) => (await loadSigning()).readVerifyingKey(paths.map(resolvable)),
    openPool: openPostgresPool,
    openBlake3: async () => (await import("./ingest/blake3.ts")).openBlake3(),
    openKubo: async (...args) => (await import("./cluster/kubo.ts")).openKubo(...args),
    openStorageApi: async (url, limits) =>
      (await import("./ingest/quota-gate.ts")).openStorageApi(url, {
        ...limits,
        proxy: proxyFor(url, process.env),
      }),
    write: createLogWriter(process),
    stop,
  };
}

/** True if nothing may be coloured or drawn: by https://no-color.org, or since the terminal can't. */
function isPlain(env: Readonly<Record<string, string | undefined>>): boolean {
  return (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb";
}

const PACKAGE_DIR = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Writes to standard output what comes in one turn of the event loop with one call of the kernel: a busy service has many
 * lines. What is left when the process ends is written then.
 */
function createLogWriter(process: NodeJS.Process): World["write"] {
  let text = "";
  const flush = (): void => {
    if (text !== "") process.stdout.write(text);
    text = "";
  };
  let isWatching = false;
  return (lines) => {
    if (!isWatching) process.once("exit", flush);
    isWatching = true;
    if (text === "") setImmediate(flush);
    text += lines;
  };
}

/** A page of ours. The package brings them, so that they can be read on a machine without internet. */
const PAGE = /(?<![\w/])docs\/(?=[\w-]+\.md)/g;

/** What prints for the operator: JSON, a terminal that is drawn on, or lines. */
export async function createReporter(
  process: NodeJS.Process,
  json: boolean,
  live: boolean,
): Promise<Reporter> {
  // Everything that is printed leaves here: no line names a page that is not where the reader is.
  const whole = (line: string) => `${line.replaceAll(PAGE, `${PACKAGE_DIR}/docs/`)}\n`;
  const streams = {
    out: (line: string) => void process.stdout.write(whole(line)),
    err: (line: string) => void process.stderr.write(whole(line)),
  };
  if (json) return createJson(streams);
  const now = () => clock.monotonicMs();
  return live ? (await import("./ui/terminal.ts")).createTerminal(streams, now) : createLines(streams, now);
}

const MAX_STDIN_BYTES = 1024 ** 2;

async function readAll(stream: NodeJS.ReadStream): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_STDIN_BYTES) {
      throw new OperatorError({
        exit: "usage",
        what: "Standard input is larger than 1 MiB.",
        remedy: "Pass only the token or the value.",
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** What every verb gets from the composition root: adapters, and facts about this process. */
export interface World extends JoinDeps {
  takeLock(name: string, holder: LockHolder): Promise<Lock>;
  /** Standard input, line by line, of a process that another one of ours started and feeds. */
  readonly stdinLines: () => AsyncIterable<string>;
  openSnapshots(directory: string): Promise<SnapshotStore>;
  /** Opens a snapshot by the path of one of its files; see openSnapshotFile. */
  openSnapshotFile(path: string): Promise<SnapshotFile>;
  listSnapshotFiles(directory: string): Promise<readonly SnapshotFile[]>;
  /** A temporary directory in which pinsets are compared (TMPDIR, else /var/tmp). */
  openWorkspace(): Promise<PinsetWorkspace>;
  /** The ways on which alarms leave: the alert log, and ALERT_COMMAND if it is set. */
  openChannels(given: {
    readonly log: string;
    readonly command: string | undefined;
    readonly pool: string;
  }): Promise<AlarmChannels>;
  /** Rotates the log of a cron job, if it is large; see rotateLog. */
  rotateLog(path: string): Promise<void>;
  openPool: typeof openPostgresPool;
  readonly openBlake3: ServeDeps["openBlake3"];
  readonly openKubo: ServeDeps["openKubo"];
  readonly openStorageApi: ServeDeps["openStorageApi"];
  /** Writes whole lines to standard output: the log of a service. */
  readonly write: ServeDeps["write"];
  /** Aborted when the process receives SIGINT or SIGTERM. */
  readonly stop: AbortSignal;
  readSigningKey(path: string): Promise<SigningKey>;
  /** Reads the first of these files that exists; it may hold a public or a private key. */
  readVerifyingKey(paths: readonly string[]): Promise<VerifyingKey>;
}

/** What the real host needs. */
interface HostOptions {
  /** The environment of the process. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The shipped migrations/ directory. */
  readonly migrationsDir: string;
  readonly toolVersion: string;
}

/**
 * This machine. Parts that only some verbs need are loaded by their first call; a call of Docker throws an
 * OperatorError (`settings`) if DOCKER_HOST names an engine on another machine.
 */
export function createHost({ env, migrationsDir, toolVersion }: HostOptions): Host {
  return {
    files,
    system: createSystem(env),
    docker: lazily(async () => (await import("./docker/engine-writer.ts")).createDocker(env)),
    postgres: { ...createPostgres(), ...postgresWriter },
    migrations: createMigrator({ directory: migrationsDir, toolVersion }),
    http: createHttp(env),
    tls: lazily(async () => (await import("./machine/tls.ts")).tls),
    signing: {
      publicKey: async (pem, path) => {
        const { id, publicPem } = (await loadSigning()).parseSigningKey(pem, path);
        return { id, publicPem };
      },
      generate: async () => (await loadSigning()).generateSigningKeyPem(),
      sign: async (pem, path, text) =>
        Buffer.from((await loadSigning()).parseSigningKey(pem, path).sign(Buffer.from(text))).toString("hex"),
    },
    certificates: lazily(async () => (await import("./database/make-certificate.ts")).certificateMaker),
    clock,
    random,
  };
}

async function openCommand(path: string, env: Readonly<Record<string, string | undefined>>) {
  const [{ openOperatorCommand }, { programEnvironment }] = await Promise.all([
    import("./pinset/alert-command.ts"),
    import("./machine/run-program.ts"),
  ]);
  return openOperatorCommand(path, { files, environment: programEnvironment(env) });
}

const loadSigning = () => import("./machine/signing.ts");
const loadSnapshots = () => import("./pinset/snapshot/store.ts");

/** A part of which every method returns a promise; it is loaded by the first call of a method. */
function lazily<Part extends { readonly [Name in keyof Part]: (...given: never[]) => Promise<unknown> }>(
  load: () => Promise<Part>,
): Part {
  let loaded: Promise<Part> | null = null;
  const call = async (name: keyof Part, given: never[]): Promise<unknown> => {
    loaded ??= load();
    return (await loaded)[name](...given);
  };
  return new Proxy({} as Part, {
    get:
      (_part, name) =>
      (...given: never[]) =>
        call(name as keyof Part, given),
  });
}
