import type { Cluster } from "../../cluster/client.ts";
import { type ExitName, OperatorError } from "../../errors.ts";
import { type PinsetSource, snapshotSource, type VerifiedSnapshot } from "../snapshot/verify.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { applyRestore, type FailedPin, type RestoreRun } from "./restore-apply.ts";
import { type RestoreSurvey, surveyRestore } from "./restore-plan.ts";
import type { Clock } from "../../machine/clock.ts";
import type { Files } from "../../machine/file-writer.ts";
import { countOf } from "../../units.ts";

/** What a restore needs. */
export interface RestoreOptions {
  /** Only a verified snapshot can be restored. */
  readonly snapshot: VerifiedSnapshot;
  readonly cluster: Cluster;
  readonly workspace: PinsetWorkspace;
  readonly clock: Clock;
  /** The id of this cluster; null if it is not known. */
  readonly clusterId: string | null;
  readonly clusterName: string;
  /** Allow a snapshot of another cluster. */
  readonly fromOtherCluster: boolean;
  /** Give existing pins with other options the options from the snapshot. */
  readonly repairOptions: boolean;
  /** Only report what would be done. */
  readonly dryRun: boolean;
  /** The highest allowed number of requests at the same time. */
  readonly concurrency: number;
  readonly notes: NotesDeps;
  readonly report: (line: string) => void;
  readonly progress: (line: string) => void;
}

/** How a restore ended. */
export interface RestoreResult {
  /** `ok` if nothing restorable is missing; `pending` for a dry run with something to do; else `interrupted`. */
  readonly exit: Extract<ExitName, "ok" | "pending" | "interrupted">;
  readonly summary: string;
  readonly snapshot: string;
  readonly pins: number;
  readonly before: SurveyCounts;
  /** Null for a dry run, and if there was nothing to do. */
  readonly run: (RestoreRun & { readonly ratePerSecond: number }) | null;
  /** Null if nothing was done. */
  readonly after: SurveyCounts | null;
  /** The files that list the pins that failed and the pins that cannot be restored; null if there is none. */
  readonly failedFile: string | null;
  readonly lostFile: string | null;
}

/** The numbers of a survey. */
type SurveyCounts = Omit<RestoreSurvey, "marks">;

/** A cluster with batching lists a pin only some time after it accepted it. */
const SETTLE_WAITS_MS = [1000, 2000, 4000, 8000, 16_000, 32_000];

/**
 * Restores the pins that a verified snapshot has and the cluster lacks, and compares again at the end. It never
 * unpins. A second run continues where the first one stopped. Throws an OperatorError: `foreign` for a snapshot
 * of another cluster, `unavailable` if the cluster does not answer. The caller holds the lock.
 */
export async function restoreSnapshot(options: RestoreOptions): Promise<RestoreResult> {
  checkCluster(options);
  const source = await snapshotSource(options.snapshot, options.workspace);
  try {
    return await restoreFrom(source, options);
  } finally {
    await source.close();
  }
}

async function restoreFrom(source: PinsetSource, options: RestoreOptions): Promise<RestoreResult> {
  const { snapshot, clock, report } = options;
  const survey = (): Promise<RestoreSurvey> => surveyRestore({ ...options, source, now: clock.now() });
  report(`Verified: ${snapshot.file.name}, ${countOf(snapshot.count, "pin")}.`);
  reportDrop(snapshot, report);
  const before = await survey();
  for (const line of describeSurvey(before, options.repairOptions)) report(line);
  const fixed = { snapshot: snapshot.file.name, pins: snapshot.count, before: countsOf(before) };
  const idle = { run: null, after: null, failedFile: null, lostFile: null };
  if (before.restorable === 0 || options.dryRun) {
    const pending = before.restorable > 0;
    const summary = pending
      ? `${countOf(before.restorable, "pin")} would be restored`
      : "nothing to do: no restorable pin is missing";
    return {
      ...fixed,
      ...idle,
      exit: pending ? "pending" : "ok",
      summary: `${summary}${lostSentence(before)}`,
    };
  }

  const notes = await openRestoreNotes(options.notes, snapshot.file.name);
  let run: RestoreRun;
  let after: RestoreSurvey;
  try {
    run = await applyRestore({
      ...options,
      source,
      survey: before,
      note: (list, pin) => notes.note(list, pin),
    });
    await notes.flush();
    after = await settle(survey, run.failed, options);
  } catch (thrown) {
    await notes.flush();
    throw asInterrupted(thrown);
  }
  const ok = after.restorable === 0;
  const rate = run.elapsedMs > 0 ? (run.pinned / run.elapsedMs) * 1000 : 0;
  const still = ok ? "" : `; ${after.restorable} are still not as they are in the snapshot`;
  return {
    ...fixed,
    exit: ok ? "ok" : "interrupted",
    summary: `${countOf(run.pinned, "pin")} restored, ${Math.round(rate)}/s; ${run.failed} failed${still}${lostSentence(after)}`,
    run: { ...run, ratePerSecond: rate },
    after: countsOf(after),
    failedFile: notes.files.failed,
    lostFile: notes.files.lost,
  };
}

/** Compares again until the accepted pins are listed, or until all waits are used. A list that breaks off is read again. */
async function settle(
  survey: () => Promise<RestoreSurvey>,
  failed: number,
  { clock, report }: RestoreOptions,
): Promise<RestoreSurvey> {
  report("Comparing again ...");
  for (const waitMs of SETTLE_WAITS_MS) {
    try {
      const after = await survey();
      if (after.restorable <= failed) return after;
      report(`${after.restorable} pins are not in the cluster's list yet.`);
    } catch (thrown) {
      if (!(thrown instanceof OperatorError) || thrown.exit !== "unavailable") throw thrown;
      report(thrown.what);
    }
    report(`Comparing again in ${waitMs / 1000} s ...`);
    await clock.wait(waitMs);
  }
  return survey();
}

