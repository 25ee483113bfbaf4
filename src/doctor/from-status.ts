import type { PlanItem } from "../engine/events.ts";
import type { Found } from "../status/look-at-node.ts";
import { severityOf } from "./doctor-check.ts";
import type { Finding } from "./finding.ts";

/** The part that tells what a join would change; its foreign things are told one by one. */
const SETTINGS = "settings";

/** What `status` found, one finding for each part, and one for each thing that blocks a join. */
export function findingsOfStatus({ parts, data }: Pick<Found, "parts" | "data">): readonly Finding[] {
  const items = (data["items"] ?? []) as readonly PlanItem[];
  const blocking = items.filter(({ state }) => state === "foreign");
  // With one blocking thing, the part says it whole; with more, only the first.
  const isToldOneByOne = blocking.length > 1;
  return [
    ...parts
      .filter(({ name }) => !(isToldOneByOne && name === SETTINGS))
      .map(({ name, state, summary, todo, evidence }): Finding => ({
        id: name.toLowerCase().replaceAll(" ", "-"),
        severity: severityOf(state),
        what: summary,
        evidence,
        remedy: todo,
      })),
    ...(isToldOneByOne ? blocking : []).map((item): Finding => ({
      id: `step-${item.step}`,
      severity: "warning",
      what: item.why ?? `${item.step} is not ours`,
      evidence: item.evidence,
      remedy: item.remedy ?? null,
    })),
  ];
}
