import { CRON_PERIODS_MS } from "../settings/layout.ts";
import { age } from "../units.ts";

/** How a drill went when it last ran. */
export interface RecordedDrill {
  readonly title: string;
  readonly state: "passed" | "failed" | "skipped";
  /** When it ended, as ISO text. */
  readonly at: string;
  readonly summary: string;
}

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

/** The text of the record with these results in place of the earlier ones of the same drills. */
export function renderDrillRecord(before: DrillRecord, results: DrillRecord): string {
  return `${JSON.stringify({ drills: { ...before, ...results } })}\n`;
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
  const [first] = failed;
  if (first !== undefined) {
    const [id, { title, at: failedAt, summary }] = first;
    const others =
      failed.length === 1
        ? ""
        : ` (and ${failed
            .slice(1)
            .map(([other]) => other)
            .join(", ")})`;
    return {
      state: "attention",
      sentence: `${id} ${title} failed ${agoOf(failedAt)}${others}: ${summary}`,
      todo: `fula-node drill ${failed.map(([each]) => each).join(" ")}`,
      evidence,
    };
  }
  const last = drills
    .map(([, { at: ended }]) => ended)
    .toSorted()
    .at(-1);
  const waitedMs =
    scheduledAt === null ? 0 : now.getTime() - Math.max(scheduledAt.getTime(), Date.parse(last ?? "") || 0);
  const ran = last === undefined ? "none ran yet; cron starts them" : `passed, last ran ${agoOf(last)}`;
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
  return { state: "ok", sentence: ran, todo: null, evidence };
}
