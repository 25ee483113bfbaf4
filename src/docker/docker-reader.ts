import type { ProgramEnvironment } from "../machine/run-program.ts";
import { type DockerApi, NoEngine } from "./docker-api.ts";
import { unframe } from "./docker-logs.ts";
import { dockerPlugins } from "./docker-plugins.ts";
import { type InspectedContainer, toContainer } from "./docker-shapes.ts";
import type { Container, DockerReader, DockerVersion } from "./engine.ts";

type Looks = Omit<DockerReader, "composeHashes">;

const MAX_LOG_BYTES = 4 * 1024 ** 2;

/** Looks at one engine, and at the plugins of the Docker CLI. */
export function dockerReader(api: DockerApi, env: ProgramEnvironment): Looks {
  const pluginVersion = dockerPlugins(env);
  return {
    version: () => orWithout(null, () => versionOf(api)),
    unreachable: async () => {
      try {
        await api.version();
        return null;
      } catch (thrown) {
        if (thrown instanceof NoEngine) return thrown.message;
        throw thrown;
      }
    },
    composeVersion: () => pluginVersion("compose"),
    buildxVersion: () => pluginVersion("buildx"),
    containers: () => orWithout([], () => containersOf(api)),
    container: (name) => orWithout(null, () => inspect(api, name)),
    image: (reference) => orWithout(null, () => imageOf(api, reference)),
    volume: (name) => orWithout(null, () => volumeOf(api, name)),
    listVolumes: () => orWithout([], () => volumesOf(api)),
    listNetworks: () => orWithout([], () => networksOf(api)),
    listImages: () => orWithout([], () => imagesOf(api)),
    bridgeSubnets: () => orWithout([], () => bridgeSubnetsOf(api)),
    logs: (name, lines) => orWithout("", () => logsOf(api, name, lines)),
  };
}

async function orWithout<T>(without: T, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (thrown) {
    if (thrown instanceof NoEngine) return without;
    throw thrown;
  }
}

async function versionOf(api: DockerApi): Promise<DockerVersion> {
  const [version, info] = await Promise.all([api.version(), api.json({ path: "/info" })]);
  const { DockerRootDir, SecurityOptions } = (info ?? {}) as {
    readonly DockerRootDir?: string;
    readonly SecurityOptions?: readonly string[] | null;
  };
  return {
    version: String(version["Version"]),
    apiVersion: String(version["ApiVersion"]),
    minApiVersion: String(version["MinAPIVersion"]),
    rootDirectory: DockerRootDir ?? "/var/lib/docker",
    rootless: (SecurityOptions ?? []).some((option) => option.includes("rootless")),
  };
}

async function containersOf(api: DockerApi): Promise<readonly Container[]> {
  const listed = (await api.json({ path: "/containers/json", query: { all: "1" } })) as
    | readonly { readonly Id: string }[]
    | null;
  const inspected = await Promise.all((listed ?? []).map(({ Id }) => inspect(api, Id)));
  return inspected.filter((container) => container !== null);
}

async function inspect(api: DockerApi, name: string): Promise<Container | null> {
  const seen = await inspectRaw(api, name);
  return seen === null ? null : toContainer(seen);
}

function inspectRaw(api: DockerApi, name: string): Promise<InspectedContainer | null> {
  const path = `/containers/${encodeURIComponent(name)}/json`;
  return api.json({ path }) as Promise<InspectedContainer | null>;
}

async function imageOf(api: DockerApi, reference: string): ReturnType<DockerReader["image"]> {
  const seen = (await api.json({ path: `/images/${encodeURI(reference)}/json` })) as {
    readonly Id: string;
    readonly Config?: { readonly Labels?: Readonly<Record<string, string>> | null } | null;
  } | null;
  return seen === null ? null : { id: seen.Id, labels: seen.Config?.Labels ?? {} };
}

async function volumeOf(api: DockerApi, name: string): ReturnType<DockerReader["volume"]> {
  const seen = (await api.json({ path: `/volumes/${encodeURIComponent(name)}` })) as {
    readonly Name: string;
    readonly Labels?: Readonly<Record<string, string>> | null;
    readonly Mountpoint: string;
  } | null;
  return seen === null ? null : { name: seen.Name, labels: seen.Labels ?? {}, mountpoint: seen.Mountpoint };
}

/** Not of macvlan and ipvlan networks: theirs are those of the cable. */
async function bridgeSubnetsOf(api: DockerApi): Promise<readonly string[]> {
  const query = { filters: JSON.stringify({ driver: ["bridge"] }) };
  const seen = (await api.json({ path: "/networks", query })) as
    | readonly { readonly IPAM?: { readonly Config?: readonly { readonly Subnet?: string }[] | null } }[]
    | null;
  const configs = (seen ?? []).flatMap(({ IPAM }) => IPAM?.Config ?? []);
  return configs.flatMap(({ Subnet }) => Subnet ?? []);
}

/** As the engine's lists have it: labels may be null. */
interface Listed {
  readonly Name: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
}

async function volumesOf(api: DockerApi): ReturnType<DockerReader["listVolumes"]> {
  const seen = (await api.json({ path: "/volumes" })) as {
    readonly Volumes?: readonly Listed[] | null;
  } | null;
  return (seen?.Volumes ?? []).map(({ Name, Labels }) => ({ name: Name, labels: Labels ?? {} }));
}

async function networksOf(api: DockerApi): ReturnType<DockerReader["listNetworks"]> {
  const seen = (await api.json({ path: "/networks" })) as readonly Listed[] | null;
  return (seen ?? []).map(({ Name, Labels }) => ({ name: Name, labels: Labels ?? {} }));
}

async function imagesOf(api: DockerApi): ReturnType<DockerReader["listImages"]> {
  const seen = (await api.json({ path: "/images/json" })) as
    | readonly {
        readonly Id: string;
        readonly RepoTags?: readonly string[] | null;
        readonly Labels?: Readonly<Record<string, string>> | null;
      }[]
    | null;
  return (seen ?? []).map(({ Id, RepoTags, Labels }) => ({
    id: Id,
    // Older engines name what has no tag so.
    tags: (RepoTags ?? []).filter((tag) => tag !== "<none>:<none>"),
    labels: Labels ?? {},
  }));
}

async function logsOf(api: DockerApi, name: string, lines: number): Promise<string> {
  const seen = await inspectRaw(api, name);
  if (seen === null) return "";
  const path = `/containers/${encodeURIComponent(name)}/logs`;
  const query = { stdout: "1", stderr: "1", tail: String(lines) };
  const bytes = (await api.bytes({ path, query }, MAX_LOG_BYTES)) ?? Buffer.alloc(0);
  const text = seen.Config.Tty === true ? bytes.toString("utf8") : unframe(bytes);
  return text
    .split("\n")
    .slice(-lines - 1)
    .join("\n")
    .trimEnd();
}
