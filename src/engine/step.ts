import type { Host, HostReader } from "../host.ts";

/** A value that JSON can carry. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/**
 * One effect on the box, as plain data without secrets: `--dry-run` prints it, the journal keeps it,
 * tests assert it exactly. `kind` says which effect, `summary` says it to a person.
 */
export interface Change {
  readonly kind: string;
  readonly summary: string;
  readonly [field: string]: Json;
}

/** What was looked at, and what was seen there: `{ "compose project": "fula-master" }`. */
export type Evidence = Readonly<Record<string, string>>;

/** Something only the operator may allow; `--yes` is enough unless `explicit` is true. */
export interface Consent {
  /** The flag that gives it without a question: `--provision-writer`. */
  readonly flag: string;
  readonly question: string;
  /** The answer that Enter gives. */
  readonly byDefault: boolean;
  /** True when `--yes` does not cover it: only the flag or an answer does. */
  readonly explicit: boolean;
  /** What to do without it: every way out, as sentences. */
  readonly remedy: string;
}

/** The thing is not there: make it. */
export interface Absent<Seen> {
  readonly state: "absent";
  readonly seen: Seen;
  readonly evidence: Evidence;
  readonly consent?: Consent;
}

/** The thing is there and as wished: leave it alone. */
export interface Ours<Seen> {
  readonly state: "ours";
  readonly seen: Seen;
  readonly evidence: Evidence;
}

/** The thing is ours, but not as wished; `drift` names each difference in a sentence. */
export interface Drifted<Seen> {
  readonly state: "drifted";
  readonly seen: Seen;
  readonly drift: readonly string[];
  readonly evidence: Evidence;
}

/** The thing is somebody else's, or not safe to touch: halt, and change nothing. */
export interface Foreign<Seen> {
  readonly state: "foreign";
  readonly evidence: Evidence;
  /** Why it is taken for foreign. */
  readonly why: string;
  readonly remedy: string;
  /** What `--adopt STEP` would make of it. Left out: it can't be adopted. */
  readonly claim?: Ours<Seen> | Drifted<Seen>;
}

/** What a probe found. */
export type Finding<Seen> = Absent<Seen> | Ours<Seen> | Drifted<Seen> | Foreign<Seen>;

/** A finding that may be planned: a foreign thing may not, by type. */
export type Plannable<Seen> = Exclude<Finding<Seen>, Foreign<Seen>>;

/** Tells what goes on inside one effect: a download's progress, a service that is waited for. */
export type Report = (line: string) => void;

/** One thing on the box: how to look at it, what to do about it, and how to tell that it works. */
export interface StepSpec<Seen, C extends Change> {
  /** Kebab-case, equal to the file's name: what `--adopt` and the journal call it. */
  readonly id: string;
  readonly title: string;
  /** What it changes on a machine, in a sentence: the lists in docs/master.md and docs/storage-node.md are made of these. */
  readonly touches: string;
  /**
   * True where what follows can only be seen once this step is done (the engine's own containers):
   * after it has changed something, everything behind it is probed again before the next write.
   */
  readonly reprobeAfter?: boolean;
  /** Looks; writes nothing. Throws an OperatorError when it can't tell. */
  probe(host: HostReader): Promise<Finding<Seen>>;
  /** Pure: the changes that turn the finding into the wished state, in order. "ours" gives []. */
  plan(finding: Plannable<Seen>): readonly C[];
  /** The only writer. Safe to repeat, and safe to run over its own half-done work. */
  apply(change: C, host: Host, report: Report): Promise<void>;
  /** Asks the thing to work, not merely to exist; throws an OperatorError (`unhealthy`) otherwise. */
  verify(host: HostReader): Promise<void>;
}

/** A step whose types are nobody's business but its own. */
// oxlint-disable-next-line no-explicit-any
export type AnyStep = StepSpec<any, any>;
