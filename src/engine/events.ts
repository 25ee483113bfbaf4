import type { Change, Evidence } from "./step.ts";

/** One row of a plan: what a step found, and what it would do about it. */
export interface PlanItem {
  readonly step: string;
  readonly title: string;
  readonly state: "absent" | "ours" | "drifted" | "foreign";
  readonly evidence: Evidence;
  /** What differs, for a drifted thing. */
  readonly drift: readonly string[];
  /** Why it is foreign, for a foreign thing. */
  readonly why?: string;
  /** What to do about a foreign thing; left out where `--adopt` takes it over. */
  readonly remedy?: string;
  readonly changes: readonly Change[];
  /** What must be allowed before the changes may be made, by which flag, and whether it is already. */
  readonly consent?: { readonly flag: string; readonly question: string; readonly given: boolean };
}

/** What a run tells whoever shows it. Nothing in an event is secret. */
export type RunEvent =
  | { readonly type: "warning"; readonly text: string }
  | { readonly type: "planned"; readonly items: readonly PlanItem[] }
  | { readonly type: "step-started"; readonly step: string; readonly title: string; readonly changes: number }
  | { readonly type: "change-started"; readonly step: string; readonly summary: string }
  | { readonly type: "progress"; readonly step: string; readonly line: string }
  | {
      readonly type: "change-done";
      readonly step: string;
      readonly summary: string;
      readonly durationMs: number;
    }
  | { readonly type: "step-done"; readonly step: string; readonly title: string; readonly changed: boolean }
  | { readonly type: "step-failed"; readonly step: string; readonly title: string };

/** Takes the events of a run, in order. */
export type Listener = (event: RunEvent) => void;
