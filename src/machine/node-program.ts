import { type CronLineVerdict, judgeCronLine, parseCronCommand, whyIgnored } from "./crontab.ts";
import type { FileReader } from "./file-reader.ts";
import { findOwnerFaults } from "./owner-check.ts";
import type { SystemReader } from "./system.ts";

/** What is looked at here. */
interface Machine {
  readonly files: Pick<FileReader, "stat" | "readLink" | "readText">;
  readonly system: Pick<SystemReader, "tryProgram">;
}

/** A Node.js program that root's cron must not run, and why. */
export interface RejectedNode {
  readonly path: string;
  /** `its group can write to /usr/local/bin (mode 775)`. Without a full stop. */
  readonly why: string;
  /** The command that makes it usable; null if there is none. */
  readonly repair: string | null;
}

/** The Node.js program for cron. */
export interface NodeChoice {
  /** Null if there is none that root's cron can run. */
  readonly path: string | null;
  /** False if the next upgrade of Node.js removes it: a version is a part of its path. */
  readonly isLasting: boolean;
  readonly rejected: readonly RejectedNode[];
}

/** Where packages of Node.js install it. An upgrade replaces the program there, and its path stays. */
const LASTING_PATHS = ["/usr/bin/node", "/usr/local/bin/node"];
const VERSION_TIMEOUT_MS = 20_000;

/**
 * Chooses the Node.js program for cron: one at a path that outlasts an upgrade if it fits, else the running one. nvm, fnm,
 * volta, asdf and snap remove a version with its path, and cron would fail from then on. A program fits if it runs `script`
 * (bin/fula-node.js, which looks at the version and at what is built in) and only root can change it.
 */
export async function chooseNode(
  machine: Machine,
  { running, script }: { readonly running: string; readonly script: string },
): Promise<NodeChoice> {
  const rejected: RejectedNode[] = [];
  for (const path of new Set([...LASTING_PATHS, running])) {
    if (path !== running && (await machine.files.stat(path)) === null) continue;
    const fault = await whyUnfit(machine, path, path === running ? null : script);
    if (fault === null) return { path, isLasting: isLasting(path), rejected };
    rejected.push(fault);
  }
  return { path: null, isLasting: false, rejected };
}

/** `script` is null for the program that runs now: it has shown that it fits. */
async function whyUnfit(
  { files, system }: Machine,
  path: string,
  script: string | null,
): Promise<RejectedNode | null> {
  const [fault] = await findOwnerFaults(files, path);
  if (fault !== undefined) return { path, why: fault.sentence, repair: fault.repair };
  if (script === null) return null;
  const why = await system.tryProgram([path, script, "--version"], { timeoutMs: VERSION_TIMEOUT_MS });
  return why === null ? null : { path, why, repair: null };
}

/** `/root/.nvm/versions/node/v22.11.0/bin/node` and `/snap/node/9999/bin/node` go with the next upgrade. */
export function isLasting(path: string): boolean {
  return !/\/[^/]*\d+\.\d+\.\d+[^/]*\/|^\/snap\/[^/]+\/\d+\/|\/fnm_multishells\//.test(path);
}

/**
 * Whether cron can still run one of our files in /etc/cron.d: the file, its Node.js program and its script are there, cron
 * does not ignore the file, and the program runs the script. For `status`: it starts the program once.
 */
export async function checkCronLine({ files, system }: Machine, path: string): Promise<CronLineVerdict> {
  const [text, stat] = await Promise.all([files.readText(path), files.stat(path)]);
  if (text === null || stat === null) return judgeCronLine(path, null);
  const command = parseCronCommand(text);
  const ignored = whyIgnored(path, stat);
  if (command === null) return judgeCronLine(path, { ignored, command: null, failure: null, faults: [] });
  const { program, script } = command;
  const missing = (await files.readText(script)) === null ? `${script} is missing` : null;
  const [failure, ...faults] = await Promise.all([
    missing ?? system.tryProgram([program, script, "--version"], { timeoutMs: VERSION_TIMEOUT_MS }),
    findOwnerFaults(files, program),
    findOwnerFaults(files, script),
  ]);
  return judgeCronLine(path, { ignored, command, failure, faults: faults.flat() });
}
