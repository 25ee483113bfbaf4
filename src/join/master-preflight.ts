import type { Container } from "../docker/engine.ts";
import type { Problem } from "../errors.ts";
import { type Ownership, type PortNeed, runPreflight } from "../preflight/check.ts";
import {
  MASTER_CHECKS,
  MASTER_MINIMUM_FREE_BYTES,
  MASTER_MINIMUM_MEMORY_BYTES,
  REPAIR_MINIMUM_FREE_BYTES,
} from "../preflight/master.ts";
import { isOurs, type MasterLayout, NAMES } from "../settings/master-layout.ts";
import { isDatabaseElsewhere } from "../settings/master.ts";
import type { Settings } from "../settings/settings.ts";
import { askWriter } from "../steps/master/writer-answer.ts";
import type { World } from "../world.ts";
import { reportPreflight } from "./preflight-report.ts";

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
  readonly world: World;
  readonly layout: MasterLayout;
  readonly settings: Settings;
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}): Promise<void> {
  const { world, layout, settings, ignored, problems } = options;
  const { host } = world;
  const [installed, ports] = await Promise.all([
    host.files.stat(layout.cliCurrent),
    neededPorts(world, settings),
  ]);
  const found = await runPreflight(
    MASTER_CHECKS,
    host,
    {
      baseDir: layout.baseDir,
      ports,
      minimumFreeBytes: installed === null ? MASTER_MINIMUM_FREE_BYTES : REPAIR_MINIMUM_FREE_BYTES,
      minimumMemoryBytes: MASTER_MINIMUM_MEMORY_BYTES,
      ownership,
      writerUnits: [NAMES.kuboUnit, NAMES.clusterUnit],
    },
    ignored,
  );
  reportPreflight(world, found, problems);
}

async function neededPorts({ host }: World, settings: Settings): Promise<readonly PortNeed[]> {
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

const OWN_NAMES: ReadonlySet<string> = new Set([
  NAMES.postgres,
  NAMES.pinningApi,
  NAMES.webui,
  NAMES.gateway,
  NAMES.updater,
]);

/** A container of one of our names is for its step to judge, which knows more than that it holds a port. */
function ownership(container: Container): Ownership {
  if (isOurs(container) || OWN_NAMES.has(container.name)) return "ours";
  return container.name === NAMES.kubo || container.name === NAMES.cluster ? "adopted-writer" : "foreign";
}
