import type { Cluster } from "../../cluster/client.ts";
import { type ExitName, OperatorError } from "../../errors.ts";
import { snapshotSource, type VerifiedSnapshot } from "../snapshot/verify.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { applyRestore, type FailedPin, type RestoreRun } from "./restore-apply.ts";
import { type RestoreSurvey, surveyRestore } from "./restore-plan.ts";
import type { Clock } from "../../machine/clock.ts";
import type { Files } from "../../machine/file-writer.ts";

/** What a restore needs. */
export interface RestoreOptions {
  /** Only one that was verified can be restored. */
  readonly snapshot: VerifiedSnapshot;
  readonly cluster: Cluster;
  readonly workspace: PinsetWorkspace;
  readonly clock: Clock;
  /** Which cluster this is; null where it is not known. */
  readonly clusterId: string | null;
  readonly clusterName: string;
  /** The snapshot may be of another cluster. */
  readonly fromOtherCluster: boolean;
  /** Pins that are there with other options get those of the snapshot. */
  readonly mendOptions: boolean;
  /** Only tell what would be done. */
  readonly dryRun: boolean;
  /** Requests under way at once, at most. */
  readonly concurrency: number;
  readonly notes: NotesDeps;
  readonly report: (line: string) => void;
  readonly progress: (line: string) => void;
}

/** How a restore ended. */
export interface RestoreResult {
  /** `ok` where nothing restorable is missing; `pending` for a dry run with something to do; else `interrupted`. */
  readonly exit: Extract<ExitName, "ok" | "pending" | "interrupted">;
  readonly summary: string;
  readonly snapshot: string;
  readonly pins: number;
  readonly before: SurveyCounts;
  /** Null for a dry run, and where there was nothing to do. */
  readonly run: (RestoreRun & { readonly ratePerSecond: number }) | null;
  /** Null where nothing was done. */
  readonly after: SurveyCounts | null;
  /** The files that name what failed and what can't be brought back; null where there is nothing to name. */
  readonly failedFile: string | null;
  readonly lostFile: string | null;
}

/** A survey's numbers. */
type SurveyCounts = Omit<RestoreSurvey, "marks">;

/** With batching, a cluster shows a pin only a while after it has said yes. */
const SETTLE_WAITS_MS = [1000, 2000, 4000, 8000, 16_000, 32_000];

/**
 * Brings back what a verified snapshot has and the cluster lacks, and compares again at the end. It
 * never unpins; run again, it goes on from where it is. Throws an OperatorError: `foreign` for another
 * cluster's snapshot, `unavailable` where the cluster can't be asked. The caller holds the lock.
 */
