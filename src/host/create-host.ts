import { clock, random } from "../machine/clock.ts";
import { files } from "../machine/file-writer.ts";
import { http } from "../machine/http.ts";
import { generateSigningKeyPem, parseSigningKey } from "../machine/signing.ts";
import { createSystem } from "../machine/system.ts";
import { createDocker } from "../docker/docker.ts";
import type { Host } from "./host.ts";
import { createMigrator } from "../database/migrator.ts";
import { createPostgres } from "../database/postgres.ts";

/** What the real host has to be told. */
export interface HostOptions {
  /** The process environment, as cli.ts read it. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The shipped migrations/ directory. */
  readonly migrationsDir: string;
  readonly toolVersion: string;
}

/** This machine. Throws an OperatorError (`settings`) where DOCKER_HOST names an engine elsewhere. */
export function createHost({ env, migrationsDir, toolVersion }: HostOptions): Host {
  return {
    files,
    system: createSystem(env),
    docker: createDocker(env),
    postgres: createPostgres(),
    migrations: createMigrator({ directory: migrationsDir, toolVersion }),
    http,
    signing: {
      publicKey: (pem, path) => {
        const { id, publicPem } = parseSigningKey(pem, path);
        return { id, publicPem };
      },
      generate: generateSigningKeyPem,
    },
    clock,
    random,
  };
}
