import { randomBytes } from "node:crypto";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { SHUT_DOWN } from "./box-disk.ts";
import {
  type BoxImage,
  type Checkpoint,
  createContainer,
  createDiskVolume,
  createNetwork,
  createVolume,
  docker,
  removeContainer,
  removeLeftovers,
  removeNetwork,
  saveImage,
} from "./box-engine.ts";
import { type BoxSnapshot, HOLD_CRON, parseSnapshot, SNAPSHOT_SCRIPT } from "./box-snapshot.ts";

export { type Checkpoint, requireBoxes } from "./box-engine.ts";

export interface BootOptions {
  /** The box's hostname, and its name on `network`. */
  readonly name?: string;
  readonly image: BoxImage;
  /** A network made by `Box.network`; else the engine's default bridge. */
  readonly network?: string;
  /** `seeded` has all images of the registry already: the default of `docker`. `fresh` is the default of `plain`. */
  readonly dockerVolume?: "fresh" | "seeded";
  /** The mount point of the box's volume: by default the directory of its engine's data. */
  readonly disk?: string;
  /** True if what it writes is on a disk that `cutPower` cuts off (box-disk.ts). */
  readonly canLosePower?: boolean;
  /** True if it stays after this process has ended. Otherwise the next test run removes it. */
  readonly kept?: boolean;
}

export interface ExecOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly user?: string;
  /** After this time the command is killed inside the box, and its exit code is 124. */
  readonly timeoutMs?: number;
  /** Gives the command a terminal. All of its output arrives on stdout then. */
  readonly tty?: boolean;
}

export interface ExecResult {
  readonly exitCode: number;
  /** Without the last newline, as stderr. */
  readonly stdout: string;
  readonly stderr: string;
}

const BOOT_DEADLINE_MS = 90_000;
const EXEC_TIMEOUT_MS = 600_000;

/** A Debian 13 machine of its own: systemd as PID 1, its own address, its own Docker engine (facts: test/images/README.md). */
export class Box {
  readonly name: string;
  /** The container's name in the outer engine. */
  readonly container: string;
  readonly #image: BoxImage;

  private constructor(name: string, container: string, image: BoxImage) {
    this.name = name;
    this.container = container;
    this.#image = image;
  }

  /** Boots a box and waits until systemd has started everything and the box's engine, if it has one, answers. */
  static async boot({ image, network, ...options }: BootOptions): Promise<Box> {
    const suffix = randomBytes(4).toString("hex");
    const name = options.name ?? `box-${suffix}`;
    const box = new Box(name, `fula-node-box-${name}-${suffix}`, image);
    try {
      const { kept = false, canLosePower = false } = options;
      const disk = canLosePower ? null : (options.disk ?? "/var/lib/docker");
      const volume = options.dockerVolume ?? (image === "docker" ? "seeded" : "fresh");
      if (canLosePower) await createDiskVolume(box.container, volume);
      else await createVolume(box.container, kept, volume);
      await createContainer({ container: box.container, hostname: name, image, network, disk, kept });
      await box.#untilReady();
    } catch (error) {
      await box.destroy();
      throw error;
    }
    return box;
  }

  /** Boots another box in the state of a saved one, with its hostname; on a network if one is given. */
  static async bootFrom(from: Checkpoint, network?: string): Promise<Box> {
    const suffix = randomBytes(4).toString("hex");
    const box = new Box(from.hostname, `fula-node-box-${from.hostname}-${suffix}`, from.image);
    try {
      await createVolume(box.container, false, from);
      const { image, hostname } = from;
      const disk = "/var/lib/docker";
      const spec = { container: box.container, hostname, image, from, network, disk, kept: false };
      await createContainer(spec);
      await box.#untilReady();
    } catch (error) {
      await box.destroy();
      throw error;
    }
    return box;
  }

  /** Creates a network for boxes and returns its name. */
  static async network(): Promise<string> {
    const name = `fula-node-box-net-${randomBytes(4).toString("hex")}`;
    await createNetwork(name);
    return name;
  }

  /** Removes such a network. Its boxes must be destroyed before. */
  static async removeNetwork(name: string): Promise<void> {
    await removeNetwork(name);
  }

  /** Removes the boxes, volumes and networks of this process and of crashed runs, not those of another live run. */
  static async destroyAll(): Promise<void> {
    await removeLeftovers();
  }

