/** What Docker says of one container. */
export interface Container {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly imageId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly status: "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";
  /** Null where the image and the compose file give no healthcheck. */
  readonly health: "starting" | "healthy" | "unhealthy" | null;
  /** What the last failed healthcheck printed. */
  readonly healthOutput: string;
  readonly exitCode: number;
  readonly restartCount: number;
  readonly startedAt: string;
  readonly pid: number;
  readonly networkMode: string;
  readonly mounts: readonly {
    readonly type: string;
    readonly name: string;
    readonly source: string;
    readonly destination: string;
  }[];
  /** Ports of this machine that lead into it. */
  readonly publishedPorts: readonly number[];
}

/** The engine and its Compose plugin. */
export interface DockerVersion {
  readonly version: string;
  readonly apiVersion: string;
  readonly minApiVersion: string;
  readonly rootDirectory: string;
  readonly rootless: boolean;
}

/**
 * Looks at Docker over its socket. Where no engine is installed or none answers, `version` is null and
 * the other calls find nothing; an engine that answers with an error throws an OperatorError.
 */
export interface DockerReader {
  version(): Promise<DockerVersion | null>;
  /** Why no engine answers, for a person: "no /var/run/docker.sock", "connection refused". Null when it does. */
  unreachable(): Promise<string | null>;
  composeVersion(): Promise<string | null>;
  /** All containers, stopped ones too. */
  containers(): Promise<readonly Container[]>;
  container(name: string): Promise<Container | null>;
  image(
    reference: string,
  ): Promise<{ readonly id: string; readonly labels: Readonly<Record<string, string>> } | null>;
  volume(name: string): Promise<{
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly mountpoint: string;
  } | null>;
  /**
   * What `docker compose config --hash '*'` makes of each service of a document that need not be on disk
   * (it goes in by stdin, the values by the child's environment), to compare with the label
   * `com.docker.compose.config-hash` of the containers. Throws where Compose can't read it.
   */
  composeHashes(document: {
    readonly name: string;
    readonly text: string;
    readonly directory: string;
    readonly profiles: readonly string[];
    readonly environment: Readonly<Record<string, string>>;
  }): Promise<Readonly<Record<string, string>>>;
  /** The subnets of the engine's bridge networks (CIDR): addresses in them lead nowhere from another machine. */
  bridgeSubnets(): Promise<readonly string[]>;
  /** All volumes. */
  listVolumes(): Promise<
    readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[]
  >;
  /** All networks. */
  listNetworks(): Promise<
    readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[]
  >;
  /** All images, layers in between left out; one without a tag has lost it to another build. */
  listImages(): Promise<
    readonly {
      readonly id: string;
      readonly tags: readonly string[];
      readonly labels: Readonly<Record<string, string>>;
    }[]
  >;
  /** The last lines of a container's log, both streams. */
  logs(name: string, lines: number): Promise<string>;
}

/** One compose project on disk. */
export interface ComposeProject {
  readonly name: string;
  readonly file: string;
  readonly envFile: string;
  readonly profiles: readonly string[];
}

/** Changes what Docker has. */
export interface Docker extends DockerReader {
  /** With the login that `docker login` has left for the image's registry, where there is one. */
  pull(reference: string, report: (line: string) => void): Promise<void>;
  load(archive: string, report: (line: string) => void): Promise<void>;
  /** By the engine's classic builder, with the logins of the registries that the Dockerfile's FROM lines name. */
  build(
    options: {
      readonly context: string;
      readonly dockerfile: string;
      readonly tag: string;
      readonly labels: Readonly<Record<string, string>>;
      readonly buildArgs: Readonly<Record<string, string>>;
    },
    report: (line: string) => void,
  ): Promise<void>;
  /** `docker compose up -d --no-build --pull never`, for these services only (none named: all). */
  composeUp(
    project: ComposeProject,
    services: readonly string[],
    report: (line: string) => void,
  ): Promise<void>;
  restart(container: string): Promise<void>;
  /** Stops a container as its own grace period has it and removes it; its volumes stay. An absent one is fine. */
  removeContainer(container: string): Promise<void>;
  /** Removes a network; refused while a container is on it. An absent one is fine. */
  removeNetwork(name: string): Promise<void>;
  /** Removes a volume and all that is on it; refused while a container has it. An absent one is fine. */
  removeVolume(name: string): Promise<void>;
  /** Takes a tag, or an image by its id, away; refused while a container was made of it. An absent one is fine. */
  removeImage(reference: string): Promise<void>;
}
