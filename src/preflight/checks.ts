import type { Check } from "./check.ts";
import { compose, dockerEngine, watchtower } from "./docker.ts";
import { clock, disk, memory, os, root } from "./machine.ts";
import { ports } from "./ports.ts";

/** What is asked of a machine before it becomes a master, in this order. */
export const MASTER_CHECKS: readonly Check[] = [
  root,
  os,
  dockerEngine,
  compose,
  disk,
  memory,
  clock,
  ports,
  watchtower,
];

const GIB = 1024 ** 3;

/** The room that a master needs before anything of it is there; a repair needs far less. */
export const MASTER_MINIMUM_FREE_BYTES = { baseDir: 2 * GIB, dockerRoot: 5 * GIB };

/** The room that mending a master needs: its images and data are there already. */
export const REPAIR_MINIMUM_FREE_BYTES = { baseDir: GIB / 4, dockerRoot: GIB / 4 };

/** The memory that a master needs to run at all, and to run well. */
export const MASTER_MINIMUM_MEMORY_BYTES = { required: GIB, recommended: 2 * GIB };
