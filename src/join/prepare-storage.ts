import { WRITER_SCRIPTS } from "../docker/compose-document.ts";
import type { Project } from "../docker/compose-project.ts";
import { renderStorage, STORAGE_FRAGMENTS, supportsStartInterval } from "../docker/compose-render.ts";
import { isAdopted, type KeptService } from "../docker/kept-service.ts";
import type { AnyStep } from "../engine/step.ts";
import type { StorageContext } from "../federation/storage-context.ts";
import type { HostReader } from "../host.ts";
import { isOurs, STORAGE_NAMES, type StorageLayout } from "../settings/layout.ts";
import { STORAGE_RECOVERABLE, withClusterSecret } from "../settings/secrets.ts";
import type { Settings } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import { storageSteps } from "../steps/storage-node.ts";
import { ADOPTIONS, filesOfKept, findKept } from "./adopted-services.ts";
import type { JoinDeps } from "./join-run.ts";
import { readFragments, readShipped } from "./prepare-master.ts";

const VOLUMES = { "kubo-data": STORAGE_NAMES.kuboVolume, "cluster-data": STORAGE_NAMES.clusterVolume };

/** If a list stops arriving for this long, it is requested again or given up, since the operator waits for it. */
const LISTING_TIMEOUT_MS = 60_000;

type RenderDeps = Pick<JoinDeps, "host" | "version" | "packageDir" | "hash">;

/** Builds the steps of a storage node from its settings. Reads from the machine, and changes nothing. */
export async function prepareStorageNode(
  deps: RenderDeps & Pick<JoinDeps, "reporter" | "openCluster" | "openNodesClient">,
  desired: {
    readonly layout: StorageLayout;
    readonly settings: Settings;
    readonly imagesArchive: string | null;
    readonly register: boolean;
    /** The steps that the operator adopts. */
    readonly adopt?: readonly string[];
  },
): Promise<readonly AnyStep[]> {
  const { version, packageDir, hash, reporter, host } = deps;
  const { layout, imagesArchive, register, adopt = [], settings } = desired;
  const kept = await findKept(host, { adoption: ADOPTIONS.storage, layout, adopt: new Set(adopt), settings });
  const context: StorageContext = {
    layout,
    imagesArchive,
    // An adopted ipfs-cluster has the password that it has, or none.
    specs: isAdopted(kept.get("ipfs-cluster"))
      ? STORAGE_SETTINGS.map(({ generated, ...spec }) =>
          spec.key === AUTH || generated === undefined ? spec : { ...spec, generated },
        )
      : STORAGE_SETTINGS,
    recoverable: STORAGE_RECOVERABLE,
    settings: withClusterSecret(desired.settings, hash),
    version,
    packageDir,
    hash,
    openCluster: (target) => deps.openCluster({ ...target, listingTimeoutMs: LISTING_TIMEOUT_MS }),
    naming: register ? (url, ca) => deps.openNodesClient(url, ca) : null,
    report: {
      progress: (line, leftMs) => reporter.progress(line, leftMs),
      note: (line) => reporter.note(line),
      warning: (text) => reporter.listen({ type: "warning", text }),
    },
  };
  return storageSteps(context, await renderProject(deps, layout, kept));
}

const AUTH = "CLUSTER_BASIC_AUTH";

async function renderProject(
  deps: RenderDeps,
  layout: StorageLayout,
  kept: ReadonlyMap<string, KeptService>,
): Promise<Project> {
  const { host, packageDir, version, hash } = deps;
  const [engine, fragments, kubo, cluster, external] = await Promise.all([
    host.docker.version(),
    readFragments(host, packageDir, STORAGE_FRAGMENTS),
    readShipped(host, packageDir, WRITER_SCRIPTS.kubo),
    readShipped(host, packageDir, WRITER_SCRIPTS["ipfs-cluster"]),
    findExternalVolumes(host),
  ]);
  const scripts = { kubo, "ipfs-cluster": cluster };
  const adopted = [...kept].filter(([, one]) => isAdopted(one));
  const startInterval = supportsStartInterval(engine?.apiVersion ?? null);
  return {
    ...renderStorage(fragments, { version, hash, startInterval, scripts, external, kept: new Map(adopted) }),
    name: STORAGE_NAMES.project,
    directory: layout.baseDir,
    file: layout.composeFile,
    scripts: [
      { path: `${layout.baseDir}/${WRITER_SCRIPTS.kubo}`, text: kubo },
      { path: `${layout.baseDir}/${WRITER_SCRIPTS["ipfs-cluster"]}`, text: cluster },
      ...filesOfKept(adopted.map(([, service]) => service)),
    ],
    kept,
  };
}

/** Finds volumes without our label. fula-node did not create them, so Compose must neither create nor relabel them. */
async function findExternalVolumes(host: HostReader): Promise<Readonly<Record<string, string>>> {
  const found = await Promise.all(
    Object.entries(VOLUMES).map(async ([key, name]) => [key, await host.docker.volume(name)] as const),
  );
  return Object.fromEntries(
    found.flatMap(([key, volume]) => (volume === null || isOurs(volume) ? [] : [[key, volume.name]])),
  );
}
