import type { Settings } from "../settings/settings.ts";
import { quoteValue } from "../settings/env-file.ts";
import type { ComposeMap } from "./compose-document.ts";
import type { Container, ContainerDefinition } from "./engine.ts";

/** A service whose container `--adopt` keeps: how it was created, and which of its variables are settings. */
export interface KeptRecord {
  readonly version: 1;
  readonly definition: ContainerDefinition;
  /** The setting behind a variable of its environment. The other variables keep their values. */
  readonly links: Readonly<Record<string, { readonly key: string; readonly secret: boolean }>>;
}

/** Such a service in a compose project. */
export interface KeptService {
  readonly record: KeptRecord;
  /** Its image now. Usually the one that it runs. */
  readonly image: string;
  /** The file with the record. While it exists, the container is adopted. */
  readonly path: string;
  /** True if that file exists, or if this run adopts the container. */
  readonly isAdopted: boolean;
  /** The file with those variables of its environment that are not settings. */
  readonly environmentFile: string;
}

/** The value of PINNING_API_IMAGE and WEBUI_IMAGE for the service that fula-node builds. */
export const OWN_IMAGE = "fula-node";

/** The settings that name the images of the services that fula-node has, too, by the service. */
export const SERVICE_IMAGES = { "pinning-api": "PINNING_API_IMAGE", webui: "WEBUI_IMAGE" } as const;

/** The services that another image than ours serves, with the settings that name it. */
export function customServices(
  settings: Settings,
): readonly { readonly service: string; readonly key: string; readonly image: string }[] {
  return Object.entries(SERVICE_IMAGES).flatMap(([service, key]) => {
    const image = settings.get(key)?.value ?? OWN_IMAGE;
    return image === OWN_IMAGE ? [] : [{ service, key, image }];
  });
}

/** True for a service whose container is adopted, and is not to be replaced by ours. */
export function isAdopted(service: KeptService | undefined): boolean {
  return service !== undefined && service.isAdopted && service.image !== OWN_IMAGE;
}

/** True for the image that fula-node builds: `fula-node:VERSION`. */
export function isBuiltImage(image: string): boolean {
  return image.startsWith(`${OWN_IMAGE}:`);
}

/** The record as text, and the text of the environment file next to it. Both contain secrets. */
export function keptTexts(record: KeptRecord): { readonly record: string; readonly environment: string } {
  const lines = literalsOf(record).flatMap(([key, value]) => {
    const quoted = quoteValue(value);
    return quoted === null ? [] : [`${key}=${quoted}\n`];
  });
  return { record: `${JSON.stringify(record, null, 2)}\n`, environment: lines.join("") };
}

/** The names of variables that an environment file can't hold. Only a container that is created again would lack them. */
export function unwritableOf(record: KeptRecord): readonly string[] {
  return literalsOf(record).flatMap(([key, value]) => (quoteValue(value) === null ? [key] : []));
}

/** Reads a record; null if the text is not one. */
export function parseKept(text: string): KeptRecord | null {
  try {
    const record = JSON.parse(text) as Partial<KeptRecord>;
    const isWhole = record.version === 1 && typeof record.definition?.image === "string";
    return isWhole && record.links !== undefined ? (record as KeptRecord) : null;
  } catch {
    return null;
  }
}

/**
 * The service in our compose file: as its container was created, with the image that the settings name. `labels` are
 * those of the service that fula-node would create.
 */
