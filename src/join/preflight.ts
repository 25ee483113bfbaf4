import { askWriter } from "../cluster/writer.ts";
import type { Container } from "../docker/engine.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import {
  type Ownership,
  type PortNeed,
  type PreflightContext,
  type PreflightProblem,
  runPreflight,
} from "../preflight/check.ts";
import {
  MASTER_CHECKS,
  MASTER_MINIMUM_FREE_BYTES,
  MASTER_MINIMUM_MEMORY_BYTES,
  REPAIR_MINIMUM_FREE_BYTES,
} from "../preflight/checks.ts";
import { bracketed } from "../settings/address.ts";
import { WRITER_PORTS } from "../settings/conflicts.ts";
import { EDGE_PORTS } from "../settings/edge.ts";
import {
  CRON_FILES,
  isOurs,
  type MasterLayout,
  NAMES,
  STORAGE_NAMES,
  type StorageLayout,
} from "../settings/layout.ts";
import { isDatabaseElsewhere, postgresBindOf } from "../settings/postgres-target.ts";
import type { Settings } from "../settings/settings.ts";
import { OLD_MASTER_CHECK } from "./from-backup/old-machine.ts";
import type { JoinDeps } from "./join-run.ts";

/**
 * Prints the warnings of a preflight. Throws one error (`preflight` or `settings`) with all its failures and all
 * problems of the settings, so that one run reports everything.
 */
function reportPreflight(
  { reporter }: Pick<JoinDeps, "reporter">,
  found: readonly PreflightProblem[],
  problems: readonly Problem[],
): void {
  for (const { severity, check, what, remedy } of found) {
    if (severity === "warning") reporter.listen({ type: "warning", text: `${check}: ${what} ${remedy}` });
  }
  refuse(
    found.filter(({ severity }) => severity === "failure"),
    problems,
  );
}

function refuse(failures: readonly PreflightProblem[], problems: readonly Problem[]): void {
  if (failures.length + problems.length === 0) return;
  const listed = failures.map(({ check, what, why, remedy }) => ({
    subject: check,
    what: why === undefined ? what : `${what} ${why}`,
    remedy,
  }));
  const all = [...listed, ...problems];
  const [first] = all;
  throw new OperatorError({
    exit: failures.length > 0 ? "preflight" : "settings",
    // One problem is the message itself.
    what:
      all.length === 1 && first !== undefined
        ? headlineOf(first)
        : `${all.length} problems prevent this run.`,
    ...(all.length === 1 && first?.remedy !== undefined
      ? {}
      : { remedy: "Fix what is listed, then run again." }),
    problems: all,
  });
}

/** With the check's name, since `--ignore` takes it. */
function headlineOf({ subject, what }: Problem): string {
  return what.startsWith(`${subject} `) ? what : `${subject}: ${what}`;
}

/** What the checks of a node are made for. */
interface ContextOptions<Layout> {
  readonly deps: Pick<JoinDeps, "host" | "nodePath" | "packageDir">;
  readonly layout: Layout;
  readonly settings: Settings;
}

/** What the preflight of a join looks at; `problems` are those of its settings. */
interface CheckOptions<Layout> extends ContextOptions<Layout> {
  readonly deps: Pick<JoinDeps, "host" | "reporter" | "nodePath" | "packageDir">;
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}

/**
 * Runs every preflight check and prints the warnings. Throws one error (`preflight` or `settings`) with all
 * failures and all problems of the settings. Changes nothing.
 */
export async function checkMaster(options: CheckOptions<MasterLayout>): Promise<void> {
  const { deps, ignored, problems } = options;
  const context = await contextOfMaster(options);
  const found = await runPreflight(MASTER_CHECKS, deps.host, context, ignored, [OLD_MASTER_CHECK]);
  reportPreflight(deps, found, problems);
}

/** What the checks of a master need to know. */
export async function contextOfMaster({
  deps,
  layout,
  settings,
}: ContextOptions<MasterLayout>): Promise<PreflightContext> {
  const { host } = deps;
  const [installed, ports] = await Promise.all([
    host.files.stat(layout.cliCurrent),
    neededPorts(host, settings),
  ]);
  return {
    baseDir: layout.baseDir,
    ports,
    published: publishedNow(settings),
    minimumFreeBytes: installed === null ? MASTER_MINIMUM_FREE_BYTES : REPAIR_MINIMUM_FREE_BYTES,
    minimumMemoryBytes: MASTER_MINIMUM_MEMORY_BYTES,
    guarded: [
      layout.baseDir,
      settings.get("WRITER_DIR")?.value ?? layout.baseDir,
      ...Object.values(CRON_FILES),
    ],
    cronNode: { running: deps.nodePath, script: `${deps.packageDir}/bin/fula-node.js` },
    ownership: masterOwnership,
    writerUnits: [NAMES.kuboUnit, NAMES.clusterUnit],
  };
}

