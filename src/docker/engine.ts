/** What Docker reports about one container. */
export interface Container {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly imageId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly status: "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** Null if neither the image nor the compose file defines a healthcheck. */
  readonly health: "starting" | "healthy" | "unhealthy" | null;
  /** The output of the last failed healthcheck. */
  readonly healthOutput: string;
  readonly exitCode: number;
  /** True if the kernel ended it because memory ran out. */
  readonly oomKilled: boolean;
  readonly restartCount: number;
  /** When the engine starts it again by itself, as Compose writes it: `unless-stopped`, `no`, `on-failure:3`. */
  readonly restartPolicy: string;
  readonly startedAt: string;
  readonly pid: number;
  readonly networkMode: string;
  readonly mounts: readonly {
    readonly type: string;
    readonly name: string;
    readonly source: string;
    readonly destination: string;
  }[];
  /** Ports of this machine that are forwarded to it. */
  readonly publishedPorts: readonly number[];
  /** Those that it is given whenever it runs. While it starts, only these are known. */
  readonly boundPorts: readonly number[];
}

/** What Docker reports about one image. */
export interface Image {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  /** As Docker names it: amd64, arm64. Empty if it is unknown. */
  readonly architecture: string;
  /** The directories of its layers on this machine, the top one first. Empty if the engine does not tell. */
  readonly layers: readonly string[];
  /** What it takes on the disk; 0 if the engine does not tell. */
  readonly sizeBytes: number;
}

/** One image in an archive that `docker save` wrote. */
export interface ArchivedImage {
  /** As the Docker CLI shows it: `postgres:16-alpine`. */
  readonly reference: string;
  /** As Docker names it: amd64, arm64. Empty if the archive lacks what says it. */
  readonly architecture: string;
  /** The files of the archive that belong to it and are not there. */
  readonly lacks: readonly string[];
}

/** How a container was created, without what its image says. Its environment may contain secrets. */
export interface ContainerDefinition {
  readonly image: string;
  /** Null: the image's own. */
  readonly entrypoint: readonly string[] | null;
  readonly command: readonly string[] | null;
  readonly environment: Readonly<Record<string, string>>;
  /** Empty: the image's own. */
  readonly user: string;
  readonly workingDirectory: string;
  readonly networkMode: string;
  /** The user-defined networks that it is on. */
  readonly networks: readonly string[];
  readonly restart: string;
  readonly mounts: readonly {
    readonly type: "bind" | "volume";
    /** The path on this machine, or the name of the volume. */
    readonly source: string;
    readonly target: string;
    readonly readOnly: boolean;
  }[];
  /** As Compose writes them: `127.0.0.1:5432:5432/tcp`. */
  readonly ports: readonly string[];
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  readonly securityOptions: readonly string[];
  readonly extraHosts: readonly string[];
  readonly temporary: readonly string[];
  readonly readOnly: boolean;
  readonly privileged: boolean;
  readonly sharedMemoryBytes: number;
}

/** The engine and its Compose plugin. */
export interface DockerVersion {
  readonly version: string;
  readonly apiVersion: string;
  readonly minApiVersion: string;
  /** As Docker names it: amd64, arm64. */
  readonly architecture: string;
  readonly rootDirectory: string;
  readonly rootless: boolean;
  /** True if the engine maps the users of containers to others (userns-remap). */
  readonly userNamespaces: boolean;
}

/**
 * Reads Docker over its socket. If no engine is installed or none answers, `version` is null and the other
 * calls find nothing. If an engine answers with an error, the call throws an OperatorError.
 */
export interface DockerReader {
  version(): Promise<DockerVersion | null>;
  /** Why the engine does not answer, for people: "no /var/run/docker.sock", "connection refused". Null if it answers. */
  unreachable(): Promise<string | null>;
  composeVersion(): Promise<string | null>;
  /** All containers, including stopped ones. */
  containers(): Promise<readonly Container[]>;
  container(name: string): Promise<Container | null>;
  /** How a container was created; null if there is none. */
  definition(name: string): Promise<ContainerDefinition | null>;
  image(reference: string): Promise<Image | null>;
  volume(name: string): Promise<{
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly mountpoint: string;
    /** False if its data is at the mountpoint only while a container uses it: another driver, NFS, a device. */
    readonly isPlain: boolean;
  } | null>;
  /**
   * The output of `docker compose config --hash '*'` for each service of a document, to compare with the label
   * `com.docker.compose.config-hash` of the containers. The document need not be on disk: it is passed on stdin,
   * and the values in the child's environment. Throws if Compose cannot read it.
   */
  composeHashes(document: {
    readonly name: string;
    readonly text: string;
    readonly directory: string;
    readonly profiles: readonly string[];
    readonly environment: Readonly<Record<string, string>>;
  }): Promise<Readonly<Record<string, string>>>;
  /** The subnets of the engine's bridge networks (CIDR). Other machines cannot reach addresses in them. */
  bridgeSubnets(): Promise<readonly string[]>;
  /** All containers, also stopped ones, that use a volume, a network or an image (by its id). */
  usersOf(
    kind: "volume" | "network" | "image",
    name: string,
  ): Promise<readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[]>;
  /** All volumes. */
  listVolumes(): Promise<
    readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[]
  >;
  /** All networks. */
  listNetworks(): Promise<
    readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[]
  >;
  /** All images, without intermediate layers. An image without a tag lost it to a later build. */
  listImages(): Promise<
    readonly {
      readonly id: string;
      readonly tags: readonly string[];
      readonly labels: Readonly<Record<string, string>>;
    }[]
  >;
  /** The last lines of a container's log, from both streams. */
  logs(name: string, lines: number): Promise<string>;
  /**
   * The images of an archive, without asking the engine. Reads the file to its end. Throws an OperatorError: `usage` for a
   * file that is no archive of images, `integrity` for one that was cut off or altered.
   */
  readArchive(path: string): Promise<readonly ArchivedImage[]>;
  /** A container's log as a stream of lines, each with the engine's time before it; null if there is no such container. */
  openLog(name: string, options: LogOptions): Promise<AsyncIterable<string> | null>;
}

