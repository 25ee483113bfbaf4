import { existsSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** Where the test bed is: test/images/lib/progress.sh and engine.sh say the same. */
const CACHE = resolve(process.env["FULA_NODE_TEST_CACHE"] || "/var/cache/fula-node-test");
const ENGINE = join(CACHE, "engine");

/** What the test bed keeps by what it is made from. */
export const BED_STORE = join(CACHE, "store");

/** The Go programs of the test images, for tests that run them without a container. */
export const BED_PROGRAMS = join(ENGINE, "programs");

/**
 * What a process needs to work with the test bed's engine and its client. Where there is no test bed, it names an engine
 * that does not answer: tests never work with one that the machine has.
 */
export function bedEnvironment(): Readonly<Record<string, string>> {
  return {
    DOCKER_HOST: `unix://${join(ENGINE, "docker.sock")}`,
    // Empty is as good as unset.
    ...Object.fromEntries(
      ["CONTEXT", "TLS", "TLS_VERIFY", "API_VERSION", "DEFAULT_PLATFORM"].map((key) => [`DOCKER_${key}`, ""]),
    ),
    DOCKER_CONFIG: join(ENGINE, "client"),
    PATH: `${join(ENGINE, "client", "bin")}:${process.env["PATH"] ?? ""}`,
  };
}

/** A directory for things that a run makes; `npm run sandbox -- down` removes what a killed run leaves in it. */
export function bedScratch(): string {
  return existsSync(ENGINE) ? ENGINE : tmpdir();
}

/** This machine's address on the link to the test bed's engine: containers there reach it by that one. */
export function machineAddress(): string {
  return `${readFileSync(join(ENGINE, "net"), "utf8").trim()}.250.1`;
}
