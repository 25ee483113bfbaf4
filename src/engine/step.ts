import type { Host, HostReader } from "../host.ts";

/** A JSON value. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/**
 * One change on the box, as plain data without secrets. `--dry-run` prints it, the journal keeps it, and
 * tests compare it exactly. `kind` names the change, `summary` describes it to a person.
 */
export interface Change {
  readonly kind: string;
  readonly summary: string;
  readonly [field: string]: Json;
}

/** What was examined and what was found: `{ "compose project": "fula-master" }`. */
export type Evidence = Readonly<Record<string, string>>;

/** Something that only the operator may allow. `--yes` is enough unless `explicit` is true. */
export interface Consent {
  /** The flag that gives it without a question, for example `--provision-writer`. */
  readonly flag: string;
  readonly question: string;
  /** The answer if the operator only presses Enter. */
  readonly byDefault: boolean;
  /** True if `--yes` is not enough; only the flag or an answer gives it. */
  readonly explicit: boolean;
  /** What the operator can do about it: every option, as sentences. */
  readonly remedy: string;
}

/** The thing does not exist; it is created. */
export interface Absent<Seen> {
  readonly state: "absent";
  readonly seen: Seen;
  readonly evidence: Evidence;
  readonly consent?: Consent;
  readonly settings?: readonly string[];
}

/** The thing exists and is up to date; nothing is changed. */
export interface Ours<Seen> {
  readonly state: "ours";
  readonly seen: Seen;
  readonly evidence: Evidence;
}

/** The thing is ours, but not as desired. `drift` has one sentence per difference. */
export interface Drifted<Seen> {
  readonly state: "drifted";
  readonly seen: Seen;
  readonly drift: readonly string[];
  readonly evidence: Evidence;
  /** Those of `drift` that are settings which the run changes: `REPL_MIN 2 -> 3 (--set)`. The plan lists them by themselves. */
  readonly settings?: readonly string[];
  /** What the changes need besides the confirmation of a repair: each replaces something that the operator adopted. */
  readonly consents?: readonly Consent[];
}

/** The thing was not created by fula-node, or is not safe to change. The run stops and changes nothing. */
export interface Foreign<Seen> {
  readonly state: "foreign";
  readonly evidence: Evidence;
  /** Why it is considered foreign. */
  readonly why: string;
  /** Why the run can't go on with it, if the general reason does not fit: it is not somebody else's work or data. */
  readonly whyRefused?: string;
  readonly remedy: string;
  /** What it becomes with `--adopt STEP`. If left out, it can't be adopted. */
  readonly claim?: Ours<Seen> | Drifted<Seen>;
}

/** What a probe found. */
export type Finding<Seen> = Absent<Seen> | Ours<Seen> | Drifted<Seen> | Foreign<Seen>;

/** A finding that may be planned. The type excludes foreign things. */
export type Plannable<Seen> = Exclude<Finding<Seen>, Foreign<Seen>>;

/** Reports the progress of one change: a download, or a wait for a service. */
export type Report = (line: string) => void;

/** One thing on the box: how to probe it, what to change, and how to verify that it works. */
export interface StepSpec<Seen, C extends Change> {
  /** Kebab-case and equal to the file's name. `--adopt` and the journal use it. */
  readonly id: string;
  readonly title: string;
  /** What it changes on a machine, in a sentence. The lists in docs/master.md and docs/storage-node.md are generated from these. */
  readonly touches: string;
  /**
   * True if later steps can only be probed after this one, for example containers after the Docker engine.
   * If this step changed something, all later steps are probed again before the next write.
   */
  readonly reprobeAfter?: boolean;
  /** Examines the thing and writes nothing. Throws an OperatorError if the state can't be determined. */
  probe(host: HostReader): Promise<Finding<Seen>>;
  /** Pure. The changes that turn the finding into the desired state, in order. "ours" gives []. */
  plan(finding: Plannable<Seen>): readonly C[];
  /** The only function that writes. Safe to repeat, also after it was interrupted. */
  apply(change: C, host: Host, report: Report): Promise<void>;
  /**
   * Checks that the thing works, not only that it exists. Throws an OperatorError (`unhealthy`) otherwise. `report` gets
   * what it waits for.
   */
  verify(host: HostReader, report?: Report): Promise<void>;
}

/** A step of any type. */
// oxlint-disable-next-line no-explicit-any
export type AnyStep = StepSpec<any, any>;