/** Which lines of a container's log. */
export interface LogOptions {
  readonly since?: Date;
  readonly until?: Date;
  /** Only the last lines; left out: all. */
  readonly tail?: number;
  /** True to go on with each new line until the signal comes. */
  readonly follow: boolean;
  readonly signal?: AbortSignal;
}

/** One compose project on disk. */
export interface ComposeProject {
  readonly name: string;
  readonly file: string;
  /** Where the values come from, for the command that an error shows. Compose itself reads only `environment`. */
  readonly envFile: string;
  readonly profiles: readonly string[];
  /** The values for the document's `${KEY}`. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Reads and changes Docker. */
export interface Docker extends DockerReader {
  /**
   * Uses the login that `docker login` saved for the image's registry, if there is one. With an architecture, that of the
   * image: otherwise the engine's own.
   */
  pull(reference: string, report: (line: string) => void, architecture?: string): Promise<void>;
  load(archive: string, report: (line: string) => void): Promise<void>;
  /**
   * Writes images to a file that `load` takes. It has that name only once it is complete, was read back, and is on the
   * disk; a file that was there is replaced. Throws an OperatorError, and then leaves nothing of it behind.
   */
  save(
    wanted: { readonly references: readonly string[]; readonly architecture: string },
    archive: string,
    report: (line: string) => void,
  ): Promise<void>;
  /** Uses the engine's classic builder, with the logins for the registries in the Dockerfile's FROM lines. */
  build(
    options: {
      readonly context: string;
      readonly dockerfile: string;
      readonly tag: string;
      readonly labels: Readonly<Record<string, string>>;
      readonly buildArgs: Readonly<Record<string, string>>;
      /** True if no layer of an earlier build may be used. */
      readonly noCache?: boolean;
    },
    report: (line: string) => void,
  ): Promise<void>;
  /**
   * `docker compose up -d --no-build --pull never` for these services. An empty list means all services. Neither
   * the shell's variables nor other keys of `.env` (COMPOSE_PROFILES) reach Compose.
   */
  composeUp(
    project: ComposeProject,
    services: readonly string[],
    report: (line: string) => void,
  ): Promise<void>;
  /** The same without starting: creates containers, networks and volumes. A container that must change is stopped and created anew. */
  composeCreate(
    project: ComposeProject,
    services: readonly string[],
    report: (line: string) => void,
  ): Promise<void>;
  /**
   * Runs a program in a container, with a text or a file of this machine as its standard input. Throws (`unhealthy`) unless it
   * exits with 0; `why` has its last lines.
   */
  runIn(
    container: string,
    argv: readonly string[],
    stdin: { readonly text: string } | { readonly file: string },
    options: { readonly timeoutMs: number },
  ): Promise<void>;
  /** Stops and starts a container, or starts a stopped one. Its configuration stays. */
  restart(container: string): Promise<void>;
  unpause(container: string): Promise<void>;
  /** Changes when the engine starts a container again by itself. The container goes on as it is. */
  setRestartPolicy(container: string, policy: string): Promise<void>;
  /** Stops a container with its own grace period. Does nothing if it is stopped or absent. */
  stop(container: string): Promise<void>;
  /** Stops a container with its own grace period and removes it. Its volumes stay. Does nothing if it is absent. */
  removeContainer(container: string): Promise<void>;
  /** Removes a network. Docker refuses while a container uses it. Does nothing if it is absent. */
  removeNetwork(name: string): Promise<void>;
  /** Removes a volume with its data. Docker refuses while a container uses it. Does nothing if it is absent. */
  removeVolume(name: string): Promise<void>;
  /** Removes a tag, or an image by its id. Docker refuses while a container uses it. Does nothing if it is absent. */
  removeImage(reference: string): Promise<void>;
}