async function neededPorts(host: HostReader, settings: Settings): Promise<readonly PortNeed[]> {
  const values = (key: string) => settings.get(key)?.value;
  const port = (key: string, purpose: string): PortNeed => ({
    port: Number(values(key)),
    address: "127.0.0.1",
    purpose,
    remedy: `Or use another port for it: --set ${key}=PORT.`,
  });
  const bind = postgresBindOf(values);
  const writerWorks = (await askWriter(host, values)).fault === null;
  return [
    ...(isDatabaseElsewhere(values) ? [] : [port("POSTGRES_PORT", "Postgres")]),
    ...(bind === null ? [] : [{ ...port("POSTGRES_PORT", "Postgres, for other masters"), address: bind }]),
    port("PINNING_API_PORT", "the pinning API"),
    port("PINNING_EDGE_PORT", "the pinning API, for other machines"),
    port("WEBUI_PORT", "the storage API"),
    port("PINNING_METRICS_PORT", "the pinning API, for its metrics"),
    port("WEBUI_METRICS_PORT", "the storage API, for its metrics"),
    ...(writerWorks ? [] : WRITER_PORTS),
    ...(settings.has("PUBLIC_HOST") ? EDGE_NEEDS : []),
  ];
}

/** A saved address was warned about when it was new. */
function publishedNow(settings: Settings): string | null {
  const values = (key: string) => settings.get(key)?.value;
  const address = postgresBindOf(values);
  return address === null || settings.get("POSTGRES_BIND")?.origin === "saved"
    ? null
    : `${bracketed(address)}:${values("POSTGRES_PORT") ?? "5432"}`;
}

const EDGE_NEEDS = EDGE_PORTS.map((port): PortNeed => ({
  port,
  address: "0.0.0.0",
  purpose: "the edge",
  remedy: "Or run without the edge: remove PUBLIC_HOST from the settings.",
}));

const MASTER_CONTAINERS: ReadonlySet<string> = new Set([
  NAMES.postgres,
  NAMES.pinningApi,
  NAMES.webui,
  NAMES.gateway,
  NAMES.updater,
  NAMES.edge,
]);

/** A container with one of our names is not foreign here. Its step judges it, and knows more than the port that it uses. */
function masterOwnership(container: Container): Ownership {
  if (isOurs(container) || MASTER_CONTAINERS.has(container.name)) return "ours";
  return container.name === NAMES.kubo || container.name === NAMES.cluster ? "adopted-writer" : "foreign";
}

const GIB = 1024 ** 3;
/** The free space for images and the first blocks. A storage node has no database. */
const MINIMUM_FREE_BYTES = { baseDir: GIB / 2, dockerRoot: 4 * GIB };
const MINIMUM_MEMORY_BYTES = { required: GIB, recommended: 2 * GIB };
const STORAGE_CONTAINERS: readonly string[] = [
  STORAGE_NAMES.kubo,
  STORAGE_NAMES.cluster,
  STORAGE_NAMES.ingest,
];

/**
 * Runs every preflight check and prints the warnings. Throws one error (`preflight` or `settings`) with all
 * failures and all problems of the settings. Changes nothing.
 */
export async function checkStorageNode(options: CheckOptions<StorageLayout>): Promise<void> {
  const { deps, ignored, problems } = options;
  const context = await contextOfStorageNode(options);
  reportPreflight(deps, await runPreflight(MASTER_CHECKS, deps.host, context, ignored), problems);
}

/** What the checks of a storage node need to know. */
export async function contextOfStorageNode({
  deps,
  layout,
  settings,
}: ContextOptions<StorageLayout>): Promise<PreflightContext> {
  const installed = await deps.host.files.stat(layout.cliCurrent);
  return {
    baseDir: layout.baseDir,
    ports: [...WRITER_PORTS, ingestPort(settings), ingestMetricsPort(settings)],
    published: null,
    minimumFreeBytes: installed === null ? MINIMUM_FREE_BYTES : REPAIR_MINIMUM_FREE_BYTES,
    minimumMemoryBytes: MINIMUM_MEMORY_BYTES,
    guarded: [layout.baseDir],
    cronNode: null,
    ownership: storageOwnership,
    writerUnits: [NAMES.kuboUnit, NAMES.clusterUnit],
  };
}

function ingestPort(settings: Settings): PortNeed {
  return {
    port: Number(settings.get("INGEST_PORT")?.value ?? "3601"),
    address: settings.get("INGEST_BIND")?.value === "127.0.0.1" ? "127.0.0.1" : "0.0.0.0",
    purpose: "the verified ingest",
    remedy: "Or use another port for it: --set INGEST_PORT=PORT.",
  };
}

function ingestMetricsPort(settings: Settings): PortNeed {
  return {
    port: Number(settings.get("INGEST_METRICS_PORT")?.value ?? "13601"),
    address: "127.0.0.1",
    purpose: "the verified ingest, for its metrics",
    remedy: "Or use another port for it: --set INGEST_METRICS_PORT=PORT.",
  };
}

/** A container with one of our names is not foreign here. Its step judges it, and knows more than the port that it uses. */
function storageOwnership(container: Container): Ownership {
  return isOurs(container) || STORAGE_CONTAINERS.includes(container.name) ? "ours" : "foreign";
}
