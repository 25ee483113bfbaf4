import type { HostReader } from "../host.ts";
import { askWriter } from "../cluster/writer.ts";
import type { Container } from "../docker/engine.ts";
import { OperatorError, type Problem } from "../errors.ts";
import { type Ownership, type PortNeed, type PreflightProblem, runPreflight } from "../preflight/check.ts";
import {
  MASTER_CHECKS,
  MASTER_MINIMUM_FREE_BYTES,
  MASTER_MINIMUM_MEMORY_BYTES,
  REPAIR_MINIMUM_FREE_BYTES,
} from "../preflight/checks.ts";
import { isOurs, type MasterLayout, NAMES, STORAGE_NAMES, type StorageLayout } from "../settings/layout.ts";
import { isDatabaseElsewhere } from "../settings/master.ts";
import type { Settings } from "../settings/settings.ts";
import type { JoinDeps } from "./join-run.ts";

/**
 * Tells the warnings of a preflight, and puts its failures together with what is wrong with the settings, so
 * that one run names all. Throws `preflight` or `settings`.
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
  const count = failures.length + problems.length;
  throw new OperatorError({
    exit: failures.length > 0 ? "preflight" : "settings",
    what: `${count === 1 ? "One thing is" : `${count} things are`} in the way.`,
    remedy: "Mend what is listed, then run again.",
    problems: [...listed, ...problems],
  });
}

/** What kubo and ipfs-cluster listen on, be they a writer's or a storage node's. */
export const WRITER_PORTS: readonly PortNeed[] = [
  { port: 4001, address: "0.0.0.0", purpose: "kubo's swarm" },
  { port: 5001, address: "127.0.0.1", purpose: "kubo's RPC" },
  { port: 8080, address: "127.0.0.1", purpose: "kubo's HTTP gateway" },
  { port: 9094, address: "127.0.0.1", purpose: "ipfs-cluster's REST API" },
  { port: 9096, address: "0.0.0.0", purpose: "ipfs-cluster's swarm" },
];

/**
 * Runs every preflight check and puts its failures together with what is wrong with the settings, so
 * that one run names all. Warnings are told. Throws `preflight` or `settings`; nothing is changed by then.
 */
export async function checkMaster(options: {
  readonly deps: Pick<JoinDeps, "host" | "reporter" | "version">;
  readonly layout: MasterLayout;
  readonly settings: Settings;
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}): Promise<void> {
  const { deps, layout, settings, ignored, problems } = options;
  const { host } = deps;
  const [installed, ports] = await Promise.all([
    host.files.stat(layout.cliCurrent),
    neededPorts(host, settings),
  ]);
  const found = await runPreflight(
    MASTER_CHECKS,
    host,
    {
      baseDir: layout.baseDir,
      ports,
      minimumFreeBytes: installed === null ? MASTER_MINIMUM_FREE_BYTES : REPAIR_MINIMUM_FREE_BYTES,
      minimumMemoryBytes: MASTER_MINIMUM_MEMORY_BYTES,
      ownership: masterOwnership,
      writerUnits: [NAMES.kuboUnit, NAMES.clusterUnit],
    },
    ignored,
  );
  reportPreflight(deps, found, problems);
}

async function neededPorts(host: HostReader, settings: Settings): Promise<readonly PortNeed[]> {
  const values = (key: string) => settings.get(key)?.value;
  const port = (key: string, purpose: string): PortNeed => ({
    port: Number(values(key)),
    address: "127.0.0.1",
    purpose,
    remedy: `Or choose another: --set ${key}=PORT.`,
  });
  const writerWorks = (await askWriter(host, values)).fault === null;
  return [
    ...(isDatabaseElsewhere(values) ? [] : [port("POSTGRES_PORT", "Postgres")]),
    port("PINNING_API_PORT", "the pinning API"),
    port("WEBUI_PORT", "the storage API"),
    ...(writerWorks ? [] : WRITER_PORTS),
  ];
}

const MASTER_CONTAINERS: ReadonlySet<string> = new Set([
  NAMES.postgres,
  NAMES.pinningApi,
  NAMES.webui,
  NAMES.gateway,
  NAMES.updater,
]);

/** A container of one of our names is for its step to judge, which knows more than that it holds a port. */
function masterOwnership(container: Container): Ownership {
  if (isOurs(container) || MASTER_CONTAINERS.has(container.name)) return "ours";
  return container.name === NAMES.kubo || container.name === NAMES.cluster ? "adopted-writer" : "foreign";
}

const GIB = 1024 ** 3;
/** The room that images and the first blocks need; there is no database. */
const MINIMUM_FREE_BYTES = { baseDir: GIB / 2, dockerRoot: 4 * GIB };
const MINIMUM_MEMORY_BYTES = { required: GIB, recommended: 2 * GIB };
const STORAGE_CONTAINERS: readonly string[] = [
  STORAGE_NAMES.kubo,
  STORAGE_NAMES.cluster,
  STORAGE_NAMES.ingest,
];

/**
 * Runs every preflight check and puts its failures together with what is wrong with the settings, so
 * that one run names all. Warnings are told. Throws `preflight` or `settings`; nothing is changed by then.
 */
export async function checkStorageNode(options: {
  readonly deps: Pick<JoinDeps, "host" | "reporter" | "version">;
  readonly layout: StorageLayout;
  readonly settings: Settings;
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}): Promise<void> {
  const { deps, layout, settings, ignored, problems } = options;
  const { host } = deps;
  const installed = await host.files.stat(layout.cliCurrent);
  const found = await runPreflight(
    MASTER_CHECKS,
    host,
    {
      baseDir: layout.baseDir,
      ports: [...WRITER_PORTS, ingestPort(settings)],
      minimumFreeBytes: installed === null ? MINIMUM_FREE_BYTES : REPAIR_MINIMUM_FREE_BYTES,
      minimumMemoryBytes: MINIMUM_MEMORY_BYTES,
      ownership: storageOwnership,
      writerUnits: [NAMES.kuboUnit, NAMES.clusterUnit],
    },
    ignored,
  );
  reportPreflight(deps, found, problems);
}

function ingestPort(settings: Settings): PortNeed {
  return {
    port: Number(settings.get("INGEST_PORT")?.value ?? "3601"),
    address: settings.get("INGEST_BIND")?.value === "127.0.0.1" ? "127.0.0.1" : "0.0.0.0",
    purpose: "the verified ingest",
    remedy: "Or choose another: --set INGEST_PORT=PORT.",
  };
}

/** A container of one of our names is for its step to judge, which knows more than that it holds a port. */
function storageOwnership(container: Container): Ownership {
  return isOurs(container) || STORAGE_CONTAINERS.includes(container.name) ? "ours" : "foreign";
}
