import { execFileSync } from "node:child_process";
import { setTimeout as wait } from "node:timers/promises";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { machineAddress } from "./bed.ts";
import { sql } from "./postgres-server.ts";
import { docker } from "./tiny-image.ts";

/** Where the test bed's registry answers its own engine. */
const REGISTRY = "127.0.0.1:5000/library";

/** A Postgres of a major, in a container of the test bed's engine. */
export interface DumpSource {
  readonly target: PostgresTarget;
  readonly image: string;
  readonly container: string;
  /** What a master that uses it has in its settings. */
  readonly values: Readonly<Record<string, string>>;
  stop(): void;
}

/** Its image on the test bed's engine: Postgres 17 is the one whose server and programs are of the same major there. */
export function pullPostgres(major = "17"): string {
  const image = `${REGISTRY}/postgres:${major}-alpine`;
  docker("pull", "--quiet", image);
  return image;
}

/** Starts a server that this process reaches, and that a container on its engine's network reaches at the same address. */
export async function startDumpSource(name: string, args: readonly string[] = []): Promise<DumpSource> {
  const image = pullPostgres();
  const container = `fula-node-contract-${process.pid}-${name}`;
  const password = "p$:\\ss'w\"ord 7canary";
  const environment = { ...process.env, POSTGRES_PASSWORD: password };
  const env = [
    "-e",
    "POSTGRES_PASSWORD",
    "-e",
    "POSTGRES_DB=pinning_service",
    "-e",
    "POSTGRES_USER=pinning_user",
  ];
  const argv = [
    "run",
    "--detach",
    "--name",
    container,
    "--publish",
    "5432",
    ...env,
    image,
    "postgres",
    "-c",
    "fsync=off",
    ...args,
  ];
  execFileSync("docker", argv, { env: environment, stdio: "ignore" });
  const port = Number(docker("port", container, "5432").split("\n")[0]?.split(":").at(-1));
  const target: PostgresTarget = {
    host: machineAddress().replace(/1$/, "2"),
    port,
    database: "pinning_service",
    user: "pinning_user",
    password,
    ssl: false,
  };
  await untilOpen(target);
  const values = {
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    POSTGRES_IMAGE: image,
  };
  return {
    target,
    image,
    container,
    values,
    stop: () => void docker("rm", "--force", "--volumes", container),
  };
}

async function untilOpen(target: PostgresTarget): Promise<void> {
  for (const deadline = Date.now() + 60_000; ;) {
    try {
      await sql(target, "SELECT 1");
      return;
    } catch (thrown) {
      if (Date.now() > deadline) throw thrown;
      await wait(50);
    }
  }
}
