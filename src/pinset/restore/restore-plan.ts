import type { Cluster } from "../../cluster/client.ts";
import { readWholePin, unknownFields } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import { type Mark, MARKS, type PinsetMarks } from "../marks.ts";
import { type Irreproducible, type PinPlan, planPin } from "../pin-request.ts";
import { compare, eachMarked, type PinsetSource } from "../snapshot/verify.ts";
import type { PinsetMatch, PinsetWorkspace } from "../workspace.ts";

/** A pin that no REST call can bring back as it was. */
export interface LostPin {
  readonly cid: string;
  readonly name: string;
  readonly why: Irreproducible;
}

/** What a restore has to do, and what it can't. */
export interface RestoreSurvey {
  /** The snapshot's pins by how they stand towards the cluster. */
  readonly marks: PinsetMarks;
  /** Pins of the cluster that the snapshot does not have; they stay. */
  readonly extra: number;
  readonly same: number;
  readonly missing: number;
  readonly differing: number;
  /** Of the missing and, where options are mended, the differing ones: how many can be brought back. */
  readonly restorable: number;
  /** Of the same: how many can't, by why. */
  readonly lost: Readonly<Partial<Record<Irreproducible, number>>>;
  readonly lostExamples: readonly LostPin[];
  /** Pins to be brought back that carry fields which this tool does not know, and the names of these. */
  readonly withUnknownFields: number;
  readonly unknownFields: readonly string[];
  /** The longest path that the server takes; null where none is so long that it mattered. */
  readonly pathLimit: number | null;
}

interface PlanCount extends Pick<
  RestoreSurvey,
  "restorable" | "lost" | "lostExamples" | "withUnknownFields" | "unknownFields"
> {
  /** The longest path that a request needs, in bytes. */
  readonly longest: number;
}

const MOST_EXAMPLES = 20;
/** Paths of at most so many bytes every server takes: 8 KiB less room for the headers. */
const SAFE_PATH_BYTES = 7000;

/** Which marks a restore works on. */
export function wantedMarks(mendOptions: boolean): readonly Mark[] {
  return mendOptions ? [MARKS.missing, MARKS.differs, MARKS.blocked] : [MARKS.missing];
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
      what: `A pin of the snapshot has no CID: ${line.slice(0, 80)}`,
    });
  }
  const named = { cid: pin.cid, name: pin.options.name };
  if (mark === MARKS.blocked) {
    const why = "the pin that is there is recursive, and it would have to be unpinned first";
    return { ...named, plan: { kind: "irreproducible", why } };
  }
  const plan = planPin(pin, options.now);
  if (plan.kind === "pin" && options.pathLimit !== null && plan.path.length > options.pathLimit)
    return {
      ...named,
      plan: { kind: "irreproducible", why: "its name and metadata are too large for this server" },
    };
  return { ...named, plan };
}

/** Compares a snapshot with what the cluster has now, and tells what there is to do. */
export async function surveyRestore(options: {
  readonly source: PinsetSource;
  readonly cluster: Cluster;
  readonly workspace: PinsetWorkspace;
  readonly mendOptions: boolean;
  readonly now: Date;
}): Promise<RestoreSurvey> {
  const { source, cluster, workspace, mendOptions, now } = options;
  const live: Pick<PinsetSource, "read"> = {
    read: async (takeLines) => void (await cluster.list("allocations", takeLines)),
  };
  const match = await compare(source, live, workspace);
  const wanted = wantedMarks(mendOptions);
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
  const lost: Partial<Record<Irreproducible, number>> = {};
  const lostExamples: LostPin[] = [];
  await eachMarked(source, marks, wanted, (line, mark) => {
    const { cid, name, plan } = planLine(line, mark, options);
    if (plan.kind === "irreproducible") {
      lost[plan.why] = (lost[plan.why] ?? 0) + 1;
      if (lostExamples.length < MOST_EXAMPLES) lostExamples.push({ cid, name, why: plan.why });
      return;
    }
    restorable += 1;
    longest = Math.max(longest, plan.path.length);
    const fields = unknownFields(JSON.parse(line));
    if (fields.length === 0) return;
    withUnknownFields += 1;
    for (const field of fields) if (unknown.size < MOST_EXAMPLES) unknown.add(field);
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

/** The longest path up to `longest` bytes that the server takes, to within 256 bytes. */
async function findPathLimit(cluster: Cluster, longest: number): Promise<number> {
  if (await cluster.takesPath(longest)) return longest;
  let taken = SAFE_PATH_BYTES;
  let refused = longest;
  while (refused - taken > 256) {
    const middle = Math.floor((taken + refused) / 2);
    if (await cluster.takesPath(middle)) taken = middle;
    else refused = middle;
  }
  return taken;
}
