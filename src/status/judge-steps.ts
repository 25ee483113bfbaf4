import type { PlanItem } from "../engine/events.ts";
import { countOf } from "../units.ts";
import { allOk, type Judged, LOOK_AGAIN } from "./part.ts";

/** A step that could not be looked at, and why. */
export interface Unchecked {
  readonly step: string;
  readonly why: Judged;
}

/** What a look at every step of the install order found. */
export interface StepsSeen {
  readonly items: readonly PlanItem[];
  readonly unchecked: readonly Unchecked[];
}

/** True if a join would change something, or would stop at it. */
export function isPending({ state, changes }: Pick<PlanItem, "state" | "changes">): boolean {
  return state === "foreign" || changes.length > 0;
}

/** What a join would change, by step, and what could not be looked at. `repair` is the command of that join. */
export function judgeSettings({ items, unchecked }: StepsSeen, repair: string): Judged {
  const evidence = evidenceOf(items, unchecked);
  const foreign = items.filter(({ state }) => state === "foreign");
  const [first] = foreign;
  if (first !== undefined) {
    const others =
      foreign.length === 1
        ? ""
        : ` (and ${foreign
            .slice(1)
            .map(({ step }) => step)
            .join(", ")})`;
    const summary = `${repair} would stop: ${first.why ?? first.step}${others}`;
    return { state: "attention", summary, todo: first.remedy ?? null, evidence };
  }
  const stopped = unchecked.find(({ why }) => why.state === "down");
  if (stopped !== undefined) {
    const summary = `${repair} would stop at ${stopped.step}: ${stopped.why.summary}`;
    return { state: "attention", summary, todo: stopped.why.todo, evidence };
  }
  const open = unchecked.map(({ step }) => step).join(", ");
  const changes = items.reduce((sum, item) => sum + item.changes.length, 0);
  if (changes > 0) {
    const also = open === "" ? "" : `; not checked: ${open}`;
    return {
      state: "attention",
      summary: `${describePending(items, changes)}${also}`,
      todo: repair,
      evidence,
    };
  }
  if (unchecked.length === 0) return { ...allOk("as in .env, nothing to repair"), evidence };
  const reason = unchecked[0]?.why.summary ?? "";
  const todo = unchecked[0]?.why.todo ?? LOOK_AGAIN;
  return { state: "unknown", summary: `not checked: ${open} (${reason})`, todo, evidence };
}

/** So few changes are named. */
const FEW = 2;

/** `not complete: cli, services are missing; 3 changes pending: docker, env-file`. */
function describePending(items: readonly PlanItem[], changes: number): string {
  const missing = items.filter(({ state, changes: own }) => state === "absent" && own.length > 0);
  const others = items.filter(({ state, changes: own }) => state !== "absent" && own.length > 0);
  const names = (some: readonly PlanItem[]) => some.map(({ step }) => step).join(", ");
  const absent = `missing: ${names(missing)}`;
  const pending = `${countOf(changes, "change")} pending`;
  if (missing.length === 0 && changes <= FEW)
    return `${pending}: ${others.map(({ step, changes: own }) => `${step}: ${own.map(({ summary }) => summary).join(", ")}`).join("; ")}`;
  if (missing.length === 0) return `${pending}: ${names(others)}`;
  return `not completely installed, ${pending}; ${absent}${others.length === 0 ? "" : `; to repair: ${names(others)}`}`;
}

function evidenceOf(
  items: readonly PlanItem[],
  unchecked: readonly Unchecked[],
): Readonly<Record<string, string>> {
  const rows = items.map((item) => {
    const facts = Object.entries(item.evidence).map(([key, value]) => `${key}: ${value}`);
    return [item.step, [item.state, ...item.drift, ...facts].join("; ")] as const;
  });
  return Object.fromEntries([
    ...rows,
    ...unchecked.map(({ step, why }) => [step, `not checked: ${why.summary}`] as const),
  ]);
}

/** The steps of cron, as the part `cron` shows them. */
export const CRON_STEPS = {
  daemon: "cron",
  entries: ["snapshot-cron", "sweep-cron", "drill-cron", "backup-cron"],
} as const;

/** Whether cron runs, and has the entries that it should have. */
export function judgeCron({ items, unchecked }: StepsSeen, repair: string, hasDrills = false): Judged {
  const isCron = (step: string) =>
    step === CRON_STEPS.daemon || (CRON_STEPS.entries as readonly string[]).includes(step);
  const own = items.filter(({ step }) => isCron(step));
  const open = unchecked.filter(({ step }) => isCron(step));
  const evidence = evidenceOf(own, open);
  const daemon = own.find(({ step }) => step === CRON_STEPS.daemon);
  if (daemon !== undefined && isPending(daemon)) {
    const why = daemon.state === "absent" ? "cron is not installed" : "cron is not running";
    return { state: "down", summary: `${why}, so no snapshot is taken`, todo: repair, evidence };
  }
  const wrong = own.filter((item) => item !== daemon && isPending(item));
  if (wrong.length > 0) {
    const said = wrong.map(
      ({ title, state, drift, why }) =>
        why ?? (drift.join(", ") || `the ${title} is ${state === "absent" ? "missing" : state}`),
    );
    return { state: "attention", summary: said.join("; "), todo: repair, evidence };
  }
  if (daemon === undefined || own.length < 1 + CRON_STEPS.entries.length) {
    const reason = open[0]?.why.summary ?? "the steps could not be looked at";
    const todo = open[0]?.why.todo ?? LOOK_AGAIN;
    return { state: "unknown", summary: `not checked: ${reason}`, todo, evidence };
  }
  return {
    ...allOk(`runs, with the entries for snapshots${hasDrills ? ", sweeps and drills" : " and sweeps"}`),
    evidence,
  };
}