export function keptDefinition(
  { record: { definition, links }, image, environmentFile }: KeptService,
  options: { readonly container: string; readonly project: string; readonly labels: ComposeMap },
): { readonly service: ComposeMap; readonly volumes: ComposeMap; readonly networks: ComposeMap } {
  const { entrypoint, command, mounts, networkMode } = definition;
  const volumes = mounts.flatMap(({ type, source }) => (type === "volume" ? [source] : []));
  const networks = definition.networks.filter((name) => name !== `${options.project}_default`);
  const isOnNetworks = definition.networks.length > 0;
  const { labels } = options;
  const service: ComposeMap = {
    image: escape(image),
    container_name: options.container,
    ...(entrypoint === null ? {} : { entrypoint: entrypoint.map(escape) }),
    ...(command === null ? {} : { command: command.map(escape) }),
    environment: Object.fromEntries(
      Object.entries(links).map(([name, { key, secret }]) => [
        name,
        secret
          ? `\${${key}:?put it into .env, or run fula-node join-as-master}`
          : `\${${key}:-${definition.environment[name] ?? ""}}`,
      ]),
    ),
    env_file: [environmentFile],
    ...given("user", definition.user),
    ...given("working_dir", definition.workingDirectory),
    ...(isOnNetworks
      ? { networks: definition.networks.map((name) => (networks.includes(name) ? name : "default")) }
      : { network_mode: networkMode === "default" ? "bridge" : networkMode }),
    restart: definition.restart,
    ...list(
      "volumes",
      mounts.map(({ type, source, target, readOnly }) => ({
        type,
        source: escape(source),
        target: escape(target),
        read_only: readOnly,
      })),
    ),
    ...list("ports", definition.ports),
    ...list("cap_add", definition.capAdd),
    ...list("cap_drop", definition.capDrop),
    ...list("security_opt", definition.securityOptions),
    ...list("extra_hosts", definition.extraHosts),
    ...list("tmpfs", definition.temporary),
    ...(definition.readOnly ? { read_only: true } : {}),
    ...(definition.privileged ? { privileged: true } : {}),
    ...(definition.sharedMemoryBytes > 0 ? { shm_size: definition.sharedMemoryBytes } : {}),
    labels: Object.fromEntries(
      // A registry may know this image, so the updater may look for a newer one.
      Object.entries(labels).filter(([key]) => key !== "com.centurylinklabs.watchtower.no-pull"),
    ),
  };
  const external = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, { external: true, name }]));
  return { service, volumes: external(volumes), networks: external(networks) };
}

/**
 * Why a kept container must be created again: another image is set, or a setting that it gets has another value. Null if
 * it is as the settings say.
 */
export function whyChanged(
  { record, image }: KeptService,
  container: Container,
  values: Readonly<Record<string, string>>,
): string | null {
  if (container.image !== image) return `it runs ${container.image}, but the settings name ${image}`;
  const different = Object.entries(record.links).flatMap(([name, { key }]) =>
    (container.env[name] ?? "") === (values[key] ?? record.definition.environment[name] ?? "") ? [] : [key],
  );
  return different.length === 0 ? null : `its ${different.join(", ")} differs from the settings`;
}

/** A value that can stand as the default of a variable in a compose file. */
const PLAIN = /^[A-Za-z0-9_./:@,+=%~-]*$/;

/**
 * Which variables of a container are settings: those that have the present value of one. `values` are the values of the settings.
 */
export function linksOf(
  { environment }: ContainerDefinition,
  options: {
    /** The setting that a variable would be. */
    readonly settingOf: (name: string) => string;
    readonly secrets: ReadonlySet<string>;
    readonly values: (key: string) => string | undefined;
  },
): KeptRecord["links"] {
  const { settingOf, secrets, values } = options;
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) => {
      const key = settingOf(name);
      const secret = secrets.has(key);
      const isSetting = value !== "" && values(key) === value && (secret || PLAIN.test(value));
      return isSetting ? [[name, { key, secret }]] : [];
    }),
  );
}

function literalsOf({ definition, links }: KeptRecord): readonly (readonly [string, string])[] {
  return Object.entries(definition.environment).filter(([name]) => links[name] === undefined);
}

/** Compose replaces variables in every text. */
function escape(text: string): string {
  return text.replaceAll("$", "$$$$");
}

function given(key: string, value: string): ComposeMap {
  return value === "" ? {} : { [key]: escape(value) };
}

function list(key: string, values: readonly (string | ComposeMap)[]): ComposeMap {
  return values.length === 0
    ? {}
    : { [key]: values.map((value) => (typeof value === "string" ? escape(value) : value)) };
}
