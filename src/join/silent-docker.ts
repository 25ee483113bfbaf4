import { openJournal } from "../engine/journal.ts";
import { run, type RunOptions, type RunOutcome } from "../engine/run.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { poll } from "../settings/context.ts";
import { isOurs } from "../settings/layout.ts";
import { docker } from "../steps/docker.ts";

/**
 * Why an installed Docker does not answer; null if it answers, or if none is installed. While it is silent, "no such
 * container" means nothing: what is in Docker can't be judged. A machine without Docker has no containers, so there it can.
 */
export async function whySilent({ docker: engine, system }: HostReader): Promise<string | null> {
  const [why, program] = await Promise.all([engine.unreachable(), system.which("dockerd")]);
  return program === null ? null : why;
}

/** Throws (`unavailable`) while an installed Docker does not answer. `consequence` is a sentence. */
export async function requireDocker(host: HostReader, consequence: string): Promise<void> {
  const why = await whySilent(host);
  if (why === null) return;
  throw new OperatorError({
    exit: "unavailable",
    what: `Docker is installed but does not answer: ${why}.`,
    why: consequence,
    remedy: "Start Docker (systemctl start docker), then run again.",
  });
}

/** How long containers may take to come back after Docker was started. */
const SETTLE_MS = 60_000;

/**
 * Starts a silent Docker, as a run of its own: only after it can the rest be looked at, planned and confirmed. A dry run
 * ends with this plan. Then waits until the containers that come back by themselves have started.
 */
export async function startDocker(
  { host, pid, version }: { readonly host: Host; readonly pid: number; readonly version: string },
  options: Pick<RunOptions, "listen" | "ask" | "dryRun" | "yes"> & {
    readonly journal: string;
    readonly since: string;
  },
): Promise<RunOutcome> {
  const { journal: path, since, ...given } = options;
  const journal = openJournal({
    files: host.files,
    path,
    attempt: `${since}-${pid}`,
    version,
    now: () => host.clock.now(),
  });
  const steps = [docker];
  const outcome = await run({ ...given, steps, host, journal, adopted: new Set(), consents: new Set() });
  if (!outcome.dryRun) await poll(host, SETTLE_MS, async () => ((await areStarting(host)) ? null : true));
  return outcome;
}

/** A container that stays so is judged by its step. */
async function areStarting({ docker: engine }: HostReader): Promise<boolean> {
  const containers = (await engine.containers()).filter(isOurs);
  return containers.some(({ status, health }) => status === "running" && health === "starting");
}
