import type Dockerode from "dockerode";
import { stat } from "node:fs/promises";
import { Readable, Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { bracketed } from "../settings/address.ts";
import { shareInFlight } from "../machine/file-reader.ts";
import { type ProgramEnvironment, runProgram } from "../machine/run-program.ts";
import { type Answer, restartPolicyOf } from "./engine-answers.ts";
import { type Engine, NoEngine } from "./engine-client.ts";
import type { Container, ContainerDefinition, DockerReader, DockerVersion } from "./engine.ts";

type EngineMethods = Omit<DockerReader, "composeHashes">;

const LOG_CHUNK_BYTES = 4096;

/** Reads one engine, and the version of the Docker CLI's Compose plugin. */
export function dockerReader(engine: Engine, env: ProgramEnvironment): EngineMethods {
  const composeVersion = composePlugin(env);
  // The steps look at the same things at the same time.
  const composeVersionOnce = shareInFlight<string | null>();
  const versionOnce = shareInFlight<DockerVersion | null>();
  const containersOnce = shareInFlight<readonly Container[]>();
  const containerOnce = shareInFlight<Container | null>();
  const imageOnce = shareInFlight<Awaited<ReturnType<EngineMethods["image"]>>>();
  // Loaded with the first archive: few runs have one.
  let archives: Promise<DockerReader["readArchive"]> | null = null;
  const readArchive: DockerReader["readArchive"] = async (path) => {
    archives ??= import("./images/read-archive.ts").then(({ archiveReader }) => archiveReader());
    return (await archives)(path);
  };
  const volumeOnce = shareInFlight<Awaited<ReturnType<EngineMethods["volume"]>>>();
  return {
    version: () => versionOnce("", () => orDefault(null, () => versionOf(engine))),
    unreachable: async () => {
      try {
        await engine.version();
        return null;
      } catch (thrown) {
        if (thrown instanceof NoEngine) return thrown.why ?? thrown.what;
        throw thrown;
      }
    },
    composeVersion: () => composeVersionOnce("", composeVersion),
    containers: () => containersOnce("", () => orDefault([], () => containersOf(engine))),
    container: (name) => containerOnce(name, () => orDefault(null, () => containerOf(engine, name))),
    definition: (name) => orDefault(null, () => definitionOf(engine, name)),
    image: (reference) => imageOnce(reference, () => orDefault(null, () => imageOf(engine, reference))),
    volume: (name) => volumeOnce(name, () => orDefault(null, () => volumeOf(engine, name))),
    usersOf: (kind, name) => orDefault([], () => usersOf(engine, kind, name)),
    listVolumes: () => orDefault([], () => volumesOf(engine)),
    listNetworks: () => orDefault([], () => networksOf(engine)),
    listImages: () => orDefault([], () => imagesOf(engine)),
    bridgeSubnets: () => orDefault([], () => bridgeSubnetsOf(engine)),
    logs: (name, lines) => orDefault("", () => logsOf(engine, name, lines)),
    readArchive,
    openLog: (name, options) =>
      orDefault(null, async () => {
        const seen = await inspect(engine, name);
        const { openContainerLog } = await import("./stream/container-log.ts");
        const hasTerminal = seen?.Config.Tty === true;
        return seen && (await openContainerLog(engine, { name, hasTerminal }, options));
      }),
  };
}

/** Only an adoption needs it. */

async function orDefault<T>(byDefault: T, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (thrown) {
    if (thrown instanceof NoEngine) return byDefault;
    throw thrown;
  }
}

async function versionOf(engine: Engine): Promise<DockerVersion> {
  const [version, info] = await Promise.all([
    engine.version(),
    engine.ask("info", (docker) => docker.info()),
  ]);
  return {
    version: version.Version,
    apiVersion: version.ApiVersion,
    minApiVersion: version.MinAPIVersion,
    architecture: version.Arch ?? "",
    rootDirectory: info.DockerRootDir ?? "/var/lib/docker",
    rootless: (info.SecurityOptions ?? []).some((option) => option.includes("rootless")),
    userNamespaces: (info.SecurityOptions ?? []).some((option) => option.includes("name=userns")),
  };
}

async function containersOf(engine: Engine): Promise<readonly Container[]> {
  const listed = await engine.ask("containers", (docker) => docker.listContainers({ all: true }));
  const inspected = await Promise.all(listed.map(({ Id }) => containerOf(engine, Id)));
  return inspected.filter((container) => container !== null);
}

/** The engine's name of a filter. An image's also finds containers of images that were built on it. */
const USERS = { volume: "volume", network: "network", image: "ancestor" } as const;

async function usersOf(
  engine: Engine,
  kind: keyof typeof USERS,
  name: string,
): ReturnType<DockerReader["usersOf"]> {
  const filters = { [USERS[kind]]: [name] };
  const listed = await engine.ask("containers", (docker) => docker.listContainers({ all: true, filters }));
  return listed.map(({ Id, Names, Labels }) => ({
    name: (Names?.[0] ?? Id).replace(/^\//, ""),
    labels: Labels ?? {},
  }));
}

async function containerOf(engine: Engine, name: string): Promise<Container | null> {
  const seen = await inspect(engine, name);
  return seen === null ? null : toContainer(seen);
}

function inspect(engine: Engine, name: string): Promise<Answer<"container"> | null> {
  return engine.find("container", (docker) => docker.getContainer(encodeURIComponent(name)).inspect());
}

async function imageOf(engine: Engine, reference: string): ReturnType<DockerReader["image"]> {
  const seen = await engine.find("image", (docker) => docker.getImage(encodeURI(reference)).inspect());
  if (seen === null) return null;
  const { UpperDir: top, LowerDir: below } = seen.GraphDriver?.Data ?? {};
  return {
    id: seen.Id,
    labels: seen.Config?.Labels ?? {},
    env: Object.fromEntries((seen.Config?.Env ?? []).map(splitVariable)),
    architecture: seen.Architecture ?? "",
    layers: [top ?? "", ...(below ?? "").split(":")].filter((directory) => directory !== ""),
    sizeBytes: seen.Size ?? 0,
  };
}

async function volumeOf(engine: Engine, name: string): ReturnType<DockerReader["volume"]> {
  const seen = await engine.find("volume", (docker) => docker.getVolume(encodeURIComponent(name)).inspect());
  if (seen === null) return null;
  const isPlain = seen.Driver === "local" && Object.keys(seen.Options ?? {}).length === 0;
  return { name: seen.Name, labels: seen.Labels ?? {}, mountpoint: seen.Mountpoint, isPlain };
}

/** Without macvlan and ipvlan networks, because their subnets are those of the physical network. */
async function bridgeSubnetsOf(engine: Engine): Promise<readonly string[]> {
  const filters = { driver: ["bridge"] };
  const networks = await engine.ask("networks", (docker) => docker.listNetworks({ filters }));
  const configs = networks.flatMap(({ IPAM }) => IPAM?.Config ?? []);
  return configs.flatMap(({ Subnet }) => Subnet ?? []);
}

async function volumesOf(engine: Engine): ReturnType<DockerReader["listVolumes"]> {
  const { Volumes } = await engine.ask("volumes", (docker) => docker.listVolumes());
  return (Volumes ?? []).map(({ Name, Labels }) => ({ name: Name, labels: Labels ?? {} }));
}

async function networksOf(engine: Engine): ReturnType<DockerReader["listNetworks"]> {
  const networks = await engine.ask("networks", (docker) => docker.listNetworks());
  return networks.map(({ Name, Labels }) => ({ name: Name, labels: Labels ?? {} }));
}

async function imagesOf(engine: Engine): ReturnType<DockerReader["listImages"]> {
  const images = await engine.ask("images", (docker) => docker.listImages());
  return images.map(({ Id, RepoTags, Labels }) => ({
    id: Id,
    // Older engines use this name for an image without a tag.
    tags: (RepoTags ?? []).filter((tag) => tag !== "<none>:<none>"),
    labels: Labels ?? {},
  }));
}

async function logsOf(engine: Engine, name: string, lines: number): Promise<string> {
  const seen = await inspect(engine, name);
  if (seen === null) return "";
  const options = { stdout: true, stderr: true, tail: lines } as const;
  const bytes = await engine.find("log", (docker) =>
    docker.getContainer(encodeURIComponent(name)).logs(options),
  );
  const text =
    seen.Config.Tty === true ? (bytes ?? "").toString() : await unframe(await engine.open(), bytes);
  return text
    .split("\n")
    .slice(-lines - 1)
    .join("\n")
    .trimEnd();
}

/** Unpacks a log that has both streams in frames. docker-modem recurses for each frame of a chunk, so chunks are small. */
async function unframe(docker: Dockerode, bytes: Buffer | null): Promise<string> {
  if (bytes === null) return "";
  const chunks = Array.from({ length: Math.ceil(bytes.length / LOG_CHUNK_BYTES) }, (_, index) =>
    bytes.subarray(index * LOG_CHUNK_BYTES, (index + 1) * LOG_CHUNK_BYTES),
  );
  const texts: Buffer[] = [];
  const both = new Writable({
    write(text: Buffer, _encoding, done) {
      texts.push(text);
      done();
    },
  });
  const framed = Readable.from(chunks);
  docker.modem.demuxStream(framed, both, both);
  await finished(framed);
  return Buffer.concat(texts).toString("utf8");
}

/** A container as fula-node uses it. */
function toContainer(seen: Answer<"container">): Container {
  const { State: state, Config: config } = seen;
  return {
    id: seen.Id,
    name: seen.Name.replace(/^\//, ""),
    image: config.Image,
    imageId: seen.Image,
    labels: config.Labels ?? {},
    env: Object.fromEntries((config.Env ?? []).map(splitVariable)),
    status: state.Status,
    health: healthOf(seen),
    healthOutput: state.Health?.Log?.findLast(({ ExitCode }) => ExitCode !== 0)?.Output.trim() ?? "",
    exitCode: state.ExitCode,
    oomKilled: state.OOMKilled ?? false,
    restartCount: seen.RestartCount ?? 0,
    restartPolicy: restartPolicyOf(seen),
    startedAt: state.StartedAt,
    pid: state.Pid,
    networkMode: seen.HostConfig.NetworkMode,
    mounts: (seen.Mounts ?? []).map(({ Type, Name, Source, Destination }) => ({
      type: Type,
      name: Name ?? "",
      source: Source,
      destination: Destination,
    })),
    publishedPorts: tcpPorts(seen.NetworkSettings?.Ports),
    boundPorts: tcpPorts(seen.HostConfig.PortBindings as Ports | undefined),
  };
}

/** A container that was never started can have a healthcheck but no health yet. It counts as starting. */
function healthOf({ State, Config }: Answer<"container">): Container["health"] {
  const status = State.Health?.Status;
  if (status === "healthy" || status === "unhealthy" || status === "starting") return status;
  const test = Config.Healthcheck?.Test ?? [];
  return test.length > 0 && test[0] !== "NONE" ? "starting" : null;
}

type Ports = Readonly<Record<string, readonly { readonly HostPort: string }[] | null>>;

function tcpPorts(ports: Ports | null | undefined): readonly number[] {
  const bindings = Object.entries(ports ?? {}).filter(([inside]) => inside.endsWith("/tcp"));
  const all = bindings.flatMap(([, hosts]) => (hosts ?? []).map(({ HostPort }) => Number(HostPort)));
  return [...new Set(all)].filter((port) => port > 0).sort((a, b) => a - b);
}

function splitVariable(line: string): readonly [string, string] {
  const at = line.indexOf("=");
  return at === -1 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
}

const TIMEOUT_MS = 20_000;

/** Where the Docker CLI searches for plugins besides its configuration directory (docker/cli, cli-plugins/manager/manager_unix.go). */
const PLUGIN_DIRECTORIES = [
  "/usr/local/lib/docker/cli-plugins",
  "/usr/local/libexec/docker/cli-plugins",
  "/usr/lib/docker/cli-plugins",
  "/usr/libexec/docker/cli-plugins",
];

/**
 * Returns a function that asks the Docker CLI for the version of its Compose plugin, without the suffix of a
 * distribution (`2.26.1-4`); null if it is not installed. The answer is cached as long as the program files are
 * unchanged. Every call checks those files.
 */
export function composePlugin(env: ProgramEnvironment): () => Promise<string | null> {
  let answer: { readonly files: string; readonly version: string } | null = null;
  return async () => {
    const files = await identify(env);
    if (files !== null && answer?.files === files) return answer.version;
    const version = await askCompose(env);
    if (files !== null && version !== null) answer = { files, version };
    return version;
  };
}

async function askCompose(env: ProgramEnvironment): Promise<string | null> {
  const argv = ["docker", "compose", "version", "--short"];
  const { exitCode, stdout } = await runProgram(argv, { env, timeoutMs: TIMEOUT_MS });
  if (exitCode !== 0) return null;
  return /(?<![\w.])v?(?<version>\d+(?:\.\d+)+)/.exec(stdout)?.groups?.["version"] ?? null;
}

/** Identifies the files of the CLI and the plugin, so that every change shows; null if the plugin is in no usual place. */
async function identify(env: ProgramEnvironment): Promise<string | null> {
  const configuration = env["DOCKER_CONFIG"] ?? `${env["HOME"] ?? "/root"}/.docker`;
  const programs = env.PATH.split(":").map((directory) => `${directory}/docker`);
  const plugins = [`${configuration}/cli-plugins`, ...PLUGIN_DIRECTORIES].map(
    (directory) => `${directory}/docker-compose`,
  );
  const [cli, found] = await Promise.all([programs, plugins].map(identifyFiles));
  return cli === undefined || found === undefined || cli === "" || found === "" ? null : `${cli}\n${found}`;
}

/** The existing files, each with attributes that change whenever its content changes. */
async function identifyFiles(paths: readonly string[]): Promise<string> {
  const lines = await Promise.all(
    paths.map(async (path) => {
      const found = await stat(path, { bigint: true }).catch(() => null);
      return found === null ? [] : [`${path} ${found.dev} ${found.ino} ${found.size} ${found.ctimeNs}`];
    }),
  );
  return lines.flat().join("\n");
}

/** How a container was created, without what its image says; null if there is no such container. */
async function definitionOf(engine: Engine, name: string): Promise<ContainerDefinition | null> {
  const seen = await engine.find("container", (docker) =>
    docker.getContainer(encodeURIComponent(name)).inspect(),
  );
  if (seen === null) return null;
  const image = await engine.find("image", (docker) => docker.getImage(encodeURI(seen.Image)).inspect());
  return toDefinition(seen, image?.Config ?? {});
}

type ImageConfig = Partial<NonNullable<Answer<"image">["Config"]>>;

function toDefinition(seen: Answer<"container">, image: ImageConfig): ContainerDefinition {
  const { Config: config, HostConfig: host, Mounts, NetworkSettings } = seen;
  const isSameEntrypoint = isSame(config.Entrypoint, image.Entrypoint);
  const ofImage = new Set(image.Env ?? []);
  return {
    image: config.Image,
    entrypoint: isSameEntrypoint ? null : (config.Entrypoint ?? []),
    // A changed entry point drops the image's command, so the command is needed with it.
    command: isSameEntrypoint && isSame(config.Cmd, image.Cmd) ? null : (config.Cmd ?? []),
    environment: Object.fromEntries(
      (config.Env ?? []).filter((line) => !ofImage.has(line)).map(splitVariable),
    ),
    user: config.User === image.User ? "" : (config.User ?? ""),
    workingDirectory: config.WorkingDir === image.WorkingDir ? "" : (config.WorkingDir ?? ""),
    networkMode: host.NetworkMode,
    networks: Object.keys(NetworkSettings?.Networks ?? {}).filter(
      (name) => !["host", "none", "bridge"].includes(name),
    ),
    restart: restartPolicyOf(seen),
    mounts: (Mounts ?? []).flatMap(({ Type, Name, Source, Destination, RW }) =>
      Type === "bind" || Type === "volume"
        ? [
            {
              type: Type,
              source: Type === "volume" ? (Name ?? "") : Source,
              target: Destination,
              readOnly: RW === false,
            } as const,
          ]
        : [],
    ),
    ports: Object.entries(host.PortBindings ?? {}).flatMap(([inside, bindings]) =>
      (bindings ?? []).map(({ HostIp = "", HostPort }) => portOf(HostIp, HostPort, inside)),
    ),
    capAdd: host.CapAdd ?? [],
    capDrop: host.CapDrop ?? [],
    securityOptions: host.SecurityOpt ?? [],
    extraHosts: host.ExtraHosts ?? [],
    temporary: Object.entries(host.Tmpfs ?? {}).map(([path, how]) => (how === "" ? path : `${path}:${how}`)),
    readOnly: host.ReadonlyRootfs ?? false,
    privileged: host.Privileged ?? false,
    sharedMemoryBytes: host.ShmSize ?? 0,
  };
}

function isSame(own: readonly string[] | null | undefined, image: readonly string[] | null | undefined) {
  return JSON.stringify(own ?? []) === JSON.stringify(image ?? []);
}

function portOf(address: string, port: string, inside: string): string {
  const host = address === "" ? "" : `${bracketed(address)}:`;
  return `${host}${port}:${inside}`;
}
