import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type {
  ArchivedImage,
  ComposeProject,
  Container,
  ContainerDefinition,
  Docker,
  DockerVersion,
  Image,
  LogOptions,
} from "../../src/docker/engine.ts";
import { OperatorError } from "../../src/errors.ts";
import { readComposeProject, type WantedContainer } from "./fake-compose.ts";
import type { WriteGate } from "./write-gate.ts";

type FakeImage = Image;

interface FakeVolume {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly mountpoint: string;
  readonly isPlain: boolean;
}

const PROJECT = "com.docker.compose.project";
const SERVICE = "com.docker.compose.service";
const CONFIG_HASH = "com.docker.compose.config-hash";

/** The engine of a fake host. It is up and empty until a test changes that. */
export class FakeDocker implements Docker {
  /** Null if no engine answers. `whyUnreachable` then says why. */
  engine: DockerVersion | null = {
    version: "26.1.5",
    apiVersion: "1.45",
    minApiVersion: "1.24",
    architecture: "amd64",
    rootDirectory: "/var/lib/docker",
    rootless: false,
    userNamespaces: false,
  };
  whyUnreachable = "no /var/run/docker.sock";
  compose: string | null = "2.26.1";
  readonly boxes = new Map<string, Container>();
  readonly images = new Map<string, FakeImage>();
  readonly volumes = new Map<string, FakeVolume>();
  /** Subnets of its bridge networks. */
  bridges: readonly string[] = ["172.17.0.0/16"];
  /** Labels by name. */
  readonly networks = new Map<string, Readonly<Record<string, string>>>();
  /** What differs in a container's definition from what its state shows. */
  readonly definitions = new Map<string, Partial<ContainerDefinition>>();
  /** Networks that containers were connected to later, by the container. */
  readonly connected = new Map<string, string>();
  readonly logTexts = new Map<string, string>();
  /** The images of the registry. A pull of any other image fails. */
  readonly registry = new Map<string, Readonly<Record<string, string>>>();
  /** The environment of images, by reference. */
  readonly imageEnvs = new Map<string, Readonly<Record<string, string>>>();
  /** The images of archives for `docker load`, by path. */
  readonly archives = new Map<string, readonly string[]>();
  /** What is said of every image of an archive. */
  archived: Pick<ArchivedImage, "architecture" | "lacks"> = { architecture: "amd64", lacks: [] };
  /** Changes a container that compose or a restart has just started: its health, its exit. */
  onStart: (container: Container) => Container = (container) => container;
  /** Called when Compose has created a volume. */
  onVolumeMade: (name: string) => void = () => {};
  /** Called when a volume and its data are removed. */
  onVolumeGone: (name: string) => void = () => {};
  readonly #gate: WriteGate;
  readonly #now: () => Date;
  readonly #textOf: (path: string) => string;
  #made = 0;

  /** `textOf` returns the text of a file on the fake box. */
  constructor(gate: WriteGate, now: () => Date, textOf: (path: string) => string) {
    this.#gate = gate;
    this.#now = now;
    this.#textOf = textOf;
  }

  /** Adds a container that fula-node did not create, without the gate. By default it runs and has no healthcheck. */
  putContainer(name: string, fields: Partial<Container> = {}): Container {
    this.#made += 1;
    const container: Container = {
      id: digest(`container ${this.#made}`),
      name,
      image: "busybox:latest",
      imageId: `sha256:${digest(fields.image ?? "busybox:latest")}`,
      labels: {},
      env: {},
      status: "running",
      health: null,
      healthOutput: "",
      exitCode: 0,
      oomKilled: false,
      restartCount: 0,
      restartPolicy: "unless-stopped",
      startedAt: this.#now().toISOString(),
      pid: 1000 + this.#made,
      networkMode: "host",
      mounts: [],
      publishedPorts: [],
      boundPorts: [],
      ...fields,
    };
    this.boxes.set(name, container);
    return container;
  }

  /** Adds an image, without the gate. Its environment is that of `imageEnvs`. */
  putImage(
    reference: string,
    labels: Readonly<Record<string, string>> = {},
    fields: Partial<Image> = {},
  ): void {
    this.images.set(reference, {
      id: `sha256:${digest(reference + JSON.stringify(labels))}`,
      labels,
      env: this.imageEnvs.get(reference) ?? {},
      architecture: "amd64",
      layers: [],
      sizeBytes: 100_000_000,
      ...fields,
    });
  }