  /** Runs a command (a string runs in bash) and returns how it ended. No exit code makes it throw. */
  async exec(command: readonly string[] | string, options: ExecOptions = {}): Promise<ExecResult> {
    const timeoutMs = options.timeoutMs ?? EXEC_TIMEOUT_MS;
    const result = await execa("docker", this.#execArguments(command, timeoutMs, options), {
      ...(options.input === undefined ? { stdin: "ignore" } : { input: options.input }),
      reject: false,
      // Usually the box ends the command. This limit is for a paused or dead box.
      timeout: timeoutMs + 15_000,
    });
    const { exitCode = 124, stdout, stderr } = result;
    return {
      exitCode,
      stdout,
      stderr: stderr || (result.exitCode === undefined ? (result.message ?? "") : ""),
    };
  }

  /** Like `exec`, but throws with all the output if the exit code is not 0. */
  async run(command: readonly string[] | string, options: ExecOptions = {}): Promise<ExecResult> {
    const result = await this.exec(command, options);
    if (result.exitCode === 0) return result;
    const shown = typeof command === "string" ? command : command.join(" ");
    throw new Error(
      `${this.name}: exit code ${result.exitCode} from: ${shown}\n--- stdout\n${result.stdout}\n--- stderr\n${result.stderr}`,
    );
  }

  /** Copies a file or a directory of this machine into the box, as `docker cp` does. Creates parent directories. */
  async copyIn(hostPath: string, boxPath: string): Promise<void> {
    await this.run(["mkdir", "-p", dirname(boxPath)]);
    await docker("cp", hostPath, `${this.container}:${boxPath}`);
  }

  /** Writes a file as root with exactly that mode. Creates parent directories. */
  async writeFile(path: string, text: string, mode = 0o644): Promise<void> {
    const script = 'mkdir -p "$(dirname "$1")" && (umask 077 && cat >"$1") && chmod "$2" "$1"';
    await this.run(["bash", "-c", script, "write", path, mode.toString(8)], { input: text });
  }

  /** The exact text of the file. Throws if there is none. */
  async readFile(path: string): Promise<string> {
    const { stdout } = await execa("docker", ["exec", this.container, "cat", path], {
      stripFinalNewline: false,
    });
    return stdout;
  }

  /** The box's address on its network. `start` may change it. */
  async address(): Promise<string> {
    const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    const [address] = (await docker("inspect", "--format", format, this.container)).split(" ");
    if (!address) throw new Error(`${this.name} has no address`);
    return address;
  }

  /**
   * A power cut of a box with `canLosePower`, right after a script has succeeded: its disk keeps only what has reached it. Then every
   * process of the box ends at once. What fails in between has told nobody that it succeeded. Returns what the script printed.
   */
  async cutPower(script = ":"): Promise<string> {
    const { stdout } = await this.run(["bash", "-ec", `${script}\nexec "$@"`, "cut", ...SHUT_DOWN]);
    await this.kill();
    return stdout;
  }

  /** Ends every process of the box at once. Everything that was written to files stays, synced or not. */
  async kill(): Promise<void> {
    await docker("kill", this.container);
  }

  /** A regular shutdown, as with the power button. */
  async shutdown(): Promise<void> {
    await docker("stop", "--time=90", this.container);
  }

  /** Shuts the box down and saves it, to boot others in its state (`bootFrom`) until it is destroyed. It must not start again. */
  async save(): Promise<Checkpoint> {
    await this.shutdown();
    const checkpoint = { container: this.container, hostname: this.name, image: this.#image };
    await saveImage(checkpoint);
    return checkpoint;
  }

  /** Boots a killed or shut down box again, from the same disk. */
  async start(): Promise<void> {
    await docker("start", this.container);
    await this.#untilReady();
  }

  /** A hang: nothing in the box runs until `unpause`. */
  async pause(): Promise<void> {
    await docker("pause", this.container);
  }

  async unpause(): Promise<void> {
    await docker("unpause", this.container);
  }

  /** A network partition: disconnects the box from its network. */
  async disconnect(network: string): Promise<void> {
    await docker("network", "disconnect", network, this.container);
  }

  /** Ends a partition. The box has the same name on the network. */
  async connect(network: string): Promise<void> {
    await docker("network", "connect", "--alias", this.name, network, this.container);
  }

  /** Removes the box and all its data. */
  async destroy(): Promise<void> {
    await removeContainer(this.container);
  }

  /** Pulls these images into the box's own engine, from the test registry, if it lacks them. */
  async preloadImages(names: readonly string[]): Promise<void> {
    const script =
      'for image; do docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image"; done';
    await this.run(["bash", "-ec", script, "preload", ...names]);
  }

  /** The files below these paths and the whole state of the box's engine, to check that nothing was changed. */
  async snapshot(
    paths: readonly string[] = ["/opt", "/etc/cron.d", "/etc/systemd/system"],
  ): Promise<BoxSnapshot> {
    const { stdout } = await this.run(["bash", "-c", SNAPSHOT_SCRIPT, "snapshot", ...paths]);
    return parseSnapshot(stdout);
  }

  #execArguments(command: readonly string[] | string, timeoutMs: number, options: ExecOptions): string[] {
    const words = typeof command === "string" ? ["bash", "-c", command] : [...command];
    // docker provides a terminal only to callers that have one. script(1) creates one.
    const inner = options.tty ? ["script", "-qec", quoteForShell(words), "/dev/null"] : words;
    const flags = [
      ...(options.input === undefined ? [] : ["--interactive"]),
      ...(options.user === undefined ? [] : [`--user=${options.user}`]),
      ...Object.entries(options.env ?? {}).map(([key, value]) => `--env=${key}=${value}`),
    ];
    return ["exec", ...flags, this.container, "timeout", "--kill-after=5", `${timeoutMs / 1000}`, ...inner];
  }

  async #untilReady(): Promise<void> {
    const deadline = Date.now() + BOOT_DEADLINE_MS;
    const isReady =
      "state=$(systemctl is-system-running --wait 2>&1); " +
      '[ "$state" = running ] || [ "$state" = degraded ] || { echo "systemd: $state" >&2; exit 1; }' +
      (this.#image === "docker" ? "; docker version >/dev/null" : "");
    for (;;) {
      const { exitCode, stderr } = await this.exec(isReady, {
        timeoutMs: Math.max(deadline - Date.now(), 1000),
      });
      if (exitCode === 0) {
        await this.run(HOLD_CRON);
        return;
      }
      if (Date.now() > deadline || stderr.includes("is not running")) {
        const log = await docker("logs", "--tail", "20", this.container);
        throw new Error(
          `${this.name} did not come up within ${BOOT_DEADLINE_MS / 1000} s: ${stderr}\n${log}`,
        );
      }
      await sleep(50);
    }
  }
}

function quoteForShell(words: readonly string[]): string {
  return words.map((word) => `'${word.replaceAll("'", String.raw`'\''`)}'`).join(" ");
}
