import type { Check } from "./check.ts";
import { compose, dockerEngine, firewall, watchtower } from "./docker.ts";
import { clock, disk, memory, node, os, owners, root } from "./machine.ts";
import { containerUser, otherUsers, writerSecrets } from "./passwd.ts";
import { ports } from "./ports.ts";

/** The checks of a machine before it becomes a node, in this order. */
export const MASTER_CHECKS: readonly Check[] = [
  root,
  os,
  containerUser,
  otherUsers,
  writerSecrets,
  dockerEngine,
  compose,
  disk,
  memory,
  clock,
  ports,
  firewall,
  owners,
  node,
  watchtower,
];

const GIB = 1024 ** 3;

/** The free space that a new master needs. A repair needs far less. */
export const MASTER_MINIMUM_FREE_BYTES = { baseDir: 2 * GIB, dockerRoot: 5 * GIB };

/** The free space that a repair needs: images and data already exist. */
export const REPAIR_MINIMUM_FREE_BYTES = { baseDir: GIB / 4, dockerRoot: GIB / 4 };

/** The memory that a master requires, and the memory recommended for it. */
export const MASTER_MINIMUM_MEMORY_BYTES = { required: GIB, recommended: 2 * GIB };