  /** Adds a volume, without the gate. */
  putVolume(name: string, labels: Readonly<Record<string, string>> = {}): void {
    const mountpoint = `/var/lib/docker/volumes/${name}/_data`;
    this.volumes.set(name, { name, labels, mountpoint, isPlain: true });
  }

  async version(): Promise<DockerVersion | null> {
    this.#gate.look();
    return this.engine;
  }

  async unreachable(): Promise<string | null> {
    this.#gate.look();
    return this.engine === null ? this.whyUnreachable : null;
  }

  async composeVersion(): Promise<string | null> {
    this.#gate.look();
    return this.compose;
  }

  async composeHashes(
    document: Parameters<Docker["composeHashes"]>[0],
  ): Promise<Readonly<Record<string, string>>> {
    this.#gate.look();
    const { containers } = readComposeProject({ ...document, file: "-" });
    return Object.fromEntries(containers.map(({ service, configHash }) => [service, configHash]));
  }

  async containers(): Promise<readonly Container[]> {
    this.#gate.look();
    return this.engine === null ? [] : [...this.boxes.values()];
  }

  async container(name: string): Promise<Container | null> {
    this.#gate.look();
    return this.engine === null ? null : (this.boxes.get(name) ?? null);
  }

  async definition(name: string): Promise<ContainerDefinition | null> {
    const container = await this.container(name);
    if (container === null) return null;
    const { image, env, networkMode, mounts, publishedPorts, restartPolicy } = container;
    return {
      image,
      entrypoint: null,
      command: null,
      environment: env,
      user: "",
      workingDirectory: "",
      networkMode,
      networks: [],
      restart: restartPolicy,
      mounts: mounts.map(({ type, name: volume, source, destination }) => ({
        type: type === "bind" ? "bind" : "volume",
        source: type === "bind" ? source : volume,
        target: destination,
        readOnly: false,
      })),
      ports: publishedPorts.map((port) => `127.0.0.1:${port}:${port}/tcp`),
      capAdd: [],
      capDrop: [],
      securityOptions: [],
      extraHosts: [],
      temporary: [],
      readOnly: false,
      privileged: false,
      sharedMemoryBytes: 0,
      ...this.definitions.get(name),
    };
  }

  async image(reference: string): Promise<FakeImage | null> {
    this.#gate.look();
    return this.engine === null ? null : (this.images.get(reference) ?? null);
  }

  async volume(name: string): Promise<FakeVolume | null> {
    this.#gate.look();
    return this.engine === null ? null : (this.volumes.get(name) ?? null);
  }

  async bridgeSubnets(): Promise<readonly string[]> {
    this.#gate.look();
    return this.engine === null ? [] : this.bridges;
  }

  async usersOf(kind: "volume" | "network" | "image", name: string): ReturnType<Docker["usersOf"]> {
    this.#gate.look();
    if (this.engine === null) return [];
    const uses = ({ name: container, mounts, networkMode, imageId }: Container) =>
      kind === "volume"
        ? mounts.some((mount) => mount.name === name)
        : kind === "image"
          ? imageId === name
          : networkMode === name || this.connected.get(container) === name;
    return [...this.boxes.values()].filter(uses).map(({ name: user, labels }) => ({ name: user, labels }));
  }

  async listVolumes(): ReturnType<Docker["listVolumes"]> {
    this.#gate.look();
    return this.engine === null
      ? []
      : [...this.volumes.values()].map(({ name, labels }) => ({ name, labels }));
  }

  async listNetworks(): ReturnType<Docker["listNetworks"]> {
    this.#gate.look();
    return this.engine === null ? [] : [...this.networks].map(([name, labels]) => ({ name, labels }));
  }

  async listImages(): ReturnType<Docker["listImages"]> {
    this.#gate.look();
    if (this.engine === null) return [];
    const byId = new Map<string, { id: string; tags: string[]; labels: FakeImage["labels"] }>();
    for (const [reference, { id, labels }] of this.images) {
      const image = byId.get(id) ?? { id, tags: [], labels };
      if (reference !== id) image.tags.push(reference);
      byId.set(id, image);
    }
    return [...byId.values()];
  }

