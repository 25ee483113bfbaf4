import type { Container, ContainerDefinition } from "../docker/engine.ts";
import {
  customServices,
  keptTexts,
  type KeptService,
  linksOf,
  OWN_IMAGE,
  parseKept,
  SERVICE_IMAGES,
} from "../docker/kept-service.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findEntry, type EnvFile } from "../settings/env-file.ts";
import { isOurs, NAMES, STORAGE_NAMES, type StorageLayout } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { MASTER_RECOVERABLE, type Recoverable, STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import type { Setting, Settings, SettingSpec } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";

/** A service that the bash scripts create too, with the setting that names its image. */
interface AdoptableService {
  readonly service: string;
  readonly container: string;
  /** The step that adopts it. */
  readonly step: string;
  readonly imageKey: string;
  /** The setting behind a variable of its environment, if the names differ. */
  readonly alias: Readonly<Record<string, string>>;
}

/** What a kind of node can adopt, and the settings that its containers get. */
interface Adoption {
  readonly project: string;
  readonly services: readonly AdoptableService[];
  readonly specs: readonly SettingSpec[];
  readonly recoverable: readonly Recoverable[];
}

const MASTER_SERVICES: readonly AdoptableService[] = [
  {
    service: "postgres",
    container: NAMES.postgres,
    step: "postgres",
    imageKey: "POSTGRES_IMAGE",
    alias: {},
  },
  {
    service: "pinning-api",
    container: NAMES.pinningApi,
    step: "services",
    imageKey: SERVICE_IMAGES["pinning-api"],
    alias: { PORT: "PINNING_API_PORT" },
  },
  {
    service: "webui",
    container: NAMES.webui,
    step: "services",
    imageKey: SERVICE_IMAGES.webui,
    alias: {},
  },
  {
    service: "fula-gateway",
    container: NAMES.gateway,
    step: "services",
    imageKey: "GATEWAY_IMAGE",
    alias: {},
  },
];

const STORAGE_SERVICES: readonly AdoptableService[] = [
  { service: "kubo", container: STORAGE_NAMES.kubo, step: "kubo", imageKey: "KUBO_IMAGE", alias: {} },
  {
    service: "ipfs-cluster",
    container: STORAGE_NAMES.cluster,
    step: "cluster-follower",
    imageKey: "CLUSTER_IMAGE",
    alias: { CLUSTER_RESTAPI_BASICAUTHCREDENTIALS: "CLUSTER_BASIC_AUTH" },
  },
];

/** What each kind of node can adopt. */
export const ADOPTIONS = {
  master: {
    project: NAMES.masterProject,
    services: MASTER_SERVICES,
    specs: MASTER_SETTINGS,
    recoverable: MASTER_RECOVERABLE,
  },
  storage: {
    project: STORAGE_NAMES.project,
    services: STORAGE_SERVICES,
    specs: STORAGE_SETTINGS,
    recoverable: STORAGE_RECOVERABLE,
  },
} as const satisfies Readonly<Record<string, Adoption>>;

/** The setting behind a variable of the service's container. */
function settingOf({ recoverable }: Adoption, { container, alias }: AdoptableService, name: string): string {
  const known = recoverable.find((one) => one.container === container && one.knownAs === name);
  return alias[name] ?? known?.key ?? name;
}

/** A container that was adopted, or could be. */
interface Found extends AdoptableService {
  readonly definition: ContainerDefinition;
  readonly path: string;
  /** The text of the record; null if it was not adopted before. */
  readonly recorded: string | null;
}

/** The services of fula-node that can replace an adopted one. */
const REPLACING: readonly string[] = Object.keys(SERVICE_IMAGES);

/** Checks the values of `--replace`, and returns the consents that they give. Throws (`usage`) for another service. */
export function consentsOfReplace(services: readonly string[]): readonly string[] {
  const unknown = services.filter((service) => !REPLACING.includes(service));
  if (unknown.length === 0) return services.map((service) => `--replace ${service}`);
  throw new OperatorError({
    exit: "usage",
    what: `--replace does not know ${unknown.map((service) => JSON.stringify(service)).join(", ")}.`,
    remedy: `Possible values: ${REPLACING.join(", ")}.`,
  });
}

/**
 * The assignments, with the images of the services that `--replace` names: fula-node's. Throws (`usage`) if one of them is
 * set to another image in the same run.
 */
export function withReplacedImages(
  services: readonly string[],
  assignments: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const keys = Object.entries(SERVICE_IMAGES).filter(([service]) => services.includes(service));
  for (const [service, key] of keys) {
    const given = assignments.get(key) ?? OWN_IMAGE;
    if (given === OWN_IMAGE) continue;
    throw new OperatorError({
      exit: "usage",
      what: `--replace ${service} sets ${key} to ${OWN_IMAGE}, but --set gives it another value.`,
      remedy: "Leave one of them out.",
    });
  }
  return new Map([...assignments, ...keys.map(([, key]) => [key, OWN_IMAGE] as const)]);
}

/**
 * The settings of a join that adopts services: the image that each of them runs, and every setting that only its
 * container has. A flag outweighs both.
 */
export async function takeOverSettings(
  host: HostReader,
  options: {
    readonly adoption: Adoption;
    readonly layout: StorageLayout;
    readonly adopt: ReadonlySet<string>;
    readonly settings: Settings;
    readonly saved: EnvFile & { ok: true };
  },
): Promise<Settings> {
  const { adoption, layout, adopt, settings, saved } = options;
  const found = (await findServices(host, adoption, layout)).filter(
    ({ step, recorded }) => recorded === null && adopt.has(step),
  );
  const taken = new Map<string, Setting>();
  const isGiven = (key: string) => settings.get(key)?.origin === "flag";
  for (const one of found) {
    const { definition, imageKey } = one;
    if (!isGiven(imageKey)) taken.set(imageKey, { value: definition.image, origin: "adopted" });
    for (const [name, value] of Object.entries(definition.environment)) {
      const key = settingOf(adoption, one, name);
      const spec = adoption.specs.find((known) => known.key === key);
      const isKnown = findEntry(saved, key) !== undefined && hasValue(saved, key);
      if (spec === undefined || isGiven(key) || isKnown || taken.has(key)) continue;
      if (value !== "" && spec.rule.holds(value) && settings.get(key)?.value !== value)
        taken.set(key, { value, origin: "adopted" });
    }
  }
  return taken.size === 0 ? settings : new Map([...settings, ...taken]);
}

/** The services whose containers were adopted or can be, by name, as the compose file keeps them. */
export async function findKept(
  host: HostReader,
  options: {
    readonly adoption: Adoption;
    readonly layout: StorageLayout;
    readonly adopt: ReadonlySet<string>;
    readonly settings: Settings;
  },
): Promise<ReadonlyMap<string, KeptService>> {
  const { adoption, layout, adopt, settings } = options;
  const values = (key: string) => settings.get(key)?.value;
  const secrets = new Set(adoption.specs.filter(({ secret }) => secret === true).map(({ key }) => key));
  const kept = (await findServices(host, adoption, layout)).map((found): readonly [string, KeptService] => {
    const { service, step, definition, path, recorded, imageKey } = found;
    const saved = recorded === null ? null : parseKept(recorded);
    const record = saved ?? {
      version: 1,
      definition,
      links: linksOf(definition, { settingOf: (name) => settingOf(adoption, found, name), secrets, values }),
    };
    return [
      service,
      {
        record,
        image: values(imageKey) ?? OWN_IMAGE,
        path,
        isAdopted: recorded !== null || adopt.has(step),
        environmentFile: path.replace(/json$/, "env"),
      },
    ];
  });
  return new Map(kept);
}

/** What decides which pool a node is in and whom it trusts. Both must be what its container really has. */
const DECISIVE = ["CLUSTER_SECRET", "MASTER_CLUSTER_PEERIDS"];

/** A problem for each such setting that differs from what an adopted container has, since that is kept as it is. */
export async function findKeptConflicts(
  host: HostReader,
  options: {
    readonly adoption: Adoption;
    readonly layout: StorageLayout;
    readonly adopt: ReadonlySet<string>;
    readonly settings: Settings;
  },
): Promise<readonly Problem[]> {
  const { adoption, layout, adopt, settings } = options;
  const found = (await findServices(host, adoption, layout)).filter(
    ({ step, recorded }) => recorded === null && adopt.has(step),
  );
  return found.flatMap((one) =>
    Object.entries(one.definition.environment).flatMap(([name, value]) => {
      const key = settingOf(adoption, one, name);
      const wanted = settings.get(key)?.value;
      if (!DECISIVE.includes(key) || wanted === undefined || isSameSet(wanted, value)) return [];
      return [
        {
          subject: key,
          what: `${one.container}, which is to be adopted as it runs, has another ${key} than the settings.`,
          remedy: `Give the same value. Or let fula-node create the container: remove it, but not its volume (docker rm -f ${one.container}).`,
        },
      ];
    }),
  );
}

function isSameSet(one: string, other: string): boolean {
  const parts = (text: string) => text.split(",").toSorted().join(",");
  return parts(one) === parts(other);
}

/** The files of the kept services that are or will be adopted. They contain secrets. */
export function filesOfKept(
  kept: Iterable<KeptService>,
): readonly { readonly path: string; readonly text: string; readonly mode: number }[] {
  return [...kept].flatMap(({ record, path, environmentFile }) => {
    const texts = keptTexts(record);
    return [
      { path: environmentFile, text: texts.environment, mode: 0o600 },
      // Last: while this file exists, the container counts as adopted.
      { path, text: texts.record, mode: 0o600 },
    ];
  });
}

/** The images of the services that another image than ours serves, by the service's name. */
export function customImages(settings: Settings): Readonly<Record<string, string>> {
  return Object.fromEntries(customServices(settings).map(({ service, image }) => [service, image]));
}

async function findServices(
  host: HostReader,
  { services, project }: Adoption,
  layout: StorageLayout,
): Promise<readonly Found[]> {
  const found = await Promise.all(
    services.map(async (service): Promise<Found | null> => {
      const path = `${layout.adoptedDir}/${service.service}.json`;
      const text = await host.files.readText(path);
      const record = parseKept(text ?? "");
      if (record !== null) return { ...service, path, recorded: text, definition: record.definition };
      const container = await host.docker.container(service.container);
      if (container === null || !isClaimable(container, service, project)) return null;
      const definition = await host.docker.definition(service.container);
      return definition === null ? null : { ...service, path, recorded: null, definition };
    }),
  );
  return found.filter((one) => one !== null);
}

/** A container of the same compose project and service without our label. */
function isClaimable(container: Container, { service }: AdoptableService, project: string): boolean {
  const { labels } = container;
  const isOfProject = labels["com.docker.compose.project"] === project;
  return !isOurs(container) && isOfProject && labels["com.docker.compose.service"] === service;
}

function hasValue(saved: EnvFile & { ok: true }, key: string): boolean {
  const value = findEntry(saved, key)?.value;
  return value !== undefined && (!("text" in value) || value.text !== "");
}
