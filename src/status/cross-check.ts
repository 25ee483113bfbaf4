import { isPending, judgeSettings, type StepsSeen } from "./judge-steps.ts";
import type { TimedPart } from "./collect.ts";

/** What the parts of a node have to do with Docker and with its steps. */
export interface PartRelations {
  /** The parts that work only while Docker does. */
  readonly inDocker: readonly string[];
  /** The parts that show the same thing as a step, by step. */
  readonly shownBy: Readonly<Record<string, readonly string[]>>;
  /** The part that a part can't work without, by part. */
  readonly needs?: Readonly<Record<string, string>>;
  /** The command that repairs this node. */
  readonly repair: string;
}

const DOCKER = "Docker";
const SETTINGS = "settings";

/** Judges the parts together: one fault is one line, and where Docker does not run, it is the fault. */
export function crossCheck(
  parts: readonly TimedPart[],
  seen: StepsSeen,
  relations: PartRelations,
): readonly TimedPart[] {
  return countOnce(blameNeeded(blameDocker(parts, relations), relations), seen, relations);
}

/** The log of a part says nothing more than that what it needs is down. */
function blameNeeded(
  parts: readonly TimedPart[],
  { needs = {}, repair }: PartRelations,
): readonly TimedPart[] {
  const down = new Set(parts.filter(({ state }) => state === "down").map(({ name }) => name));
  return parts.map((part): TimedPart => {
    const needed = needs[part.name];
    if (part.state === "ok" || needed === undefined || !down.has(needed) || part.todo === repair) return part;
    return { ...part, todo: `the cause is the ${needed}: see its line` };
  });
}

/** While Docker does not run, a part in it that does not work is not known to be broken itself, and can't be repaired. */
function blameDocker(parts: readonly TimedPart[], { inDocker }: PartRelations): readonly TimedPart[] {
  const isDown = parts.some(({ name, state }) => name === DOCKER && state === "down");
  if (!isDown) return parts;
  return parts.map((part): TimedPart => {
    const { name, state, summary, evidence } = part;
    if (state === "ok" || !inDocker.includes(name)) return part;
    return {
      ...part,
      state: "unknown",
      summary: "not checked: Docker does not run",
      todo: "see the line of Docker",
      evidence: { ...evidence, seen: summary },
    };
  });
}

/** A change that a part shows already is no second thing that needs attention. */
function countOnce(
  parts: readonly TimedPart[],
  seen: StepsSeen,
  { shownBy, repair }: PartRelations,
): readonly TimedPart[] {
  const wrong = new Set(
    parts.filter(({ state }) => state === "down" || state === "attention").map(({ name }) => name),
  );
  const isShown = (step: string) => (shownBy[step] ?? []).some((name) => wrong.has(name));
  const items = seen.items.map((item) =>
    item.state !== "foreign" && isPending(item) && isShown(item.step)
      ? { ...item, state: "ours" as const, changes: [] }
      : item,
  );
  const unchecked = seen.unchecked.filter(({ step, why }) => why.state !== "down" || !isShown(step));
  const all = judgeSettings(seen, repair);
  const { evidence: _, ...rest } = judgeSettings({ items, unchecked }, repair);
  const summary = rest.state === "ok" && all.state !== "ok" ? "nothing else to repair" : rest.summary;
  return parts.map((part) =>
    // Another summary is about something else: a change of a secret that is not finished.
    part.name === SETTINGS && part.summary === all.summary ? { ...part, ...rest, summary } : part,
  );
}