function checkCluster({ snapshot, clusterId, clusterName, fromOtherCluster, report }: RestoreOptions): void {
  const { manifest, file } = snapshot;
  if (manifest === null) {
    report(`${file.name} does not say which cluster it belongs to (upstream's format).`);
    return;
  }
  const { id, name } = manifest.cluster;
  const same = id !== null && clusterId !== null ? id === clusterId : name === clusterName;
  if (same) return;
  if (fromOtherCluster) {
    report(`The snapshot belongs to another cluster ("${name}"). --from-other-cluster allows that.`);
    return;
  }
  throw new OperatorError({
    exit: "foreign",
    what: `${file.name} is a snapshot of another cluster, "${name}". This cluster is "${clusterName}".`,
    why:
      name === clusterName
        ? "The two clusters have the same name, but different secrets."
        : "The pins of the other cluster would be added to this one.",
    remedy: "Use a snapshot of this cluster. To add the pins anyway, pass --from-other-cluster.",
  });
}

function reportDrop({ manifest }: VerifiedSnapshot, report: (line: string) => void): void {
  if (manifest === null || manifest.drop === null) return;
  const { from, to, removed, reference } = manifest.drop;
  const before = reference ?? manifest.previous?.name ?? "the previous snapshot";
  report(`Warning: ${removed ?? from - to} of ${from} pins were gone when this snapshot was taken.`);
  report(`  They are in ${before}.`);
}

function describeSurvey(survey: RestoreSurvey, repairOptions: boolean): readonly string[] {
  const { same, missing, differing, extra, lost, lostExamples, withUnknownFields, unknownFields } = survey;
  const lines = [
    `Pins of the snapshot: ${same} unchanged, ${missing} missing.`,
    `${differing} exist with other options (${repairOptions ? "they get those of the snapshot" : "not changed; --options restores them"}).`,
  ];
  if (extra > 0) lines.push(`${extra} pins are only in the cluster. They stay.`);
  lines.push("Allocations are sent as a preference. Restored pins get new timestamps.");
  if (withUnknownFields > 0)
    lines.push(
      `${withUnknownFields} pins have fields that cannot be restored:`,
      `  ${unknownFields.join(", ")}`,
    );
  const reasons = Object.entries(lost);
  if (reasons.length > 0) lines.push("These pins cannot be restored as they were:");
  for (const [why, count] of reasons) lines.push(`  ${count}: ${why}`);
  for (const { cid, why } of lostExamples) lines.push(`    ${cid} (${why})`);
  return lines;
}

function lostSentence({ lost }: RestoreSurvey): string {
  const count = Object.values(lost).reduce((sum, each) => sum + each, 0);
  return count === 0 ? "" : `; ${count} cannot be restored as they were`;
}

function countsOf(survey: RestoreSurvey): SurveyCounts {
  const { extra, same, missing, differing, restorable, lost, lostExamples } = survey;
  const { withUnknownFields, unknownFields, pathLimit } = survey;
  const plans = { restorable, lost, lostExamples, withUnknownFields, unknownFields, pathLimit };
  return { extra, same, missing, differing, ...plans };
}

function asInterrupted(thrown: unknown): unknown {
  if (!(thrown instanceof OperatorError)) return thrown;
  const changed = "Pins were added; none was removed.";
  if (thrown.exit !== "unavailable") return thrown.withChanged(changed);
  return new OperatorError({
    exit: "interrupted",
    what: `The restore stopped before it was complete: ${thrown.what}`,
    remedy:
      "When the cluster answers again, run the same command. It compares again and restores what is missing.",
    changed,
    cause: thrown,
  });
}

/** Where a restore writes its two lists. */
interface NotesDeps {
  readonly files: Pick<Files, "append" | "remove">;
  /** `<base>/restore`. */
  readonly directory: string;
}

/** Two lists on the disk, one JSON object per line: the pins that failed, and the pins that cannot be restored. */
interface RestoreNotes {
  note(file: "failed" | "lost", pin: FailedPin): Promise<void>;
  flush(): Promise<void>;
  /** The paths of the lists; null for an empty one. */
  readonly files: { readonly failed: string | null; readonly lost: string | null };
}

const LINES_PER_WRITE = 200;

/** Removes both lists of an earlier run. A file is created when its first line is written. */
async function openRestoreNotes(deps: NotesDeps, snapshot: string): Promise<RestoreNotes> {
  const lists = {
    failed: { path: `${deps.directory}/${snapshot}.failed.ndjson`, lines: [] as string[], written: false },
    lost: {
      path: `${deps.directory}/${snapshot}.not-restorable.ndjson`,
      lines: [] as string[],
      written: false,
    },
  };
  for (const { path } of Object.values(lists)) await deps.files.remove(path);
  let writing: Promise<void> = Promise.resolve();
  const write = (list: (typeof lists)["failed"]): Promise<void> => {
    const lines = list.lines.splice(0);
    if (lines.length === 0) return writing;
    list.written = true;
    writing = writing.then(() => deps.files.append(list.path, lines.join("\n"), { mode: 0o600 }));
    return writing;
  };
  return {
    note: async (file, pin) => {
      const list = lists[file];
      list.lines.push(JSON.stringify(pin));
      if (list.lines.length >= LINES_PER_WRITE) await write(list);
    },
    flush: async () => {
      await write(lists.failed);
      await write(lists.lost);
    },
    get files() {
      return {
        failed: lists.failed.written ? lists.failed.path : null,
        lost: lists.lost.written ? lists.lost.path : null,
      };
    },
  };
}
