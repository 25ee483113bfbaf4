import { existsSync } from "node:fs";
import { OperatorError } from "../errors.ts";
import { type ProgramEnvironment, type ProgramResult, runProgram } from "./run-program.ts";

/** A systemd unit as `systemctl show` has it. */
export interface UnitState {
  readonly name: string;
  readonly loaded: boolean;
  readonly active: boolean;
  readonly execStart: string;
}

const LOOK_TIMEOUT_MS = 20_000;
const START_TIMEOUT_MS = 180_000;
/** sd_booted(3): this directory is there exactly while systemd is the init system. */
const SYSTEMD_RUNS = "/run/systemd/system";
const TIMESYNC_MARK = "/run/systemd/timesync/synchronized";

/** True while systemd is the init system of this machine. */
function isSystemdRunning(): boolean {
  return existsSync(SYSTEMD_RUNS);
}

/** A unit as systemd has it; null where systemd does not know it or does not run. */
export async function lookAtUnit(
  name: string,
  env: ProgramEnvironment,
  systemd = isSystemdRunning(),
): Promise<UnitState | null> {
  if (!systemd) return null;
  const properties = ["LoadState", "ActiveState", "ExecStart"].flatMap((property) => ["-p", property]);
  const result = await runProgram(["systemctl", "show", "--no-pager", ...properties, "--", name], {
    env,
    timeoutMs: LOOK_TIMEOUT_MS,
  });
  if (result.exitCode !== 0) throw failed(`systemd can't say how ${name} stands.`, result);
  return parseUnit(name, result.stdout);
}

/** Reads what `systemctl show -p LoadState,ActiveState,ExecStart` prints; null for a unit that is not found. */
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
    active: values("ActiveState")[0] === "active",
    execStart: commands.join("; "),
  };
}

/**
 * Enables and starts a unit. Without systemd its init script starts it (Debian's packages have enabled
 * that already); Docker is not started that way: whoever runs the machine runs `dockerd`.
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
      `Look at \`journalctl -u ${service} -n 50\`, then run again.`,
    );
  }
  if (service === "docker") {
    throw new OperatorError({
      exit: "unavailable",
      what: "Docker does not run, and there is no systemd here to start it.",
      remedy: "Start dockerd the way this machine starts its services, then run again.",
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

/** What systemd says of the clock; null without systemd, or where nothing there keeps time. */
export async function isClockSynchronised(env: ProgramEnvironment): Promise<boolean | null> {
  if (!isSystemdRunning()) return null;
  if (existsSync(TIMESYNC_MARK)) return true;
  const argv = ["timedatectl", "show", "-p", "NTPSynchronized", "--value"];
  const { exitCode, stdout } = await runProgram(argv, { env, timeoutMs: LOOK_TIMEOUT_MS });
  if (exitCode !== 0) return null;
  return stdout.trim() === "yes" ? true : stdout.trim() === "no" ? false : null;
}

function failed(what: string, { stopped, lastLines }: ProgramResult, remedy?: string): OperatorError {
  const why = stopped ?? lastLines.join("\n");
  return new OperatorError({ exit: "unavailable", what, why, ...(remedy === undefined ? {} : { remedy }) });
}