  async logs(name: string, lines: number): Promise<string> {
    this.#gate.look();
    return (this.logTexts.get(name) ?? "").split("\n").slice(-lines).join("\n");
  }

  async openLog(name: string, { tail }: LogOptions): Promise<AsyncIterable<string> | null> {
    this.#gate.look();
    if (this.engine === null || !this.boxes.has(name)) return null;
    const lines = (this.logTexts.get(name) ?? "").split("\n").filter((line) => line !== "");
    return Readable.from(tail === undefined ? lines : lines.slice(-tail));
  }

  async pull(
    reference: string,
    report: (line: string) => void,
    architecture = this.engine?.architecture ?? "amd64",
  ): Promise<void> {
    await this.#write(`docker.pull ${reference}`, () => {
      const labels = this.registry.get(reference);
      if (labels === undefined) throw unavailable(`Cannot pull ${reference}.`, "not found");
      report(`${reference}: pulled`);
      this.putImage(reference, labels, { architecture });
    });
  }

  async readArchive(path: string): Promise<readonly ArchivedImage[]> {
    this.#gate.look();
    const references = this.archives.get(path);
    if (references === undefined)
      throw new OperatorError({ exit: "usage", what: `${path} is not an archive of images.` });
    const { architecture, lacks } = this.archived;
    return references.map((reference) => ({ reference, architecture, lacks }));
  }

  async save(
    { references }: Parameters<Docker["save"]>[0],
    archive: string,
    report: (line: string) => void,
  ): Promise<void> {
    await this.#write(`docker.save ${archive}`, () => {
      this.archives.set(archive, references);
      report(`${archive}: reading it back`);
    });
  }

  async load(archive: string, report: (line: string) => void): Promise<void> {
    await this.#write(`docker.load ${archive}`, () => {
      const references = this.archives.get(archive);
      if (references === undefined) throw unavailable(`Cannot read ${archive}.`, "no such file");
      for (const reference of references) this.putImage(reference);
      report(`Loaded ${references.length} images`);
    });
  }

  async build(options: Parameters<Docker["build"]>[0], report: (line: string) => void): Promise<void> {
    await this.#write(
      `docker.build ${options.tag}${options.noCache === true ? " without its cache" : ""}`,
      () => {
        report(`building ${options.tag}`);
        this.putImage(options.tag, options.labels);
      },
    );
  }

  async composeUp(
    project: ComposeProject,
    services: readonly string[],
    report: (line: string) => void,
  ): Promise<void> {
    await this.#compose("composeUp", project, services, (created) => {
      if (created.status !== "running") this.#start(created);
      report(`Container ${created.name} Started`);
    });
  }

  async composeCreate(
    project: ComposeProject,
    services: readonly string[],
    report: (line: string) => void,
  ): Promise<void> {
    await this.#compose("composeCreate", project, services, ({ name }) =>
      report(`Container ${name} Created`),
    );
  }

  async #compose(
    verb: string,
    project: ComposeProject,
    services: readonly string[],
    then: (created: Container) => void,
  ): Promise<void> {
    const all = () => {
      const wanted = readComposeProject({ ...project, text: this.#textOf(project.file) });
      for (const name of services) {
        if (!wanted.containers.some(({ service }) => service === name)) {
          throw unavailable(`docker compose up failed.`, `no such service: ${name}`);
        }
      }
      for (const { name, labels } of wanted.volumes) {
        if (this.volumes.has(name)) continue;
        this.putVolume(name, labels);
        this.onVolumeMade(name);
      }
      for (const { name, labels } of wanted.networks) this.networks.set(name, labels);
      return wanted.containers.filter(({ service }) => services.length === 0 || services.includes(service));
    };
    await this.#write(
      `docker.${verb} ${[project.name, ...services].join(" ")}`,
      () => {
        for (const wanted of all()) then(this.#create(wanted));
      },
      () => {
        const [first] = all();
        if (first !== undefined) this.#create(first);
      },
    );
  }

  async stop(name: string): Promise<void> {
    await this.#write(`docker.stop ${name}`, () => {
      const container = this.boxes.get(name);
      if (container !== undefined) this.boxes.set(name, { ...container, status: "exited", pid: 0 });
    });
  }

  async restart(name: string): Promise<void> {
    await this.#write(`docker.restart ${name}`, () => {
      const container = this.boxes.get(name);
      if (container === undefined) throw unavailable(`Cannot restart ${name}.`, "no such container");
      this.#start(container);
    });
  }

  async unpause(name: string): Promise<void> {
    await this.#write(`docker.unpause ${name}`, () => {
      const container = this.boxes.get(name);
      if (container?.status !== "paused") throw unavailable(`Cannot unpause ${name}.`, "it is not paused");
      this.boxes.set(name, { ...container, status: "running" });
    });
  }

  async runIn(container: string, argv: readonly string[]): Promise<void> {
    await this.#write(`docker.runIn ${container} ${argv[0] ?? ""}`, () => {});
  }

  async setRestartPolicy(name: string, restartPolicy: string): Promise<void> {
    await this.#write(`docker.setRestartPolicy ${name}`, () => {
      const container = this.boxes.get(name);
      if (container === undefined) throw unavailable(`Cannot update ${name}.`, "no such container");
      this.boxes.set(name, { ...container, restartPolicy });
    });
  }

  async removeContainer(name: string): Promise<void> {
    const stop = () => {
      const container = this.boxes.get(name);
      if (container !== undefined) this.boxes.set(name, { ...container, status: "exited", pid: 0 });
    };
    await this.#write(`docker.removeContainer ${name}`, () => void this.boxes.delete(name), stop);
  }

  async removeNetwork(name: string): Promise<void> {
    await this.#write(`docker.removeNetwork ${name}`, () => {
      const user = [...this.boxes.values()].find(
        ({ networkMode, name: container }) => networkMode === name || this.connected.get(container) === name,
      );
      if (user !== undefined) throw unavailable(`Cannot remove ${name}.`, `it has ${user.name} on it`);
      this.networks.delete(name);
    });
  }

  async removeVolume(name: string): Promise<void> {
    await this.#write(`docker.removeVolume ${name}`, () => {
      const user = [...this.boxes.values()].find(({ mounts }) => mounts.some((mount) => mount.name === name));
      if (user !== undefined) throw unavailable(`Cannot remove ${name}.`, `it is in use by ${user.name}`);
      this.volumes.delete(name);
      this.onVolumeGone(name);
    });
  }

  async removeImage(reference: string): Promise<void> {
    await this.#write(`docker.removeImage ${reference}`, () => {
      const id = this.images.get(reference)?.id;
      const user = [...this.boxes.values()].find(({ imageId }) => imageId === id);
      if (id !== undefined && user !== undefined)
        throw unavailable(`Cannot remove ${reference}.`, `${user.name} was made of it`);
      this.images.delete(reference);
    });
  }

  async #write(label: string, effect: () => void, half?: () => void): Promise<void> {
    await this.#gate.write(
      label,
      () => {
        if (this.engine === null) throw unavailable("Docker does not answer.", this.whyUnreachable);
        effect();
      },
      half,
    );
  }

  #create({ container, configHash }: WantedContainer): Container {
    const image = this.images.get(container.image);
    if (image === undefined)
      throw unavailable("docker compose up failed.", `No such image: ${container.image}`);
    const there = this.boxes.get(container.name);
    const labels: Record<string, string> = {
      ...image.labels,
      ...container.labels,
      [CONFIG_HASH]: configHash,
    };
    const isItsOwn = [PROJECT, SERVICE].every((label) => there?.labels[label] === labels[label]);
    if (there !== undefined && !isItsOwn) {
      throw unavailable(
        "docker compose up failed.",
        `the container name ${container.name} is already in use`,
      );
    }
    const same = there?.labels[CONFIG_HASH] === configHash && there.imageId === image.id;
    if (there !== undefined && same) return there;
    return this.putContainer(container.name, {
      ...container,
      labels,
      imageId: image.id,
      status: "created",
      health: container.health === null ? null : "starting",
      pid: 0,
    });
  }

  #start(container: Container): void {
    this.#made += 1;
    const started: Container = {
      ...container,
      status: "running",
      health: container.health === null ? null : "healthy",
      exitCode: 0,
      oomKilled: false,
      restartCount: 0,
      pid: 1000 + this.#made,
      startedAt: this.#now().toISOString(),
    };
    this.boxes.set(container.name, this.onStart(started));
  }
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function unavailable(what: string, why: string): OperatorError {
  return new OperatorError({ exit: "unavailable", what, why });
}
