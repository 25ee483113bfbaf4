import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";

/** Marks everything the boxes leave in the outer engine, so that leftovers of a crashed run are found again. */
const LABEL = "land.fx.fula-node.box=1";
const SEED = "fula-node-box-seed";

/** What boxes.test files may ask for: `plain` has neither Docker nor cron, `docker` has both. */
export type BoxImage = "plain" | "docker";

export interface BoxSpec {
  readonly container: string;
  readonly hostname: string;
  readonly image: BoxImage;
  readonly network?: string | undefined;
}

/** Runs the outer engine's client; throws with its whole stderr when it fails. */
export async function docker(...args: string[]): Promise<string> {
  const { stdout } = await execa("docker", args, { stdin: "ignore" });
  return stdout;
}

/**
 * Tells why boxes cannot run here, or undefined when they can.
 * Throws that reason when CI is set: there it is a failure, elsewhere the tests skip.
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
  // Everything but what reaches past the box: the host's limits, its clock and its kernel modules.
  "--cap-add=ALL",
  "--cap-drop=SYS_RESOURCE",
  "--cap-drop=SYS_TIME",
  "--cap-drop=SYS_MODULE",
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

/** Creates and starts a box's container over the volume that `createVolume` made for it. */
export async function createContainer({ container, hostname, image, network }: BoxSpec): Promise<void> {
  const attachment = network === undefined ? [] : [`--network=${network}`, `--network-alias=${hostname}`];
  const identity = [`--name=${container}`, `--hostname=${hostname}`, `--label=${LABEL}`];
  const volume = `--volume=${volumeOf(container)}:/var/lib/docker`;
  await docker("run", "--detach", ...identity, ...RUN_FLAGS, volume, ...attachment, `fula-node-box:${image}`);
}

/** Makes the volume that a box's own engine keeps its data on. */
export async function createVolume(container: string, content: "fresh" | "seeded"): Promise<void> {
  await docker("volume", "create", "--label", LABEL, volumeOf(container));
  if (content === "fresh") return;
  const [from, to] = await Promise.all([mountpointOf(SEED), mountpointOf(volumeOf(container))]);
  // Image layers are only ever read, so links do; all else is the engine's own state. Two boxes must not share one id.
  const state = (await readdir(from)).filter((entry) => entry !== "overlay2" && entry !== "engine-id");
  await execa("cp", ["-al", join(from, "overlay2"), to]);
  await execa("cp", ["-a", ...state.map((entry) => join(from, entry)), to]);
}

/** Removes a box's container, running or not, and its volumes. */
export async function removeContainer(container: string): Promise<void> {
  await docker("rm", "--force", "--volumes", container);
  await docker("volume", "rm", "--force", volumeOf(container));
}

/** Makes a network of boxes, where each box has its name as an alias. */
export async function createNetwork(name: string): Promise<void> {
  await docker("network", "create", "--label", LABEL, name);
}

/** Removes every box, volume and network that any run left in the outer engine. */
export async function removeEverything(): Promise<void> {
  const filter = ["--quiet", "--filter", `label=${LABEL}`];
  await removeAll(await docker("ps", "--all", ...filter), "rm", "--force", "--volumes");
  await removeAll(await docker("volume", "ls", ...filter), "volume", "rm", "--force");
  await removeAll(await docker("network", "ls", ...filter), "network", "rm");
}

async function removeAll(listed: string, ...command: string[]): Promise<void> {
  const ids = listed.split("\n").filter(Boolean);
  if (ids.length > 0) await docker(...command, ...ids);
}

async function mountpointOf(volume: string): Promise<string> {
  return docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume);
}

function volumeOf(container: string): string {
  return `${container}-docker`;
}
