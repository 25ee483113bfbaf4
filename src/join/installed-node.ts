import { MASTER_BASE_DIR, STORAGE_BASE_DIR, STORAGE_NAMES } from "../settings/master-layout.ts";
import type { World } from "../world.ts";

/** Which kind of node was installed where. */
export interface InstalledNode {
  readonly kind: "master" | "storage-node";
  readonly baseDir: string;
}

const PROJECT_LINE = new RegExp(`^name: ${STORAGE_NAMES.project}$`, "m");

/**
 * Tells what kind of node this box is: by the base directory where one is given, else by where settings or a
 * compose file lie, else by containers. A box that is neither is taken for a master to be.
 */
export async function findInstalledNode(world: World, baseDir: string | undefined): Promise<InstalledNode> {
  if (baseDir !== undefined) return { kind: await kindAt(world, baseDir), baseDir };
  if (await isInstalled(world, MASTER_BASE_DIR)) return { kind: "master", baseDir: MASTER_BASE_DIR };
  const isStorage = (await isInstalled(world, STORAGE_BASE_DIR)) || (await hasStorageContainer(world));
  return isStorage
    ? { kind: "storage-node", baseDir: STORAGE_BASE_DIR }
    : { kind: "master", baseDir: MASTER_BASE_DIR };
}

async function kindAt({ host }: World, baseDir: string): Promise<InstalledNode["kind"]> {
  const compose = await host.files.readText(`${baseDir}/docker-compose.yml`);
  const isStorage = compose === null ? baseDir === STORAGE_BASE_DIR : PROJECT_LINE.test(compose);
  return isStorage ? "storage-node" : "master";
}

async function isInstalled({ host }: World, baseDir: string): Promise<boolean> {
  const found = await Promise.all(
    [".env", "docker-compose.yml"].map((name) => host.files.stat(`${baseDir}/${name}`)),
  );
  return found.some((stat) => stat !== null);
}

async function hasStorageContainer({ host }: World): Promise<boolean> {
  const containers = await host.docker.containers();
  return containers.some(({ labels }) => labels["com.docker.compose.project"] === STORAGE_NAMES.project);
}
