import { existsSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { createDisk, mountsOf, removeDisk } from "./box-disk.ts";

/** Labels of everything that belongs to a box in the outer engine. The second says which process created it. */
const LABEL = "fula-node-box";
const OWNER = "fula-node-box.pid";
/** The owner of boxes that stay after the process that created them has ended. */
const NOBODY = "nobody";
const SEED = "fula-node-box-seed";

/** `plain` has neither Docker nor cron, `docker` has both; `debian12` is like `plain`, and only test:fresh builds it. */
export type BoxImage = "plain" | "docker" | "debian12";

export interface BoxSpec {
  readonly container: string;
  readonly hostname: string;
  readonly image: BoxImage;
  /** The files of a box that was saved, instead of the image's. */
  readonly from?: Checkpoint | undefined;
  readonly network?: string | undefined;
  /** The mount point of the box's volume; null if the volume is a disk that can lose power. */
  readonly disk: string | null;
  /** True if it stays after this process has ended. */
  readonly kept: boolean;
}

/** The state of a box that was shut down, from which others are made. The box must stay as it is. */
export interface Checkpoint {
  /** The name of the saved box's container, of its image, and of the tag. */
  readonly container: string;
  readonly hostname: string;
  readonly image: BoxImage;
}

/** Runs the outer engine's client. Throws with its whole stderr if it fails. */
export async function docker(...args: string[]): Promise<string> {
  const { stdout } = await execa("docker", args, { stdin: "ignore" });
  return stdout;
}

/**
 * The reason why boxes can't run here; undefined if they can.
 * Throws that reason if CI is set: there it is a failure, elsewhere the tests are skipped.
 */
export async function requireBoxes(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<string | undefined> {
  const reason = await whyNoBoxes();
  if (reason !== undefined && environment["CI"]) throw new Error(`boxes cannot run here: ${reason}`);
  return reason;
}

async function whyNoBoxes(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "root is needed";
  const engine = await execa("docker", ["version"], { reject: false });
  if (engine.failed) return "no Docker engine answers; test/images/up starts one";
  const ready = await execa("docker", ["volume", "inspect", SEED], { reject: false });
  return ready.failed ? "the images are not made yet; run test/images/up" : undefined;
}

const RUN_FLAGS = [
  // The capabilities of the test bed's engine: test/images/lib/engine.sh says which ones it lacks.
  "--cap-add=ALL",
  "--security-opt=seccomp=unconfined",
  "--security-opt=apparmor=unconfined",
  "--security-opt=systempaths=unconfined",
  "--device-cgroup-rule=a *:* rwm",
  "--tmpfs=/run",
  "--tmpfs=/run/lock",
  "--cgroupns=host",
  "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
  "--env=container=docker",
];

/** Creates and starts a box's container with the volume that `createVolume` made for it. */
export async function createContainer({
  container,
  hostname,
  image,
  from,
  network,
  disk,
  kept,
}: BoxSpec): Promise<void> {
  const attachment = network === undefined ? [] : [`--network=${network}`, `--network-alias=${hostname}`];
  const identity = [`--name=${container}`, `--hostname=${hostname}`, ...labels(kept)];
  const name = volumeOf(container);
  const volume = disk === null ? mountsOf(name) : [`--volume=${name}:${disk}`];
  const tag = `fula-node-box:${from === undefined ? image : from.container}`;
  await docker("run", "--detach", ...identity, ...RUN_FLAGS, ...volume, ...attachment, tag);
}

/** Saves the files of a box that was shut down as an image. */
export async function saveImage({ container }: Checkpoint): Promise<void> {
  await docker("commit", container, `fula-node-box:${container}`);
}

/** Creates the volume of a box: a real disk, which the engine in the box needs for its data. */
export async function createVolume(
  container: string,
  kept: boolean,
  content: "fresh" | "seeded" | Checkpoint,
): Promise<void> {
  await docker("volume", "create", ...labels(kept), volumeOf(container));
  if (content === "fresh") return;
  const source = content === "seeded" ? SEED : volumeOf(content.container);
  const [from, to] = await Promise.all([mountpointOf(source), mountpointOf(volumeOf(container))]);
  // Image layers are only read, so hard links are enough. Everything else is the engine's own state. Two boxes must not share one id.
  const state = (await readdir(from)).filter((entry) => entry !== "overlay2" && entry !== "engine-id");
  await execa("cp", ["-al", join(from, "overlay2"), to]);
  await execa("cp", ["-a", ...state.map((entry) => join(from, entry)), to]);
  for (const layer of await writtenLayers(from)) {
    await rm(join(to, "overlay2", layer), { recursive: true });
    await execa("cp", ["-a", join(from, "overlay2", layer), join(to, "overlay2")]);
  }
}

/** The layers of containers: they are written to, so no other box may have the same files. */
async function writtenLayers(disk: string): Promise<readonly string[]> {
  const mounts = join(disk, "image/overlay2/layerdb/mounts");
  const containers = existsSync(mounts) ? await readdir(mounts) : [];
  const names = await Promise.all(
    containers.flatMap((one) =>
      ["mount-id", "init-id"].map((file) => readFile(join(mounts, one, file), "utf8")),
    ),
  );
  return names.filter((name) => existsSync(join(disk, "overlay2", name)));
}

/** Creates the volume of a box that can lose power. */
export async function createDiskVolume(container: string, content: "fresh" | "seeded"): Promise<void> {
  const name = volumeOf(container);
  const options = await createDisk(name, content === "fresh" ? null : await mountpointOf(SEED));
  await docker("volume", "create", ...labels(false), ...options, name);
}

/** Removes a box's container, running or not, its volumes, and the image that was saved of it. It is no error if they are gone already. */
export async function removeContainer(container: string): Promise<void> {
  await remove("rm", "--force", "--volumes", container);
  await remove("image", "rm", "--force", `fula-node-box:${container}`);
  await removeVolume(volumeOf(container));
}

async function removeVolume(name: string): Promise<void> {
  await remove("volume", "rm", "--force", name);
  await removeDisk(name);
}

/** Creates a network of boxes on which each box has its name as an alias. */
export async function createNetwork(name: string): Promise<void> {
  await docker("network", "create", ...labels(false), name);
}

/** Removes a network without boxes. */
export async function removeNetwork(name: string): Promise<void> {
  await remove("network", "rm", name);
}

/** Removes the boxes, volumes and networks of this process and of dead ones, never those of another live run. */
export async function removeLeftovers(): Promise<void> {
  const containers = await leftovers("{{.Names}}", "ps", "--all");
  for (const container of containers) await remove("rm", "--force", "--volumes", container);
  for (const container of containers) await remove("image", "rm", "--force", `fula-node-box:${container}`);
  for (const volume of await leftovers("{{.Name}}", "volume", "ls")) await removeVolume(volume);
  for (const network of await leftovers("{{.Name}}", "network", "ls"))
    if (!(await hasBoxes(network))) await removeNetwork(network);
}

/** True if boxes are on a network: those that stay outlive the process that made their network. */
async function hasBoxes(network: string): Promise<boolean> {
  const { stdout } = await execa("docker", ["ps", "--all", "--quiet", `--filter=network=${network}`]);
  return stdout !== "";
}

function labels(kept: boolean): readonly string[] {
  return [`--label=${LABEL}=1`, `--label=${OWNER}=${kept ? NOBODY : process.pid}`];
}

async function leftovers(name: string, ...list: string[]): Promise<string[]> {
  const listed = await docker(...list, `--filter=label=${LABEL}=1`, `--format={{.Label "${OWNER}"}} ${name}`);
  const owned = listed.split("\n").map((line) => line.split(" "));
  return owned.flatMap(([owner, thing]) =>
    thing === undefined || owner === NOBODY || isAnotherLiveProcess(Number(owner)) ? [] : [thing],
  );
}

function isAnotherLiveProcess(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function remove(...command: string[]): Promise<void> {
  const { failed, stderr, message } = await execa("docker", command, { reject: false });
  if (failed && !/no such/i.test(stderr) && !/not found/i.test(stderr)) throw new Error(message);
}

/** The path of the files of a box's volume on this machine. */
export async function diskOf(container: string): Promise<string> {
  return await mountpointOf(volumeOf(container));
}

async function mountpointOf(volume: string): Promise<string> {
  return docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume);
}

function volumeOf(container: string): string {
  return `${container}-docker`;
}
