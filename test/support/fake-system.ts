import { OperatorError } from "../../src/errors.ts";
import type { Listener } from "../../src/machine/processes.ts";
import type { System } from "../../src/machine/system.ts";
import type { UnitState } from "../../src/machine/systemd.ts";
import type { WriteGate } from "./write-gate.ts";

/** The operating system of a fake host: a plain Debian 13 as root, until a test changes that. */
export class FakeSystem implements System {
  facts = {
    uid: 0,
    os: {
      id: "debian",
      versionId: "13",
      idLike: [] as readonly string[],
      prettyName: "Debian GNU/Linux 13 (trixie)",
      arch: "x64",
    },
    memoryBytes: 8 * 1024 ** 3,
    addresses: ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"] as readonly string[],
    clockSynchronised: true as boolean | null,
  };
  /** Programs on root's PATH, by name. */
  readonly programs = new Map<string, string>();
  readonly units = new Map<string, UnitState>();
  /** Names of running processes. */
  readonly processes = new Set<string>();
  listening: Listener[] = [];
  /** The distribution's packages: the name, and what the installation does on the box. */
  readonly packages = new Map<string, () => void>();
  readonly installed = new Set<string>();
  /** What enabling a unit does on the box, besides the unit's own state. */
  readonly onEnable = new Map<string, () => void>();
  /** Runs the commands of `runCommand`, and returns an exit code other than 0. Throws like the real one. */
  onCommand: (argv: readonly string[]) => number | void = (argv) => {
    throw new OperatorError({ exit: "unhealthy", what: `${argv[0]} is not there.` });
  };
  /** What the name servers say of a name. */
  ipv6: readonly string[] | null = [];
  /** Ports of other machines: `host:port`. */
  readonly listensElsewhere = new Set<string>();
  onDns: (name: string) => boolean | null = () => true;
  /** Why `tryProgram` fails; null if it works. */
  onTry: (argv: readonly string[], accept: readonly number[]) => string | null = () => null;
  readonly #gate: WriteGate;

  constructor(gate: WriteGate) {
    this.#gate = gate;
  }

  /** Adds a unit as `systemctl show` prints it. */
  putUnit(name: string, state: Partial<UnitState> = {}): void {
    const usual = { loaded: true, masked: false, active: false, atBoot: true, execStart: "" };
    this.units.set(keyOf(name), { name, ...usual, ...state });
  }

  uid(): number {
    this.#gate.look();
    return this.facts.uid;
  }

  async os() {
    this.#gate.look();
    return this.facts.os;
  }

  memoryBytes(): number {
    this.#gate.look();
    return this.facts.memoryBytes;
  }

  addresses(): readonly string[] {
    this.#gate.look();
    return this.facts.addresses;
  }

  async isInDns(name: string): Promise<boolean | null> {
    this.#gate.look();
    return this.onDns(name);
  }

  async ipv6InDns(): Promise<readonly string[] | null> {
    this.#gate.look();
    return this.ipv6;
  }

  async answersTcp(host: string, port: number): Promise<boolean> {
    this.#gate.look();
    return this.listensElsewhere.has(`${host}:${port}`);
  }

  async which(program: string): Promise<string | null> {
    this.#gate.look();
    return this.programs.get(program) ?? null;
  }

  async unit(name: string): Promise<UnitState | null> {
    this.#gate.look();
    return this.units.get(keyOf(name)) ?? null;
  }

  async listeners(): Promise<readonly Listener[]> {
    this.#gate.look();
    return this.listening;
  }

  async clockSynchronised(): Promise<boolean | null> {
    this.#gate.look();
    return this.facts.clockSynchronised;
  }

  async isRunning(process: string): Promise<boolean> {
    this.#gate.look();
    return this.processes.has(process);
  }

  async tryProgram(
    argv: readonly string[],
    { accept = [] }: { readonly accept?: readonly number[] } = {},
  ): Promise<string | null> {
    this.#gate.look();
    return this.onTry(argv, accept);
  }

  /** What apt would remove to install these. */
  onSimulate: (names: readonly string[]) => readonly string[] = () => [];

  async wouldRemove(names: readonly string[]): Promise<readonly string[]> {
    this.#gate.look();
    return this.onSimulate(names);
  }

  async installPackages(names: readonly string[], report: (line: string) => void): Promise<void> {
    await this.#gate.write(
      `system.installPackages ${names.join(" ")}`,
      () => {
        for (const name of names) this.#install(name, report);
      },
      () => {
        for (const name of names.slice(0, Math.floor(names.length / 2))) this.#install(name, report);
      },
    );
  }

  async enableUnit(name: string): Promise<void> {
    await this.#gate.write(`system.enableUnit ${name}`, () => {
      const key = keyOf(name);
      const unit = this.units.get(key);
      if (unit === undefined)
        throw new OperatorError({ exit: "unavailable", what: `There is no unit ${name}.` });
      this.units.set(key, { ...unit, active: true, atBoot: true });
      this.onEnable.get(key)?.();
    });
  }

  async runCommand(
    argv: readonly string[],
    { accept = [] }: { readonly accept?: readonly number[] } = {},
  ): Promise<number> {
    let exitCode = 0;
    await this.#gate.write(`system.runCommand ${argv.join(" ")}`, () => {
      exitCode = this.onCommand(argv) ?? 0;
    });
    if ([0, ...accept].includes(exitCode)) return exitCode;
    throw new OperatorError({
      exit: "unhealthy",
      what: `${argv.join(" ")} ended with exit code ${exitCode}.`,
    });
  }

  #install(name: string, report: (line: string) => void): void {
    const effect = this.packages.get(name);
    if (effect === undefined) {
      throw new OperatorError({ exit: "unavailable", what: `The package ${name} cannot be installed.` });
    }
    report(`Setting up ${name} ...`);
    this.installed.add(name);
    effect();
  }
}

/** systemd takes a name without a suffix for a service. */
function keyOf(unit: string): string {
  return unit.replace(/\.service$/, "");
}
