import { homeOf, PROJECT_LABEL } from "../docker/compose-document.ts";
import type { Container } from "../docker/engine.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { isOurCron } from "../machine/crontab.ts";
import type { Lock, LockHolder } from "../machine/lock.ts";
import { CRON_FILES, isOurs, NAMES, storageLayout } from "../settings/layout.ts";
import { canonicalBaseDir } from "./base-dir.ts";
import { isOfProject, type NodeKind } from "./installed-node.ts";

/** Takes all of these locks, or none of them. */
export async function takeLocks(
  world: { takeLock(name: string, holder: LockHolder): Promise<Lock> },
  names: readonly string[],
  holder: LockHolder,
): Promise<Lock> {
  const taken: Lock[] = [];
  const release = async (): Promise<void> => {
    for (const lock of taken.toReversed()) await lock.release();
  };
  try {
    for (const name of names) taken.push(await world.takeLock(name, holder));
  } catch (thrown) {
    await release();
    throw thrown;
  }
  return { release };
}

/** Another base directory that something of this machine's one node belongs to. */
interface OtherHome {
  readonly home: string;
  /** Containers of the node there. */
  readonly containers: readonly string[];
  /** What says so: a container or a cron file. */
  readonly what: string;
}

/**
 * Throws (`foreign`) if the containers or the cron lines of fula-node on this machine belong to another base directory:
 * all have the same names, so a node here would take over the secrets, the containers and the data of the node there.
 * `containers`: those of this machine, if they are known.
 */
export async function refuseOtherBaseDir(
  host: HostReader,
  kind: NodeKind,
  baseDir: string,
  containers?: readonly Container[],
): Promise<void> {
  const all = containers ?? (await host.docker.containers());
  const ours = all.filter((one) => isOurs(one) && isOfProject(kind, one));
  const other =
    (await homeOfContainers(host, ours, baseDir)) ??
    (kind === "master" ? await homeOfCron(host, baseDir) : null);
  if (other === null) return;
  const { home, what } = other;
  const isThere = (await host.files.stat(storageLayout(home).envFile)) !== null;
  const names = other.containers.join(" ");
  throw new OperatorError({
    exit: "foreign",
    what: `${what} to the node in ${home}, not to ${baseDir}.`,
    why: "A machine can have one node: a second one would take over its containers, secrets and data.",
    remedy: isThere
      ? `Run again with --base-dir ${home}.`
      : `If you moved ${home} to ${baseDir}: docker stop ${names} && docker rm ${names} (volumes stay), then run again. If its files are lost: restore ${home} from your backup.`,
  });
}

/** A writer may be in a directory of its own, and an adopted container is where it was: these do not count. */
async function homeOfContainers(
  host: HostReader,
  ours: readonly Container[],
  baseDir: string,
): Promise<OtherHome | null> {
  const found = await Promise.all(
    ours.map(async (one) => ({ one, home: await otherHomeOf(host, one, baseDir) })),
  );
  const first = found.find(
    ({ one, home }) => home !== null && one.labels[PROJECT_LABEL] !== NAMES.writerProject,
  );
  if (first === undefined || first.home === null) return null;
  const { home } = first;
  const there = (at: string | null) => at === home || at?.startsWith(`${home}/`) === true;
  const containers = found.flatMap((each) => (there(each.home) ? [each.one.name] : []));
  const [verb, noun] = containers.length === 1 ? ["belongs", "container"] : ["belong", "containers"];
  return { home, containers, what: `The ${noun} ${containers.join(", ")} ${verb}` };
}

async function otherHomeOf(host: HostReader, one: Container, baseDir: string): Promise<string | null> {
  const home = homeOf(one);
  if (home === undefined) return null;
  const at = (await canonicalBaseDir(host, home)) ?? home;
  return at === baseDir ? null : at;
}

/** A cron line that still starts the program of another base directory. After a move it starts nothing. */
async function homeOfCron(host: HostReader, baseDir: string): Promise<OtherHome | null> {
  for (const path of Object.values(CRON_FILES)) {
    const text = (await host.files.readText(path)) ?? "";
    const [, program] = / (\/\S+)\/cli\/current\/bin\/fula-node\.js /.exec(text) ?? [];
    if (!isOurCron(text) || program === undefined) continue;
    const home = (await canonicalBaseDir(host, program)) ?? program;
    const isThere = (await host.files.stat(storageLayout(home).envFile)) !== null;
    if (home !== baseDir && isThere) return { home, containers: [], what: `The cron file ${path} belongs` };
  }
  return null;
}
