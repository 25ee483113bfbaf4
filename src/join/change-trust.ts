import { openJournal } from "../engine/journal.ts";
import { changesOf, look, refuseForeign } from "../engine/plan.ts";
import { run, type RunOutcome } from "../engine/run.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Settings } from "../settings/settings.ts";
import type { InstalledMaster } from "./installed-node.ts";
import type { JoinDeps } from "./join-run.ts";
import { prepareMaster } from "./prepare-master.ts";
import { readMasterSettings } from "./settings-source.ts";

/** What a change of the trusted peers needs from the composition root. */
export type TrustDeps = Pick<
  JoinDeps,
  | "host"
  | "reporter"
  | "questions"
  | "environment"
  | "version"
  | "packageDir"
  | "nodePath"
  | "hostname"
  | "pid"
  | "hash"
>;

/** The peers that a writer of fula-node shall trust, and the master that it connects to. */
export interface WantedTrust {
  readonly peers: readonly string[];
  /** Empty: it connects to no other master by itself. */
  readonly bootstrap: string;
}

/** What of a master's install order has to do with whom it trusts. */
const STEPS: readonly string[] = ["env-file", "writer", "flags"];

/** A change of the trusted peers of this master's writer that is planned and not made yet. */
export interface TrustChange {
  /** False: `.env`, the writer and its record in the database have these peers already. */
  readonly isNeeded: boolean;
  /** Makes the change: writes `.env`, creates the container of ipfs-cluster again, and records the result. */
  apply(flags: { readonly dryRun: boolean; readonly since: string }): Promise<RunOutcome>;
}

/**
 * Plans the change with the steps of join-as-master that have to do with it. Throws (`preflight`) if these steps need a
 * repair first: then it would not be clear what this change changes.
 */
export async function planTrust(
  deps: TrustDeps,
  { layout }: InstalledMaster,
  wanted: WantedTrust,
): Promise<TrustChange> {
  const { host, reporter, pid, version } = deps;
  const { settings, problems } = await readMasterSettings(deps, layout.envFile, "none");
  if (problems.length > 0)
    throw new OperatorError({ exit: "settings", what: "Some settings are missing or invalid.", problems });
  const stepsFor = async (given: Settings): Promise<readonly AnyStep[]> => {
    const desired = { layout, settings: given, provisionWriter: false, imagesArchive: null };
    return (await prepareMaster(deps, desired)).steps.filter(({ id }) => STEPS.includes(id));
  };
  const before = await look(await stepsFor(settings), host, new Set());
  refuseForeign(before, new Set());
  const pending = before.filter(({ step, changes }) => step.id !== "flags" && changes.length > 0);
  if (pending.length > 0)
    throw new OperatorError({
      exit: "preflight",
      what: "This master needs a repair before its trusted peers can be changed.",
      remedy: "Run fula-node join-as-master first.",
      problems: pending.map(({ step, changes }) => ({
        subject: step.id,
        what: changes.map(({ summary }) => summary).join("; "),
      })),
    });
  const steps = await stepsFor(withTrust(settings, wanted));
  const planned = await look(steps, host, new Set());
  return {
    isNeeded: changesOf(planned).length > 0,
    apply: ({ dryRun, since }) =>
      run({
        steps,
        host,
        journal: openJournal({
          files: host.files,
          path: layout.journal,
          attempt: `${since}-${pid}`,
          version,
          now: () => host.clock.now(),
        }),
        listen: reporter.listen,
        ask: null,
        dryRun,
        yes: true,
        adopted: new Set(),
        consents: new Set(),
      }),
  };
}

function withTrust(settings: Settings, { peers, bootstrap }: WantedTrust): Settings {
  const changed = new Map(settings);
  for (const [key, value] of [
    ["MASTER_CLUSTER_PEERIDS", peers.join(",")],
    ["MASTER_CLUSTER_BOOTSTRAP", bootstrap],
  ] as const) {
    const saved = settings.get(key)?.value;
    if (value === (saved ?? "")) continue;
    if (value !== "") changed.set(key, { value, origin: "flag", offeredBy: "trust" });
    else if (saved !== undefined) changed.set(key, { value: "", origin: "default", released: saved });
  }
  return changed;
}
