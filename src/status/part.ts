import type { VerbExit } from "../errors.ts";
import { countOf } from "../units.ts";

/** `attention`: works, but act. `down`: does not work. `unknown`: could not be checked; never counts as ok. */
export type PartState = "ok" | "attention" | "down" | "unknown";

/** One part of a node and how it stands. */
export interface Part {
  /** What the first column shows: "Docker", "database". */
  readonly name: string;
  readonly state: PartState;
  /** What it means, for people: "16.14, schema 021, 1.2 GB". */
  readonly summary: string;
  /** What to do, as a command or a sentence; null if there is nothing to do. */
  readonly todo: string | null;
  /** What was looked at and found. Only `--verbose` and `--json` show it. It has no secrets. */
  readonly evidence: Readonly<Record<string, string>>;
}

/** A part without its name: what a look at it returns. */
export type Judged = Omit<Part, "name">;

/** What stands for an answer that did not arrive in time. */
export const LATE = Symbol("late");

/** The type of LATE. */
export type Late = typeof LATE;

/** An answer over HTTP; null if nothing listens there, or the connection broke. */
export type HttpAnswer = { readonly status: number; readonly body: unknown } | null;

/** The command that repairs a master. */
export const REPAIR_MASTER = "fula-node join-as-master";

/** The command that repairs a storage node. */
export const REPAIR_STORAGE = "fula-node join-as-storage-node";

/** What to do about a question without an answer, where nothing else is known. */
export const LOOK_AGAIN = "look again; if it stays so: fula-node status --verbose";

/** A part that works, without evidence. */
export function allOk(summary: string): Judged {
  return { state: "ok", summary, todo: null, evidence: {} };
}

/** One more fact about a part, already judged. */
export interface Remark {
  readonly state: PartState;
  readonly sentence: string;
  readonly todo: string | null;
}

/** From the least to the most serious. `unknown` is less than `down`: what is known to be broken comes first. */
const ORDER: readonly PartState[] = ["ok", "unknown", "attention", "down"];

/** A part with further remarks. The most serious one decides; its words replace those of a part that was better. */
export function withRemarks(judged: Judged, remarks: readonly Remark[]): Judged {
  let worst = judged;
  for (const { state, sentence, todo } of remarks)
    if (ORDER.indexOf(state) > ORDER.indexOf(worst.state))
      worst = { ...judged, state, summary: sentence, todo };
  return worst;
}

/** How a whole node stands: its most serious part, and `ok` only if every part is. */
export function verdictOf(parts: readonly Pick<Part, "state">[]): PartState {
  const has = (state: PartState) => parts.some((part) => part.state === state);
  return (["down", "attention", "unknown"] as const).find(has) ?? "ok";
}

/** The same in words: how many parts are not ok, the most serious first. */
export function describeVerdict(parts: readonly Pick<Part, "state">[]): string {
  const count = (state: PartState) => parts.filter((part) => part.state === state).length;
  const [down, attention, unknown] = [count("down"), count("attention"), count("unknown")];
  const said = [
    ...(down === 0 ? [] : [`${countOf(down, "part")} ${down === 1 ? "does" : "do"} not work`]),
    ...(attention === 0
      ? []
      : [`${countOf(attention, "thing")} ${attention === 1 ? "needs" : "need"} attention`]),
    ...(unknown === 0 ? [] : [`${countOf(unknown, "part")} could not be checked`]),
  ];
  return said.length === 0 ? "Everything works" : said.join(", ");
}

/** The exit of `status`. Something that is known to need attention is more than something that is not known. */
export const EXIT_OF: Readonly<Record<PartState, VerbExit>> = {
  ok: "ok",
  attention: "pending",
  down: "unhealthy",
  unknown: "unavailable",
};
