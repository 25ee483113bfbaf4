import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Where the test bed is: test/images/lib/progress.sh and engine.sh say the same. */
const CACHE = process.env["FULA_NODE_TEST_CACHE"] ?? "/var/cache/fula-node-test";
const ENGINE = join(CACHE, "engine");

/** What the test bed keeps by what it is made from. */
export const BED_STORE = join(CACHE, "store");

/** The Go programs of the test images, for tests that run them without a container. */
export const BED_PROGRAMS = join(ENGINE, "programs");

/** The test bed's own Docker client: it talks to the test bed's engine whoever calls it. */
export const BED_DOCKER = join(ENGINE, "bin", "docker");

/**
 * What a process needs to work with the test bed's engine, and with its clients, instead of the machine's own: empty
 * where test/images/up never ran.
 */
export function bedEnvironment(): Readonly<Record<string, string>> {
  if (!existsSync(BED_DOCKER)) return {};
  return {
    DOCKER_HOST: `unix://${join(ENGINE, "docker.sock")}`,
    DOCKER_CONFIG: join(ENGINE, "client"),
    PATH: `${join(ENGINE, "bin")}:${process.env["PATH"] ?? ""}`,
  };
}

/** This machine's address on the link to the test bed's engine: containers there reach it by that one. */
export function machineAddress(): string {
  return `${readFileSync(join(ENGINE, "net"), "utf8").trim()}.250.1`;
}
