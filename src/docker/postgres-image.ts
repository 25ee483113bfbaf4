/** The C library of a server: collations of glibc and of musl sort differently. */
export type Libc = "glibc" | "musl";

/** What is known about an image of Postgres before anything of it runs. Null: unknown. */
export interface PostgresImage {
  readonly major: string | null;
  readonly libc: Libc | null;
  /** Where its server keeps the data (PGDATA). */
  readonly dataPath: string | null;
}

/** Evidence from one image. */
export interface ImageEvidence {
  readonly env: Readonly<Record<string, string>>;
  /** Its /etc/os-release; null if it can't be read from here. */
  readonly osRelease: string | null;
}

/**
 * Reads what an image is from its own environment and files, never from its tag: `timescaledb:2.17.2-pg16` is a
 * Postgres 16. docker-library's Dockerfiles set PG_MAJOR and PGDATA, and images that build on them inherit both.
 */
export function readPostgresImage({ env, osRelease }: ImageEvidence): PostgresImage {
  const major = /^\d+/.exec(env["PG_MAJOR"] ?? env["PG_VERSION"] ?? "")?.[0] ?? null;
  return { major, libc: libcOf(osRelease) ?? libcOfEnv(env), dataPath: env["PGDATA"] ?? null };
}

/**
 * An image that is not on this machine yet: only the official repository's tags are known to begin with the major, and
 * to say `alpine` for musl. Any other image is known once it was pulled.
 */
export function guessPostgresImage(reference: string): PostgresImage {
  const [, tag = ""] = /^(?:docker\.io\/)?(?:library\/)?postgres:([^@]+)$/.exec(reference) ?? [];
  const major = /^(\d+)(?:[.-]|$)/.exec(tag)?.[1] ?? null;
  if (major === null) return { major, libc: null, dataPath: null };
  return { major, libc: tag.includes("alpine") ? "musl" : "glibc", dataPath: null };
}

const GLIBC = /^(?:debian|ubuntu|rhel|centos|fedora|rocky|almalinux|ol|amzn|photon|sles|opensuse.*)$/;

function libcOf(osRelease: string | null): Libc | null {
  const id = /^ID="?([a-z0-9._-]+)"?$/m.exec(osRelease ?? "")?.[1];
  if (id === undefined) return null;
  if (id === "alpine") return "musl";
  return GLIBC.test(id) ? "glibc" : null;
}

/** Debian's packages have a version such as 16.4-1.pgdg120+2; only the Alpine variant builds LLVM's parts itself. */
function libcOfEnv(env: ImageEvidence["env"]): Libc | null {
  if (/pgdg/.test(env["PG_VERSION"] ?? "")) return "glibc";
  return env["DOCKER_PG_LLVM_DEPS"] === undefined ? null : "musl";
}

/**
 * Which server last ran on a data directory, from its postmaster.opts, which each start writes: Debian's packages lie in
 * /usr/lib/postgresql, the official Alpine variant in /usr/local/bin.
 */
export function libcOfServer(postmasterOpts: string | null): Libc | null {
  const program = postmasterOpts?.split(/\s/, 1)[0] ?? "";
  if (/^\/usr\/lib\/postgresql\/\d+\/bin\/postgres$/.test(program)) return "glibc";
  return program === "/usr/local/bin/postgres" ? "musl" : null;
}

/** What is on a volume. */
export interface DataFacts {
  readonly volume: string;
  /** From PG_VERSION; null if there is none. */
  readonly major: string | null;
  readonly libc: Libc | null;
}

/** Why an image must not start on this data, and what to do; null if nothing speaks against it. */
export function findImageConflict(
  reference: string,
  image: PostgresImage,
  data: DataFacts,
  dataPath: string,
): { readonly why: string; readonly remedy: string } | null {
  const { volume } = data;
  if (image.dataPath !== null && image.dataPath !== dataPath && !image.dataPath.startsWith(`${dataPath}/`)) {
    return {
      why: `The image ${reference} keeps its data in ${image.dataPath}, but the volume ${volume} is mounted at ${dataPath}.`,
      remedy: `Set POSTGRES_IMAGE to an image whose PGDATA is ${dataPath}, such as postgres:16-alpine.`,
    };
  }
  if (data.major === null) return null;
  if (image.major !== null && image.major !== data.major) {
    return {
      why: `Postgres ${data.major} created the volume ${volume}, but the image is ${reference}${isNamed(reference, image.major) ? "" : `, a Postgres ${image.major}`}.`,
      remedy: `Set POSTGRES_IMAGE to an image of Postgres ${data.major}, or move the data with dump and restore.`,
    };
  }
  if (image.libc === null || data.libc === null || image.libc === data.libc) return null;
  return {
    why: `A server with ${data.libc} (${DISTRIBUTIONS[data.libc]}) last ran on the volume ${volume}, and the image ${reference} has ${image.libc} (${DISTRIBUTIONS[image.libc]}). They sort text differently, so its indexes would be wrong.`,
    remedy: `Set POSTGRES_IMAGE to an image with ${data.libc}. To move to ${image.libc}, see docs/troubleshooting.md#collation: it needs REINDEX.`,
  };
}

function isNamed(reference: string, major: string): boolean {
  return new RegExp(`:${major}\\b`).test(reference);
}

const DISTRIBUTIONS: Readonly<Record<Libc, string>> = {
  glibc: "Debian and others",
  musl: "Alpine and others",
};

/** The first number that PostgreSQL gives to objects of users (its transam.h, FirstNormalObjectId). */
const FIRST_USER_OBJECT = 16_384;

/**
 * True if nobody can have put anything into this data directory: no database, table or index of a user has a file, and
 * there is no tablespace. `databases` are the names in base/ with the names of their files. The official image creates
 * POSTGRES_DB right after initdb, so a data directory like this is one whose first start was cut short.
 */
export function holdsNothing(
  databases: ReadonlyMap<string, readonly string[]>,
  tablespaces: readonly string[],
): boolean {
  const isOfUser = (name: string): boolean => Number.parseInt(name, 10) >= FIRST_USER_OBJECT;
  const names = [...databases].flatMap(([name, files]) => [name, ...files]);
  return tablespaces.length === 0 && !names.some(isOfUser);
}
