import type { Container } from "../docker/engine.ts";
import type { Problem } from "../errors.ts";
import { type Ownership, type PortNeed, runPreflight } from "../preflight/check.ts";
import { MASTER_CHECKS, REPAIR_MINIMUM_FREE_BYTES } from "../preflight/master.ts";
import { isOurs, NAMES, STORAGE_NAMES, type StorageLayout } from "../settings/master-layout.ts";
import type { Settings } from "../settings/settings.ts";
import type { World } from "../world.ts";
import { WRITER_PORTS } from "./master-preflight.ts";
import { reportPreflight } from "./preflight-report.ts";

const GIB = 1024 ** 3;
/** The room that images and the first blocks need; there is no database. */
const MINIMUM_FREE_BYTES = { baseDir: GIB / 2, dockerRoot: 4 * GIB };
const MINIMUM_MEMORY_BYTES = { required: GIB, recommended: 2 * GIB };
const OWN_NAMES: readonly string[] = [STORAGE_NAMES.kubo, STORAGE_NAMES.cluster, STORAGE_NAMES.ingest];

/**
 * Runs every preflight check and puts its failures together with what is wrong with the settings, so
 * that one run names all. Warnings are told. Throws `preflight` or `settings`; nothing is changed by then.
 */
export async function checkStorageNode(options: {
  readonly world: World;
  readonly layout: StorageLayout;
  readonly settings: Settings;
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}): Promise<void> {
  const { world, layout, settings, ignored, problems } = options;
  const { host } = world;
  const installed = await host.files.stat(layout.cliCurrent);
  const found = await runPreflight(
    MASTER_CHECKS,
    host,
    {
      baseDir: layout.baseDir,
      ports: [...WRITER_PORTS, ingestPort(settings)],
      minimumFreeBytes: installed === null ? MINIMUM_FREE_BYTES : REPAIR_MINIMUM_FREE_BYTES,
      minimumMemoryBytes: MINIMUM_MEMORY_BYTES,
      ownership,
      writerUnits: [NAMES.kuboUnit, NAMES.clusterUnit],
    },
    ignored,
  );
  reportPreflight(world, found, problems);
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
function ownership(container: Container): Ownership {
  return isOurs(container) || OWN_NAMES.includes(container.name) ? "ours" : "foreign";
}
