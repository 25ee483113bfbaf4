import type { Change, Evidence } from "./step.ts";

/** One row of a plan: what a step found, and what it would change. */
export interface PlanItem {
  readonly step: string;
  readonly title: string;
  readonly state: "absent" | "ours" | "drifted" | "foreign";
  readonly evidence: Evidence;
  /** What differs, if the state is drifted. */
  readonly drift: readonly string[];
  /** The settings that the run changes, each with its old and new value and its source. */
  readonly settings?: readonly string[];
  /** Why it is foreign, if the state is foreign. */
  readonly why?: string;
  /** What to do about a foreign thing. Left out if `--adopt` takes it over. */
  readonly remedy?: string;
  readonly changes: readonly Change[];
  /** The confirmation that the changes need: the flag that gives it, and whether it is given. */
  readonly consent?: Confirmation;
  /** The confirmations that a replacement of something adopted needs. */
  readonly confirmations?: readonly Confirmation[];
}

/** A confirmation: the flag that gives it, and whether it is given. */
export interface Confirmation {
  readonly flag: string;
  readonly question: string;
  readonly given: boolean;
}

/** What a run reports while it works. No event contains a secret. */
export type RunEvent =
  | { readonly type: "warning"; readonly text: string }
  | { readonly type: "planned"; readonly items: readonly PlanItem[] }
  | { readonly type: "step-started"; readonly step: string; readonly title: string; readonly changes: number }
  | { readonly type: "change-started"; readonly step: string; readonly summary: string }
  | {
      readonly type: "progress";
      readonly step: string;
      readonly line: string;
      /** True for what a verification waits for: also of a step that changes nothing. */
      readonly waits?: boolean;
    }
  | { readonly type: "change-done"; readonly step: string; readonly summary: string }
  | {
      readonly type: "step-done";
      readonly step: string;
      readonly title: string;
      readonly changed: boolean;
      /** The whole step: probe, changes and verification. */
      readonly durationMs: number;
    }
  | { readonly type: "step-failed"; readonly step: string; readonly title: string };

/** Receives the events of a run, in order. */
export type Listener = (event: RunEvent) => void;
