import { NAMES } from "../../src/settings/layout.ts";
import type { FakeHost } from "./fake-host.ts";

/** The names of a writer's two containers. */
export const BOTH = [NAMES.kubo, NAMES.cluster];

/** The parts of a writer that fula-node did not create. */
export interface Theirs {
  readonly containers?: readonly string[];
  readonly units?: readonly string[];
  readonly active?: boolean;
  readonly stopped?: readonly string[];
}

/** Adds a writer that fula-node did not create, with upstream's image tags and data paths. */
export function putTheirs(
  host: FakeHost,
  { containers = BOTH, units = [], active = true, stopped = [] }: Theirs,
): void {
  for (const name of containers) {
    const image = name === NAMES.kubo ? "ipfs/kubo:release" : "ipfs/ipfs-cluster:stable";
    const source = name === NAMES.kubo ? "/uniondrive/ipfs_datastore" : "/uniondrive/ipfs-cluster";
    host.docker.putContainer(name, {
      image,
      mounts: [{ type: "bind", name: "", source, destination: "/data" }],
      status: stopped.includes(name) ? "exited" : "running",
    });
  }
  for (const name of units) host.system.putUnit(name, { active, execStart: `docker run --name ${name}` });
}
