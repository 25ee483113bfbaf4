import type { DockerReader } from "../docker/engine.ts";
import { readPostgresImage } from "../docker/postgres-image.ts";
import { DATA_PATH } from "../docker/postgres-volume.ts";
import { OperatorError } from "../errors.ts";
import { NAMES } from "../settings/layout.ts";

/** An image with the server and the programs of one major. */
interface DumpImage {
  /** Its id, so that a tag that moves meanwhile changes nothing. */
  readonly id: string;
  /** As people know it. */
  readonly name: string;
  readonly dataPath: string;
}

/** Tags that may name a Postgres. What it is, its environment says. */
const POSTGRES_TAG = /postg|pgvector|timescale|supabase|spilo/i;

/**
 * An image of the server's own major on this machine: that of our own container first, then POSTGRES_IMAGE, then any other. A dump
 * must come from a pg_dump that is not older than the server, and a restore is proven only with the server's own major. A newer
 * pg_restore sends settings that an older server refuses, so both programs are asked too: `readClient` gives their major. Throws
 * (`preflight`) if there is none.
 */
export async function findDumpImage(
  docker: Pick<DockerReader, "container" | "image" | "listImages">,
  serverVersion: string,
  configured: string | undefined,
  readClient: (imageId: string) => Promise<string | null>,
): Promise<DumpImage> {
  const major = String(Number.parseInt(serverVersion, 10));
  const own = await docker.container(NAMES.postgres);
  const tags = (await docker.listImages()).flatMap((one) => one.tags.filter((tag) => POSTGRES_TAG.test(tag)));
  const candidates = [
    ...(own === null ? [] : [{ reference: own.imageId, name: own.image }]),
    ...[configured ?? [], tags].flat().map((tag) => ({ reference: tag, name: tag })),
  ];
  const others = new Set<string>();
  const asked = new Set<string>();
  for (const { reference, name } of candidates) {
    const image = await docker.image(reference);
    if (image === null) continue;
    const known = readPostgresImage({ env: image.env, osRelease: null });
    if (known.major === null || asked.has(image.id)) continue;
    asked.add(image.id);
    if (known.major !== major) {
      others.add(`${name} (Postgres ${known.major})`);
      continue;
    }
    const client = await readClient(image.id);
    if (client === major) return { id: image.id, name, dataPath: known.dataPath ?? DATA_PATH };
    others.add(
      `${name} (Postgres ${known.major}, ${client === null ? "without pg_dump and pg_restore" : `but its pg_dump and pg_restore are ${client}`})`,
    );
  }
  throw new OperatorError({
    exit: "preflight",
    what: `There is no image of Postgres ${major} with its own programs on this machine.`,
    why: `The database runs on Postgres ${serverVersion.split(" ", 1)[0] ?? major}, and its dump is made and restored with programs of the same major.${others.size === 0 ? "" : ` Here is only ${[...others].join(", ")}.`}`,
    remedy: `docker pull postgres:${major}-alpine`,
  });
}
