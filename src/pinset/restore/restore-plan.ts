import type { Cluster } from "../../cluster/client.ts";
import { readWholePin, unknownFields } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import { type Mark, MARKS, type PinsetMarks } from "../marks.ts";
import { type NotRestorableReason, type PinPlan, planPin } from "../../cluster/pin-request.ts";
import { compare, eachMarked, type PinsetSource } from "../snapshot/verify.ts";
import type { PinsetMatch, PinsetWorkspace } from "../workspace.ts";

/** A pin that no REST call can restore as it was. */
export interface LostPin {
  readonly cid: string;
  readonly name: string;
  readonly why: NotRestorableReason;
}

/** The work of a restore, and what it cannot restore. */
export interface RestoreSurvey {
  /** How each pin of the snapshot compares with the cluster. */
  readonly marks: PinsetMarks;
  /** Pins of the cluster that are not in the snapshot; they stay. */
  readonly extra: number;
  readonly same: number;
  readonly missing: number;
  readonly differing: number;
  /** How many pins can be restored, of the missing ones and (if `repairOptions` is set) of the differing ones. */
  readonly restorable: number;
  /** How many of these pins cannot be restored, by reason. */
  readonly lost: Readonly<Partial<Record<NotRestorableReason, number>>>;
  readonly lostExamples: readonly LostPin[];
  /** How many pins to restore have fields that this tool does not know, and the names of these fields. */
  readonly withUnknownFields: number;
  readonly unknownFields: readonly string[];
  /** The longest path that the server accepts; null if all paths are so short that any server accepts them. */
  readonly pathLimit: number | null;
}

interface PlanCount extends Pick<
  RestoreSurvey,
  "restorable" | "lost" | "lostExamples" | "withUnknownFields" | "unknownFields"
> {
  /** The length of the longest request path, in bytes. */
  readonly longest: number;
}

const MAX_EXAMPLES = 20;
/** Every server accepts paths up to this length: 8 KiB, minus space for the headers. */
const SAFE_PATH_BYTES = 7000;

/** The marks of the pins that a restore processes. */
export function wantedMarks(repairOptions: boolean): readonly Mark[] {
  return repairOptions ? [MARKS.missing, MARKS.differs, MARKS.blocked] : [MARKS.missing];
}

/** The request for one line of the snapshot. `pathLimit`: see RestoreSurvey. */
export function planLine(
  line: string,
  mark: Mark,
  options: { readonly now: Date; readonly pathLimit: number | null },
): { readonly cid: string; readonly name: string; readonly plan: PinPlan } {
  const pin = readWholePin(JSON.parse(line));
  if (pin === null) {
    throw new OperatorError({
      exit: "integrity",
      what: `A pin in the snapshot has no CID: ${line.slice(0, 80)}`,
    });
  }
  const named = { cid: pin.cid, name: pin.options.name };
  if (mark === MARKS.blocked) {
    const why = "the pin that is there is recursive, and it would have to be unpinned first";
    return { ...named, plan: { kind: "not-restorable", why } };
  }
  const plan = planPin(pin, options.now);
  if (plan.kind === "pin" && options.pathLimit !== null && plan.path.length > options.pathLimit)
    return {
      ...named,
      plan: { kind: "not-restorable", why: "its name and metadata are too large for this server" },
    };
  return { ...named, plan };
}

/** Compares a snapshot with the current pinset of the cluster, and gives the work to do. */
export async function surveyRestore(options: {
  readonly source: PinsetSource;
  readonly cluster: Cluster;
  readonly workspace: PinsetWorkspace;
  readonly repairOptions: boolean;
  readonly now: Date;
}): Promise<RestoreSurvey> {
  const { source, cluster, workspace, repairOptions, now } = options;
  const live: Pick<PinsetSource, "read"> = {
    read: async (takeLines) => void (await cluster.list("allocations", takeLines)),
  };
  const match = await compare(source, live, workspace);
  const wanted = wantedMarks(repairOptions);
  const counted = await countPlans(source, match.left, wanted, { now, pathLimit: null });
  const { longest } = counted;
  if (longest <= SAFE_PATH_BYTES) return { ...summarise(match), ...counted, pathLimit: null };
  const pathLimit = await findPathLimit(cluster, longest);
  if (pathLimit >= longest) return { ...summarise(match), ...counted, pathLimit };
  const recounted = await countPlans(source, match.left, wanted, { now, pathLimit });
  return { ...summarise(match), ...recounted, pathLimit };
}

async function countPlans(
  source: PinsetSource,
  marks: PinsetMarks,
  wanted: readonly Mark[],
  options: { readonly now: Date; readonly pathLimit: number | null },
): Promise<PlanCount> {
  let restorable = 0;
  let longest = 0;
  let withUnknownFields = 0;
  const unknown = new Set<string>();
  const lost: Partial<Record<NotRestorableReason, number>> = {};
  const lostExamples: LostPin[] = [];
  await eachMarked(source, marks, wanted, (line, mark) => {
    const { cid, name, plan } = planLine(line, mark, options);
    if (plan.kind === "not-restorable") {
      lost[plan.why] = (lost[plan.why] ?? 0) + 1;
      if (lostExamples.length < MAX_EXAMPLES) lostExamples.push({ cid, name, why: plan.why });
      return;
    }
    restorable += 1;
    longest = Math.max(longest, plan.path.length);
    const fields = unknownFields(JSON.parse(line));
    if (fields.length === 0) return;
    withUnknownFields += 1;
    for (const field of fields) if (unknown.size < MAX_EXAMPLES) unknown.add(field);
  });
  return { restorable, longest, lost, lostExamples, withUnknownFields, unknownFields: [...unknown].sort() };
}

function summarise({
  left,
  right,
}: PinsetMatch): Pick<RestoreSurvey, "marks" | "extra" | "same" | "missing" | "differing"> {
  const missing = left.count(MARKS.missing);
  const differing = left.count(MARKS.differs) + left.count(MARKS.blocked);
  return {
    marks: left,
    extra: right.count(MARKS.missing),
    same: left.size - missing - differing,
    missing,
    differing,
  };
}

/** Finds the longest path that the server accepts, up to `longest` bytes and with an error of at most 256 bytes. */
async function findPathLimit(cluster: Cluster, longest: number): Promise<number> {
  if (await cluster.acceptsPath(longest)) return longest;
  let accepted = SAFE_PATH_BYTES;
  let refused = longest;
  while (refused - accepted > 256) {
    const middle = Math.floor((accepted + refused) / 2);
    if (await cluster.acceptsPath(middle)) accepted = middle;
    else refused = middle;
  }
  return accepted;
}
