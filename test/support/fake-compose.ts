import { createHash } from "node:crypto";
import { posix } from "node:path";
import { parse as parseYaml } from "yaml";
import { OperatorError } from "../../src/errors.ts";
import type { Container } from "../../src/docker/engine.ts";

/** One container as a compose file describes it, with the hash that shows whether it must be recreated. */
export interface WantedContainer {
  readonly service: string;
  readonly container: Omit<Container, "id" | "imageId" | "startedAt" | "pid" | "status">;
  readonly configHash: string;
}

/** What one compose file describes: containers, and the named volumes with their labels. */
export interface WantedProject {
  readonly containers: readonly WantedContainer[];
  readonly volumes: readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[];
  /** The default network, if a service uses it. */
  readonly networks: readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[];
}

interface ComposeService {
  readonly container_name?: string;
  readonly image?: string;
  readonly profiles?: readonly string[];
  readonly labels?: unknown;
  readonly environment?: unknown;
  readonly network_mode?: string;
  readonly restart?: string;
  readonly healthcheck?: unknown;
  readonly volumes?: readonly (string | { type?: string; source?: string; target?: string })[];
  readonly ports?: readonly unknown[];
}

interface ComposeFile {
  readonly services?: Readonly<Record<string, ComposeService>>;
  readonly volumes?: Readonly<Record<string, { name?: string; labels?: unknown } | null>>;
  readonly networks?: Readonly<Record<string, { labels?: unknown } | null>>;
}

/** A compose document and the values of its `${KEY}` references. */
export interface FakeProject {
  readonly name: string;
  readonly file: string;
  readonly text: string;
  readonly profiles: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * What Docker Compose would make of a document: interpolation, profiles, container names, labels,
 * mounts. It supports only what the product's own files use.
 */
export function readComposeProject(project: FakeProject): WantedProject {
  const parsed = interpolate(parseOnce(project.text), project.environment) as ComposeFile;
  const volumeName = (key: string) => parsed.volumes?.[key]?.name ?? `${project.name}_${key}`;
  const active = Object.entries(parsed.services ?? {}).filter(
    ([, { profiles }]) => profiles === undefined || profiles.some((one) => project.profiles.includes(one)),
  );
  const volumes = Object.entries(parsed.volumes ?? {}).map(([key, volume]) => ({
    name: volumeName(key),
    labels: { ...pairs(volume?.labels), "com.docker.compose.project": project.name },
  }));
  const onDefault = active.some(([, { network_mode }]) => network_mode === undefined);
  const networks = [
    {
      name: `${project.name}_default`,
      labels: {
        ...pairs(parsed.networks?.["default"]?.labels),
        "com.docker.compose.project": project.name,
        "com.docker.compose.network": "default",
      },
    },
  ];
  return {
    volumes,
    networks: onDefault ? networks : [],
    containers: active.map(([service, spec]) => ({
      service,
      configHash: createHash("sha256")
        .update(
          JSON.stringify({ ...spec, environment: environmentOf(spec.environment, project.environment) }),
        )
        .digest("hex"),
      container: containerOf(project, service, spec, volumeName),
    })),
  };
}

const documents = new Map<string, unknown>();

/** Tests run the same few documents thousands of times. */
function parseOnce(text: string): unknown {
  if (!documents.has(text)) documents.set(text, parseYaml(text));
  return documents.get(text);
}

function containerOf(
  project: FakeProject,
  service: string,
  spec: ComposeService,
  volumeName: (key: string) => string,
): WantedContainer["container"] {
  return {
    name: spec.container_name ?? `${project.name}-${service}-1`,
    image: spec.image ?? `${project.name}-${service}`,
    labels: {
      ...pairs(spec.labels),
      "com.docker.compose.project": project.name,
      "com.docker.compose.service": service,
      "com.docker.compose.project.config_files": project.file,
    },
    env: environmentOf(spec.environment, project.environment),
    health: spec.healthcheck === undefined ? null : "healthy",
    healthOutput: "",
    exitCode: 0,
    oomKilled: false,
    restartCount: 0,
    restartPolicy: spec.restart ?? "no",
    networkMode: spec.network_mode ?? `${project.name}_default`,
    mounts: (spec.volumes ?? []).map((volume) => mountOf(volume, posix.dirname(project.file), volumeName)),
    publishedPorts: portsOf(spec.ports ?? []),
    boundPorts: portsOf(spec.ports ?? []),
  };
}

function portsOf(ports: readonly unknown[]): number[] {
  return ports.map((port) => Number(String(port).split(":").at(-2)));
}

/** A key without a value gets the project's value, and is left out if the project has none. */
function environmentOf(value: unknown, handedOn: Readonly<Record<string, string>>): Record<string, string> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return pairs(value);
  const entries = Object.entries(value).flatMap(([key, one]) => {
    const text: unknown = one ?? handedOn[key];
    return text === undefined ? [] : [[key, typeof text === "string" ? text : JSON.stringify(text)]];
  });
  return Object.fromEntries(entries) as Record<string, string>;
}

function mountOf(
  volume: string | { type?: string; source?: string; target?: string },
  directory: string,
  volumeName: (key: string) => string,
): Container["mounts"][number] {
  const [source = "", destination = ""] =
    typeof volume === "string" ? volume.split(":") : [volume.source, volume.target];
  if (/^[./]/.test(source)) {
    return { type: "bind", name: "", source: posix.resolve(directory, source), destination };
  }
  const name = volumeName(source);
  return { type: "volume", name, source: `/var/lib/docker/volumes/${name}/_data`, destination };
}

function pairs(value: unknown): Record<string, string> {
  if (value === undefined || value === null) return {};
  const entries = Array.isArray(value)
    ? value.map((line) => {
        const text = String(line);
        const at = text.indexOf("=");
        return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
      })
    : Object.entries(value).map(([key, one]) => [key, one === null ? "" : String(one)]);
  return Object.fromEntries(entries) as Record<string, string>;
}

function interpolate(value: unknown, env: Readonly<Record<string, string>>): unknown {
  if (typeof value === "string") return interpolateText(value, env);
  if (Array.isArray(value)) return value.map((one) => interpolate(one, env));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, interpolate(one, env)]));
}

/** The rest may contain one more reference: `${A:-http://${B:-x}/}`. */
const REFERENCE = /\$\$|\$\{(?<key>\w+)(?:(?<kind>:\?|:-|\?|-)(?<rest>(?:[^{}]|\$\{[^{}]*\})*))?\}/g;

function interpolateText(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(REFERENCE, (whole: string, key: string | undefined, kind = "", rest = "") => {
    if (whole === "$$" || key === undefined) return "$";
    const value = env[key];
    const missing = value === undefined || (value === "" && String(kind).startsWith(":"));
    if (!missing) return value;
    if (String(kind).endsWith("?")) {
      throw new OperatorError({
        exit: "unavailable",
        what: `required variable ${key} is missing a value: ${rest}`,
      });
    }
    return interpolateText(String(rest), env);
  });
}
