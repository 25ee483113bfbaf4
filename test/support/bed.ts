import { existsSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** Paths of the test bed; test/images/lib/progress.sh and engine.sh have the same ones. */
const CACHE = resolve(process.env["FULA_NODE_TEST_CACHE"] || "/var/cache/fula-node-test");
const ENGINE = join(CACHE, "engine");

/** The store of the test bed: things by a hash of their inputs. */
export const BED_STORE = join(CACHE, "store");

/** The Go programs of the test images, for tests that run them without a container. */
export const BED_PROGRAMS = join(ENGINE, "programs");

/**
 * The environment of a process that uses the test bed's engine and its client. Without a test bed it names an engine that
 * does not answer, so that tests never use the machine's own engine.
 */
export function bedEnvironment(): Readonly<Record<string, string>> {
  return {
    DOCKER_HOST: `unix://${join(ENGINE, "docker.sock")}`,
    // An empty value counts as unset.
    ...Object.fromEntries(
      ["CONTEXT", "TLS", "TLS_VERIFY", "API_VERSION", "DEFAULT_PLATFORM"].map((key) => [`DOCKER_${key}`, ""]),
    ),
    DOCKER_CONFIG: join(ENGINE, "client"),
    PATH: `${join(ENGINE, "client", "bin")}:${process.env["PATH"] ?? ""}`,
  };
}

/** A directory for what a run creates; `npm run sandbox -- down` removes what a killed run leaves there. */
export function bedScratch(): string {
  return existsSync(ENGINE) ? ENGINE : tmpdir();
}

/** This machine's address on the link to the test bed's engine. Containers there reach the machine at this address. */
export function machineAddress(): string {
  return `${readFileSync(join(ENGINE, "net"), "utf8").trim()}.250.1`;
}
