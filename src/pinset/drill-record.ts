import { CRON_PERIODS_MS } from "../settings/layout.ts";
import { age } from "../units.ts";

/** How a drill went when it last ran. */
export interface RecordedDrill {
  readonly title: string;
  readonly state: "passed" | "failed" | "skipped";
  /** When it ended, as ISO text. */
  readonly at: string;
  readonly summary: string;
  /** ALERT_COMMAND, if it was run and failed: only a run of the same one can take that back. */
  readonly command?: string;
}

/** In the summary of a drill that ran ALERT_COMMAND, which failed. */
export const COMMAND_FAILED = "ALERT_COMMAND failed";

/** The last result of each drill, by its id. */
export type DrillRecord = Readonly<Record<string, RecordedDrill>>;

/** Reads the record: empty if there is none, null if it is damaged. */
export function parseDrillRecord(text: string | null): DrillRecord | null {
  if (text === null) return {};
  try {
    const { drills } = JSON.parse(text) as { readonly drills?: unknown };
    if (typeof drills !== "object" || drills === null) return null;
    return Object.values(drills).every(isRecorded) ? (drills as DrillRecord) : null;
  } catch {
    return null;
  }
}

function isRecorded(one: unknown): boolean {
  const { title, state, at, summary } = (one ?? {}) as Partial<Record<keyof RecordedDrill, unknown>>;
  return (
    typeof title === "string" &&
    ["passed", "failed", "skipped"].includes(String(state)) &&
    typeof at === "string" &&
    !Number.isNaN(Date.parse(at)) &&
    typeof summary === "string"
  );
}

/**
 * The text of the record with these results in place of the earlier ones of the same drills. One that only looked at
 * ALERT_COMMAND (`ranCommand` is false) does not replace the failure of the same ALERT_COMMAND (`command`).
 */
export function renderDrillRecord(
  before: DrillRecord,
  results: DrillRecord,
  { command, ranCommand }: { readonly command: string | undefined; readonly ranCommand: boolean },
): string {
  const newer = Object.entries(results).filter(([id, { state }]) => {
    const failed = before[id]?.state === "failed" ? before[id].command : undefined;
    return ranCommand || state === "failed" || failed === undefined || failed !== command;
  });
  const kept = newer.map(([id, one]) => {
    const isOfCommand = one.state === "failed" && one.summary.includes(COMMAND_FAILED);
    return [id, isOfCommand && command !== undefined ? { ...one, command } : one] as const;
  });
  return `${JSON.stringify({ drills: { ...before, ...Object.fromEntries(kept) } })}\n`;
}

/** How the drills stand. */
export interface DrillsHealth {
  readonly state: "ok" | "attention" | "unknown";
  readonly sentence: string;
  readonly todo: string | null;
  readonly evidence: Readonly<Record<string, string>>;
}

/** Judges the record; null if none ever ran and cron starts none. `scheduledAt`: when cron's entry was written; null if there is none. */
export function assessDrills(
  record: DrillRecord | null,
  at: { readonly scheduledAt: Date | null; readonly now: Date; readonly log: string },
): DrillsHealth | null {
  const { scheduledAt, now, log } = at;
  if (record === null)
    return {
      state: "unknown",
      sentence: "the record of the last drills can't be read",
      todo: "fula-node drill",
      evidence: {},
    };
  const drills = Object.entries(record);
  if (drills.length === 0 && scheduledAt === null) return null;
  const evidence = Object.fromEntries(
    drills.map(([id, one]) => [`${id} ${one.title}`, `${one.state} ${one.at}: ${one.summary}`]),
  );
  const agoOf = (date: string) => `${age(now.getTime() - Date.parse(date))} ago`;
  const failed = drills.filter(([, { state }]) => state === "failed");
  if (failed.length > 0) return { state: "attention", ...tellFailed(failed, agoOf), evidence };
  const last = drills
    .map(([, { at: ended }]) => ended)
    .toSorted()
    .at(-1);
  const sinceMs = (date: string | undefined) => now.getTime() - (Date.parse(date ?? "") || 0);
  const waitedMs = scheduledAt === null ? 0 : Math.min(now.getTime() - scheduledAt.getTime(), sinceMs(last));
  if (waitedMs > 2 * CRON_PERIODS_MS.drill)
    return {
      state: "attention",
      sentence:
        last === undefined
          ? "none ran, although cron should start them"
          : `last ran ${agoOf(last)}, although cron should start them`,
      todo: `look at cron and at ${log}, or run fula-node drill`,
      evidence,
    };
  if (last === undefined)
    return { state: "ok", sentence: "none ran yet; cron starts them every week", todo: null, evidence };
  const isOld = scheduledAt === null && sinceMs(last) > OLD_MS;
  const cron = scheduledAt !== null ? ", weekly by cron" : isOld ? ", and cron does not start them" : "";
  return {
    state: "ok",
    sentence: `${tellCounts(record)}; last ran ${agoOf(last)}${cron}`,
    todo: null,
    evidence,
  };
}

/** How many drills there are. */
export const DRILL_COUNT = 10;
/** What was proven longer ago, and is not repeated by cron, says little about today. */
const OLD_MS = 35 * 24 * 3_600_000;

function tellCounts(record: DrillRecord): string {
  const states = Object.values(record).map(({ state }) => state);
  const passed = states.filter((state) => state === "passed").length;
  const skipped = states.length - passed;
  const never = DRILL_COUNT - states.length;
  return [
    passed === DRILL_COUNT ? `all ${DRILL_COUNT} passed` : `${passed} of ${DRILL_COUNT} passed`,
    ...(skipped > 0 ? [`${skipped} skipped`] : []),
    ...(never > 0 ? [`${never} never ran`] : []),
  ].join(", ");
}

/** The first one with its reason; the others by name only, unless all have the same reason. */
function tellFailed(
  failed: readonly (readonly [id: string, drill: RecordedDrill])[],
  agoOf: (date: string) => string,
): Pick<DrillsHealth, "sentence" | "todo"> {
  const [[id, { title, at, summary }] = ["", { title: "", at: "", summary: "" }], ...others] = failed;
  const ids = failed.map(([each]) => each);
  if (others.length > 0 && others.every(([, one]) => one.summary === summary))
    return { sentence: `${ids.join(", ")} failed ${agoOf(at)}: ${summary}`, todo: "fula-node drill" };
  const also =
    others.length === 0 ? "" : `; ${others.map(([each]) => each).join(", ")} failed too, for other reasons`;
  return {
    sentence: `${id} ${title} failed ${agoOf(at)}: ${summary}${also}`,
    todo: `fula-node drill ${ids.join(" ")}`,
  };
}
