import { existsSync } from "node:fs";
import { OperatorError } from "../errors.ts";
import { type ProgramEnvironment, type ProgramResult, runProgram } from "./run-program.ts";

/** The state of a systemd unit, from `systemctl show`. */
export interface UnitState {
  readonly name: string;
  readonly loaded: boolean;
  /** True if nothing can start it: `systemctl mask`. */
  readonly masked: boolean;
  readonly active: boolean;
  /** True if it is started at every boot, or by another unit. */
  readonly atBoot: boolean;
  readonly execStart: string;
}

const READ_TIMEOUT_MS = 20_000;
const START_TIMEOUT_MS = 180_000;
/** sd_booted(3): this directory exists if and only if systemd is the init system. */
const SYSTEMD_RUNS = "/run/systemd/system";
const TIMESYNC_MARK = "/run/systemd/timesync/synchronized";

/** The states of a unit file (systemctl(1), is-enabled) with which a boot starts it; `generated` is for an init script. */
const AT_BOOT: ReadonlySet<string> = new Set(["enabled", "static", "alias", "indirect", "generated"]);

/** True while systemd is the init system of this machine. */
function isSystemdRunning(): boolean {
  return existsSync(SYSTEMD_RUNS);
}

/** The state of a unit. Null if systemd does not know it or does not run. */
export async function readUnit(
  name: string,
  env: ProgramEnvironment,
  systemd = isSystemdRunning(),
): Promise<UnitState | null> {
  if (!systemd) return null;
  const properties = ["LoadState", "ActiveState", "UnitFileState", "ExecStart"].flatMap((property) => [
    "-p",
    property,
  ]);
  const result = await runProgram(["systemctl", "show", "--no-pager", ...properties, "--", name], {
    env,
    timeoutMs: READ_TIMEOUT_MS,
  });
  if (result.exitCode !== 0) throw failed(`systemd can't report the state of ${name}.`, result);
  return parseUnit(name, result.stdout);
}

/** Parses the output of `systemctl show -p LoadState,ActiveState,UnitFileState,ExecStart`. Null if the unit was not found. */
export function parseUnit(name: string, text: string): UnitState | null {
  const values = (key: string) =>
    text.split("\n").flatMap((line) => (line.startsWith(`${key}=`) ? [line.slice(key.length + 1)] : []));
  const load = values("LoadState")[0] ?? "not-found";
  if (load === "not-found") return null;
  const commands = values("ExecStart").flatMap(
    (value) => /argv\[\]=(.*?) ; ignore_errors=/.exec(value)?.[1] ?? [],
  );
  return {
    name,
    loaded: load === "loaded",
    masked: load === "masked",
    active: values("ActiveState")[0] === "active",
    atBoot: AT_BOOT.has(values("UnitFileState")[0] ?? ""),
    execStart: commands.join("; "),
  };
}

/**
 * Enables and starts a unit. Without systemd its init script starts it (Debian's packages have already
 * enabled it). Docker is not started that way: the operator must start `dockerd`.
 */
export async function enableUnit(
  name: string,
  env: ProgramEnvironment,
  systemd = isSystemdRunning(),
): Promise<void> {
  const service = name.replace(/\.service$/, "");
  if (systemd) {
    const argv = ["systemctl", "enable", "--now", "--", name];
    const result = await runProgram(argv, { env, timeoutMs: START_TIMEOUT_MS });
    if (result.exitCode === 0) return;
    throw failed(
      `The unit ${name} could not be started.`,
      result,
      `See \`journalctl -u ${service} -n 50\`, then run again.`,
    );
  }
  if (service === "docker") {
    throw new OperatorError({
      exit: "unavailable",
      what: "Docker does not run, and this machine has no systemd to start it.",
      remedy: "Start dockerd in the way that this machine starts its services, then run again.",
    });
  }
  const result = await runProgram(["service", service, "start"], { env, timeoutMs: START_TIMEOUT_MS });
  if (result.exitCode === 0) return;
  throw failed(
    `The service ${service} could not be started.`,
    result,
    `Try \`service ${service} start\`, then run again.`,
  );
}

/** Whether the clock is synchronised, according to systemd. Null without systemd, or if systemd does not know. */
export async function isClockSynchronised(env: ProgramEnvironment): Promise<boolean | null> {
  if (!isSystemdRunning()) return null;
  if (existsSync(TIMESYNC_MARK)) return true;
  const argv = ["timedatectl", "show", "-p", "NTPSynchronized", "--value"];
  const { exitCode, stdout } = await runProgram(argv, { env, timeoutMs: READ_TIMEOUT_MS });
  if (exitCode !== 0) return null;
  return stdout.trim() === "yes" ? true : stdout.trim() === "no" ? false : null;
}

function failed(what: string, { stopped, lastLines }: ProgramResult, remedy?: string): OperatorError {
  const why = stopped ?? lastLines.join("\n");
  return new OperatorError({ exit: "unavailable", what, why, ...(remedy === undefined ? {} : { remedy }) });
}
