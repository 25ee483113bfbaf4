import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { type MasterContext, readValues } from "../settings/context.ts";
import { isOurs, NAMES } from "../settings/layout.ts";
import { isDatabaseElsewhere, postgresTarget } from "../settings/postgres-target.ts";
import {
  type DataFacts,
  findImageConflict,
  guessPostgresImage,
  holdsNothing,
  libcOfServer,
  type PostgresImage,
  readPostgresImage,
} from "./postgres-image.ts";

/** Where our compose file mounts the database's volume. */
export const DATA_PATH = "/var/lib/postgresql/data";

/** A volume as the engine reports it. */
export type Volume = NonNullable<Awaited<ReturnType<HostReader["docker"]["volume"]>>>;

/** The names that initdb and the server make in a data directory (PostgreSQL manual, 73.1 Database File Layout). */
const OF_INITDB =
  /^(?:PG_VERSION|base|global|pg_[a-z_]+(?:\.conf)?|postgresql(?:\.auto)?\.conf|postmaster\.(?:opts|pid)|current_logfiles)$/;

/** The image that the settings name. */
export function imageOf({ settings }: MasterContext): string {
  return settings.get("POSTGRES_IMAGE")?.value ?? "";
}

/** What is on the volume, without starting anything on it. */
export async function readData(
  host: HostReader,
  context: MasterContext,
  volume: Volume | null,
): Promise<DataFacts> {
  const name = context.postgresVolume;
  if (volume === null) return { volume: name, major: null, libc: null };
  const [version, options, container] = await Promise.all([
    host.files.readText(`${volume.mountpoint}/PG_VERSION`),
    host.files.readText(`${volume.mountpoint}/postmaster.opts`),
    host.docker.container(NAMES.postgres),
  ]);
  const major = version?.trim() ?? null;
  const usesVolume = container?.mounts.some((mount) => mount.name === volume.name) === true;
  const last = usesVolume ? await readLocalImage(host, container.imageId) : null;
  return { volume: name, major: major === "" ? null : major, libc: last?.libc ?? libcOfServer(options) };
}

/** What the image is, or, before it was pulled, what is known of it. */
export async function readImage(host: HostReader, reference: string): Promise<PostgresImage> {
  return (await readLocalImage(host, reference)) ?? guessPostgresImage(reference);
}

/** Reads an image on this machine; null if it is not here. Its files are read where the engine keeps its layers. */
async function readLocalImage(host: HostReader, reference: string): Promise<PostgresImage | null> {
  const image = await host.docker.image(reference);
  if (image === null) return null;
  for (const layer of image.layers) {
    // Not by /etc/os-release, which may be a link that leads out of the layer.
    const osRelease = await host.files.readText(`${layer}/usr/lib/os-release`);
    if (osRelease !== null) return readPostgresImage({ env: image.env, osRelease });
  }
  return readPostgresImage({ env: image.env, osRelease: null });
}

/** The last look before a server starts on the data, with an image that may just have been pulled. */
export async function refuseImage(host: HostReader, context: MasterContext): Promise<void> {
  const reference = imageOf(context);
  const [volume, engine, image] = await Promise.all([
    host.docker.volume(context.postgresVolume),
    host.docker.version(),
    host.docker.image(reference),
  ]);
  const conflict = findImageConflict(
    reference,
    await readImage(host, reference),
    await readData(host, context, volume),
    DATA_PATH,
  );
  const [has, needs] = [image?.architecture ?? "", engine?.architecture ?? ""];
  const isOther = has !== "" && needs !== "" && has !== needs;
  if (conflict === null && !isOther) return;
  throw new OperatorError({
    exit: "foreign",
    what: conflict?.why ?? `The image ${reference} is for ${has}, and this machine is ${needs}.`,
    why: "Postgres was not started with it; the data was not touched.",
    remedy:
      conflict?.remedy ??
      `Remove that image (docker rmi ${reference}), and pull or load the one for ${needs}.`,
  });
}

/**
 * The volume of a first start that was cut short, by a power cut for example: it is ours, no server works on it, and no
 * user can have put anything there. Null for any other.
 */
export async function findUnfinished(
  host: HostReader,
  context: MasterContext,
): Promise<{ readonly volume: string; readonly container: string | null } | null> {
  const values = await readValues(host, context);
  const target = postgresTarget(values);
  if (target === null || isDatabaseElsewhere(values) || target.database === "postgres") return null;
  const [volume, container] = await Promise.all([
    host.docker.volume(context.postgresVolume),
    host.docker.container(NAMES.postgres),
  ]);
  if (volume === null || !isOurs(volume) || (container !== null && !isOurs(container))) return null;
  const isStarting = container?.status === "running" && container.health === "starting";
  if (isStarting && container.restartCount === 0) return null;
  const { files } = host;
  const entries = (await files.list(volume.mountpoint)) ?? [];
  const names = (await files.list(`${volume.mountpoint}/base`)) ?? [];
  // initdb makes its directories first. What it does not make, somebody else put there.
  if (names.length === 0 || !entries.every((entry) => OF_INITDB.test(entry))) return null;
  const databases = new Map<string, readonly string[]>();
  for (const name of names)
    databases.set(name, (await files.list(`${volume.mountpoint}/base/${name}`)) ?? []);
  const tablespaces = (await files.list(`${volume.mountpoint}/pg_tblspc`)) ?? [];
  if (!holdsNothing(databases, tablespaces)) return null;
  if ((await host.postgres.ask(target)).kind === "open") return null;
  return { volume: volume.name, container: container?.name ?? null };
}
