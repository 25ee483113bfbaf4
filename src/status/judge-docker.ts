import type { Container, DockerVersion } from "../docker/engine.ts";
import { age } from "../units.ts";
import { allOk, type Judged, type Late, LATE } from "./part.ts";

/** What Docker answered. */
export interface DockerFacts {
  /** Null if no engine answers. */
  readonly engine: DockerVersion | null | Late;
  /** Why no engine answers: "no /var/run/docker.sock". */
  readonly why: string | null | Late;
  /** Null if the plugin is missing. */
  readonly compose: string | null | Late;
  /** False if there is no engine to start. */
  readonly isInstalled: boolean;
  /** False if a boot does not start it. Null if no unit says so. */
  readonly atBoot: boolean | null | Late;
}

/** The engine and its Compose plugin. `repair` is the command that repairs this node. */
export function judgeDocker(
  { engine, why, compose, isInstalled, atBoot }: DockerFacts,
  repair: string,
): Judged {
  if (engine === LATE || (engine === null && why === LATE)) {
    return {
      state: "unknown",
      summary: "the engine did not answer in time",
      todo: "look at journalctl -u docker -n 50",
      evidence: {},
    };
  }
  if (engine === null) {
    const reason = typeof why === "string" ? why : "no engine answers";
    return {
      state: "down",
      summary: isInstalled ? `does not run: ${reason}` : `is not installed: ${reason}`,
      todo: isInstalled ? "systemctl start docker" : repair,
      evidence: {},
    };
  }
  const evidence = {
    "API version": engine.apiVersion,
    "root directory": engine.rootDirectory,
    Compose: compose === LATE ? "did not answer in time" : (compose ?? "not installed"),
  };
  if (compose === LATE)
    return {
      state: "unknown",
      summary: `${engine.version}; Compose did not answer in time`,
      todo: "docker compose version",
      evidence,
    };
  if (atBoot === false)
    return {
      state: "attention",
      summary: `${engine.version}, does not start at boot`,
      todo: repair,
      evidence: { ...evidence, "at boot": "no" },
    };
  return compose === null
    ? { state: "attention", summary: `${engine.version}, without Compose v2`, todo: repair, evidence }
    : { ...allOk(`${engine.version}, Compose ${compose}`), evidence };
}

/** All containers by name; null if Docker does not say which there are. */
export type Containers = ReadonlyMap<string, Container> | null;

/**
 * What Docker says against a container: it is there, and does not run as it should. Null if it runs, if it is
 * absent (its API or its step says more), or if Docker does not answer.
 */
export function faultOfContainer(containers: Containers, name: string, repair: string): Judged | null {
  const container = containers?.get(name);
  if (container === undefined) return null;
  const { status, health, exitCode, healthOutput, image, startedAt } = container;
  const evidence = { container: `${name}, ${status}, image ${image}, started ${startedAt}` };
  if (status !== "running") {
    const how = status === "exited" ? `stopped (exit code ${exitCode})` : status;
    return { state: "down", summary: `the container ${name} is ${how}`, todo: repair, evidence };
  }
  if (health !== "unhealthy") return null;
  return {
    state: "down",
    summary: `the healthcheck of ${name} fails`,
    todo: `docker logs ${name}`,
    evidence: { ...evidence, ...(healthOutput === "" ? {} : { healthcheck: healthOutput }) },
  };
}

/** A container of which only Docker can say how it stands. `required`: it is a fault if it is absent. */
export function judgeContainerAlone(
  containers: Containers,
  name: string,
  { repair, required, now }: { readonly repair: string; readonly required: boolean; readonly now: Date },
): Judged | null {
  const fault = faultOfContainer(containers, name, repair);
  if (fault !== null) return fault;
  const container = containers?.get(name);
  if (container !== undefined) {
    const upMs = now.getTime() - Date.parse(container.startedAt);
    return {
      ...allOk(upMs >= 0 ? `runs since ${age(upMs)}` : "runs"),
      evidence: { container: `${name}, image ${container.image}` },
    };
  }
  if (!required) return null;
  return containers === null
    ? { state: "unknown", summary: "Docker does not answer", todo: "see the line of Docker", evidence: {} }
    : { state: "down", summary: `there is no container ${name}`, todo: repair, evidence: {} };
}