export async function restoreSnapshot(options: RestoreOptions): Promise<RestoreResult> {
  checkCluster(options);
  const { snapshot, clock, report } = options;
  const source = snapshotSource(snapshot);
  const survey = (): Promise<RestoreSurvey> => surveyRestore({ ...options, source, now: clock.now() });
  report(`Verified: ${snapshot.file.name}, ${snapshot.count} pins, signed with key ${snapshot.keyId}.`);
  reportDrop(snapshot, report);
  const before = await survey();
  for (const line of describeSurvey(before, options.mendOptions)) report(line);
  const fixed = { snapshot: snapshot.file.name, pins: snapshot.count, before: countsOf(before) };
  const idle = { run: null, after: null, failedFile: null, lostFile: null };
  if (before.restorable === 0 || options.dryRun) {
    const pending = before.restorable > 0;
    const summary = pending
      ? `${before.restorable} pins would be restored`
      : "nothing to do: no pin that can be restored is missing";
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
  const still = ok ? "" : `; ${after.restorable} are still not as in the snapshot`;
  return {
    ...fixed,
    exit: ok ? "ok" : "interrupted",
    summary: `${run.pinned} pins restored, ${Math.round(rate)}/s; ${run.failed} failed${still}${lostSentence(after)}`,
    run: { ...run, ratePerSecond: rate },
    after: countsOf(after),
    failedFile: notes.files.failed,
    lostFile: notes.files.lost,
  };
}

/** Compares until what was accepted is there, as far as the waits go. */
async function settle(
  survey: () => Promise<RestoreSurvey>,
  failed: number,
  { clock, report }: RestoreOptions,
): Promise<RestoreSurvey> {
  report("Comparing again ...");
  let after = await survey();
  for (const waitMs of SETTLE_WAITS_MS) {
    if (after.restorable <= failed) break;
    report(`${after.restorable} pins do not show yet; looking again in ${waitMs / 1000} s ...`);
    await clock.wait(waitMs);
    after = await survey();
  }
  return after;
}

function checkCluster({ snapshot, clusterId, clusterName, fromOtherCluster, report }: RestoreOptions): void {
  const { manifest, file } = snapshot;
  if (manifest === null) {
    report(`${file.name} does not say of which cluster it is (upstream's format).`);
    return;
  }
  const { id, name } = manifest.cluster;
  const same = id !== null && clusterId !== null ? id === clusterId : name === clusterName;
  if (same) return;
  if (fromOtherCluster) {
    report(`The snapshot is of another cluster ("${name}"), as --from-other-cluster allows.`);
    return;
  }
  throw new OperatorError({
    exit: "foreign",
    what: `${file.name} is a snapshot of another cluster: "${name}"; this one is "${clusterName}".`,
    why:
      name === clusterName
        ? "They have the same name, but not the same secret."
        : "Its pins would be added to those of this one.",
    remedy: "Give a snapshot of this cluster, or --from-other-cluster if that is what you want.",
  });
}

function reportDrop({ manifest }: VerifiedSnapshot, report: (line: string) => void): void {
  if (manifest === null || manifest.drop === null) return;
  const { from, to } = manifest.drop;
  const before = manifest.previous === null ? "the one before it" : manifest.previous.name;
  report(
    `Mind: it was taken after the pinset had shrunk from ${from} to ${to}. What was lost is in ${before}.`,
  );
}

function describeSurvey(survey: RestoreSurvey, mendOptions: boolean): readonly string[] {
  const { same, missing, differing, extra, lost, lostExamples, withUnknownFields, unknownFields } = survey;
  const lines = [
    `Of the snapshot's pins, ${same} are there as they were, ${missing} are missing, ` +
      `${differing} are there with other options (${mendOptions ? "they are mended" : "they are left; --options mends them"}).`,
  ];
  if (extra > 0) lines.push(`${extra} pins are only in the cluster; they stay.`);
  lines.push("Allocations are given as a preference; timestamps are new.");
  if (withUnknownFields > 0)
    lines.push(`${withUnknownFields} pins carry fields that can't be sent: ${unknownFields.join(", ")}.`);
  const reasons = Object.entries(lost);
  if (reasons.length > 0) lines.push("These can't be brought back as they were:");
  for (const [why, count] of reasons) lines.push(`  ${count}: ${why}`);
  for (const { cid, why } of lostExamples) lines.push(`    ${cid} (${why})`);
  return lines;
}

function lostSentence({ lost }: RestoreSurvey): string {
  const count = Object.values(lost).reduce((sum, each) => sum + each, 0);
  return count === 0 ? "" : `; ${count} can't be brought back as they were`;
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
    what: `The restore stopped part-way: ${thrown.what}`,
    remedy:
      "Once the cluster answers again, run the same command: it compares, and goes on with what is missing.",
    changed,
    cause: thrown,
  });
}

/** Where a restore leaves its lists. */
interface NotesDeps {
  readonly files: Pick<Files, "append" | "remove">;
  /** `<base>/restore`. */
  readonly directory: string;
}

/** Two lists on the disk, one JSON object a line: what failed, and what can't be brought back. */
interface RestoreNotes {
  note(file: "failed" | "lost", pin: FailedPin): Promise<void>;
  flush(): Promise<void>;
  /** The paths of those that hold something. */
  readonly files: { readonly failed: string | null; readonly lost: string | null };
}

const LINES_AT_ONCE = 200;

/** Starts both lists anew; a file appears with its first line. */
async function openRestoreNotes(hands: NotesDeps, snapshot: string): Promise<RestoreNotes> {
  const lists = {
    failed: { path: `${hands.directory}/${snapshot}.failed.ndjson`, lines: [] as string[], written: false },
    lost: {
      path: `${hands.directory}/${snapshot}.not-restorable.ndjson`,
      lines: [] as string[],
      written: false,
    },
  };
  for (const { path } of Object.values(lists)) await hands.files.remove(path);
  let writing: Promise<void> = Promise.resolve();
  const write = (list: (typeof lists)["failed"]): Promise<void> => {
    const lines = list.lines.splice(0);
    if (lines.length === 0) return writing;
    list.written = true;
    writing = writing.then(() => hands.files.append(list.path, lines.join("\n"), { mode: 0o600 }));
    return writing;
  };
  return {
    note: async (file, pin) => {
      const list = lists[file];
      list.lines.push(JSON.stringify(pin));
      if (list.lines.length >= LINES_AT_ONCE) await write(list);
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
