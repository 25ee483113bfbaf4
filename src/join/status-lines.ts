import type { PlanItem } from "../engine/events.ts";

/** What `status` says of one thing: what is wrong or to be done, else what was seen. */
export function sentenceOf({ state, why, drift, changes, evidence }: PlanItem): string {
  if (state === "foreign") return why ?? "";
  if (state === "drifted") return drift.join("; ");
  if (state === "absent") return changes.map(({ summary }) => summary).join("; ");
  return Object.entries(evidence)
    .map(([name, seen]) => `${name}: ${seen}`)
    .slice(0, 4)
    .join("; ")
    .replaceAll(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1");
}
