import gt from "semver/functions/gt.js";
import lt from "semver/functions/lt.js";
import rcompare from "semver/functions/rcompare.js";
import valid from "semver/functions/valid.js";
import type { Change, StepSpec } from "../../engine/step.ts";
import { EXIT_CODES, OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { isOurCron } from "../../machine/crontab.ts";
import type { NodeLayout } from "../../settings/context.ts";
import { FORMER_DEFAULTS } from "../../settings/former-defaults.ts";
import { baseDirFlag, CRON_FILES } from "../../settings/layout.ts";
import type { PostgresTarget } from "../../settings/postgres-target.ts";
import type { SettingSpec } from "../../settings/settings.ts";

/** Since this version the data belongs to the containers' own user: the containers of an older one can't read it. */
const OLDEST = "0.3.0";
const JOIN_DEADLINE_MS = 3 * 3_600_000;
const LOOK_DEADLINE_MS = 120_000;
const HELP_DEADLINE_MS = 20_000;
/** Whose data no rollback touches: an image that is older than its data may not start. */
const DATA_IMAGES = ["KUBO_IMAGE", "CLUSTER_IMAGE", "POSTGRES_IMAGE"] as const;

/** What goes back, and to which version. */
export interface Rollback {
  readonly verb: "join-as-master" | "join-as-storage-node";
  readonly layout: NodeLayout;
  /** The running version. */
  readonly version: string;
  /** The version that is put back, from findFormer. */
  readonly former: string;
  readonly nodePath: string;
  /** The default base directory of this kind of node. */
  readonly usualDir: string;
  /** Null on a storage node. */
  readonly database: { readonly target: PostgresTarget; readonly masterId: string | null } | null;
  /** Containers of our services. They are stopped before the schema changes under them. */
  readonly services: readonly string[];
  /** Flags of the former join: `--set` of what no rollback touches, and what this node is joined with. */
  readonly keep: readonly string[];
  /** Releases the locks of this run: the former program takes them itself. */
  readonly unlock: () => Promise<void>;
}

/**
 * The version that a rollback from the running version puts back: the newest older one in the base directory. Throws if there is none,
 * if it can't work with the data, if it does not start, or if another version than these two is in use.
 */
export async function findFormer(
  host: HostReader,
  { verb, layout, version, nodePath }: Pick<Rollback, "verb" | "layout" | "version" | "nodePath">,
): Promise<string> {
  const [entries, current] = await Promise.all([
    host.files.list(layout.cliDir),
    host.files.readLink(layout.cliCurrent),
  ]);
  const versions = (entries ?? []).filter((name) => valid(name) !== null).sort(rcompare);
  const former = versions.find((one) => lt(one, version));
  const found = versions.length === 0 ? "no version" : versions.join(", ");
  if (former === undefined)
    throw new OperatorError({
      exit: "preflight",
      what: `There is nothing to go back to: ${layout.cliDir} has ${found}, and this is version ${version}.`,
      why: "A rollback uses the program of the version before, which a join keeps in that directory.",
      remedy: `Run fula-node ${verb} without --rollback to repair this version.`,
    });
  if (current !== version && current !== former)
    throw new OperatorError({
      exit: current !== null && valid(current) !== null && gt(current, version) ? "newer" : "preflight",
      what: `Version ${current ?? "none"} is in use here, and this is version ${version}.`,
      why: "A rollback starts from the version that is in use.",
      remedy: `Run it with that one: node ${layout.cliCurrent}/bin/fula-node.js`,
    });
  if (lt(former, OLDEST))
    throw new OperatorError({
      exit: "preflight",
      what: `Version ${former} can't take this node over again.`,
      why: `Since ${OLDEST} the data of kubo and ipfs-cluster belongs to another user, whose files its containers can't read.`,
      remedy: `Stay with this version. To repair it, run fula-node ${verb} without --rollback.`,
    });
  await refuseDamagedProgram(host, `${layout.cliDir}/${former}`, { verb, former, nodePath });
  return former;
}

/** Its join is the last step: by then the services are stopped, and the migrations are reverted. */
async function refuseDamagedProgram(
  { files, system }: HostReader,
  directory: string,
  { verb, former, nodePath }: Pick<Rollback, "verb" | "former" | "nodePath">,
): Promise<void> {
  const script = `${directory}/bin/fula-node.js`;
  const parts = [script, `${directory}/dist/cli.js`];
  const stats = await Promise.all(parts.map((path) => files.stat(path)));
  const missing = parts.filter((_, index) => stats[index] === null);
  const failure =
    missing.length > 0
      ? `${missing.join(" and ")} ${missing.length === 1 ? "is" : "are"} missing`
      : // For its version, it loads next to nothing of what it has.
        await system.tryProgram([nodePath, script, verb, "--help"], { timeoutMs: HELP_DEADLINE_MS });
  if (failure === null) return;
  // What Node.js prints of a file that it can't load begins with a place in some code.
  const isTrace = /^(?:node:|file:|\/\S+:\d+$)/.test(failure);
  throw new OperatorError({
    exit: "preflight",
    what: `The program of version ${former} does not start, so it can't take this node over.`,
    why: isTrace ? `${directory} has a part that is missing or damaged.` : `${failure}.`,
    remedy: stayOrRestore(directory, former),
  });
}

/** Two ways on if files of the former version are missing. Its own join can't put them back: it refuses while this version is in use. */
export function stayOrRestore(directory: string, former: string): string {
  return `Stay with this version: run the join command without --rollback. Or get the files of ${former} again, then run this once more: \`npm pack fula-node@${former} && tar -xzf fula-node-${former}.tgz --strip-components=1 -C ${directory}\``;
}

/** `--set` flags for the images of data whose default has changed since the first version: the former one would take its own. */
export function keepImages(
  specs: readonly SettingSpec[],
  valueOf: (key: string) => string | undefined,
): readonly string[] {
  return DATA_IMAGES.flatMap((key) => {
    const byDefault = specs.find((spec) => spec.key === key)?.byDefault;
    const value = valueOf(key);
    const isOld = typeof byDefault !== "string" || FORMER_DEFAULTS[key]?.at(-1) === byDefault;
    return isOld || value === undefined ? [] : ["--set", `${key}=${value}`];
  });
}

/** Since which version there is a cron job. An older program does not know its command. */
const CRON_SINCE = { drill: "0.5.0", backup: "0.5.0" } as const;

type CronChange = Change & { readonly kind: "remove-cron-entry"; readonly path: string };

/** Removes the cron jobs that the former version does not know: each would fail in the night, where nobody sees it. */
export function formerCron({ former }: Rollback): StepSpec<readonly string[], CronChange> {
  const isUnknown = async (host: HostReader, name: keyof typeof CRON_SINCE) =>
    lt(former, CRON_SINCE[name]) && isOurCron((await host.files.readText(CRON_FILES[name])) ?? "");
  const find = async (host: HostReader): Promise<readonly string[]> => {
    const found: string[] = [];
    for (const name of ["drill", "backup"] as const)
      if (await isUnknown(host, name)) found.push(CRON_FILES[name]);
    return found;
  };
  return {
    id: "former-cron",
    title: `cron jobs that ${former} does not have`,
    touches: "Removes the cron jobs that the former version does not know.",
    async probe(host) {
      const seen = await find(host);
      const evidence = { [`unknown to ${former}`]: seen.join(", ") || "none" };
      if (seen.length === 0) return { state: "ours", seen, evidence };
      return { state: "drifted", seen, drift: seen.map((path) => `${former} can't run ${path}`), evidence };
    },
    plan: ({ seen }) =>
      seen.map((path) => ({ kind: "remove-cron-entry", summary: `remove the cron job ${path}`, path })),
    apply: ({ path }, host) => host.files.remove(path),
    async verify(host) {
      const [left] = await find(host);
      if (left === undefined) return;
      throw new OperatorError({ exit: "unhealthy", what: `${left} is still there.`, remedy: "Run again." });
    },
  };
}

type ProgramChange = Change & { readonly kind: "point-current"; readonly target: string };

/** Makes the former program the one that cron and people use. */
export function formerProgram({ layout, former }: Rollback): StepSpec<null, ProgramChange> {
  const summary = `point the link ${layout.cliCurrent} to ${former}`;
  return {
    id: "cli",
    title: `fula-node ${former}, for cron jobs and repairs`,
    touches: "Sets the link `cli/current` to the former version.",
    async probe(host) {
      const current = await host.files.readLink(layout.cliCurrent);
      const evidence = { current: current ?? "absent" };
      if (current === former) return { state: "ours", seen: null, evidence };
      const drift = [`${layout.cliCurrent} points at ${current ?? "nothing"}`];
      return { state: "drifted", seen: null, drift, evidence };
    },
    plan: ({ state }) => (state === "ours" ? [] : [{ kind: "point-current", summary, target: former }]),
    apply: (change, host) => host.files.link(change.target, layout.cliCurrent),
    async verify(host) {
      if ((await host.files.readLink(layout.cliCurrent)) === former) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${layout.cliCurrent} does not point to ${former}.`,
        remedy: "Run again.",
      });
    },
  };
}

/**
 * While the newer one is in use, the former join ends with 30, after its settings and its checks of the machine. Throws (`preflight`) if
 * it ends before: it would do that again once the schema is reverted and the services are stopped.
 */
async function refuseRefusingJoin(
  { system }: HostReader,
  { verb, former }: Rollback,
  argv: readonly string[],
): Promise<void> {
  const accept = [EXIT_CODES.newer, EXIT_CODES.pending];
  const why = await system.tryProgram(argv, { timeoutMs: LOOK_DEADLINE_MS, accept });
  if (why === null) return;
  throw new OperatorError({
    exit: "preflight",
    what: `${verb} of ${former} would end before it does anything: ${why}.`,
    why: "A rollback ends with it: without it, no service would run.",
    remedy: `See all that it says: ${argv.join(" ")}. Correct that, then run again. A check of the machine can be ignored: --ignore CHECK`,
  });
}

type JoinChange = Change & { readonly kind: "former-join"; readonly runs: readonly string[] };

/** Lets the former version repair the node: to it, everything of a newer one has drifted. */
export function formerJoin(rollback: Rollback): StepSpec<null, JoinChange> {
  const { verb, layout, former, nodePath, usualDir, keep, unlock } = rollback;
  const here = baseDirFlag(layout.baseDir, usualDir).trim().split(" ");
  const program = [nodePath, `${layout.cliDir}/${former}/bin/fula-node.js`, verb];
  const flags = [...here, ...keep].filter((word) => word !== "");
  const runs = [...program, "--yes", ...flags];
  return {
    id: "former-join",
    title: `services of ${former}`,
    touches: "Runs the join of the former version, which makes the services as it knows them.",
    async probe(host) {
      const current = await host.files.readLink(layout.cliCurrent);
      if (current !== former) await refuseRefusingJoin(host, rollback, [...program, "--dry-run", ...flags]);
      const why =
        current === former
          ? await host.system.tryProgram([...program, "--dry-run", ...flags], { timeoutMs: LOOK_DEADLINE_MS })
          : `the services are those of ${current ?? "no version"}`;
      const evidence = { [former]: why ?? "has nothing to do" };
      if (why === null) return { state: "ours", seen: null, evidence };
      const drift = [
        "The repository of kubo, the data of ipfs-cluster and of Postgres, and their images stay as they are",
      ];
      return { state: "drifted", seen: null, drift, evidence };
    },
    plan: ({ state }) =>
      state === "ours"
        ? []
        : [{ kind: "former-join", summary: `run ${verb} of ${former}: it makes its services again`, runs }],
    async apply(change, host, report) {
      await unlock();
      await host.system.runCommand(change.runs, { timeoutMs: JOIN_DEADLINE_MS, onLine: report });
    },
    async verify(host) {
      const why = await host.system.tryProgram([...program, "--dry-run", ...flags], {
        timeoutMs: LOOK_DEADLINE_MS,
      });
      if (why === null) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${verb} of ${former} has not finished its work: ${why}.`,
        remedy: `Run it again: ${runs.join(" ")}`,
      });
    },
  };
}
