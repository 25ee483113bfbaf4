import type { DrillOutcome } from "./drill.ts";

/** Ends a drill as failed: what it would prove does not hold here. */
export class DrillFailure extends Error {
  readonly todo: string | null;

  /** `summary`: what was seen, in a sentence without a full stop. */
  constructor(summary: string, todo: string | null) {
    super(summary);
    this.name = "DrillFailure";
    this.todo = todo;
  }
}

/** What a drill found, with the evidence that it had collected until then. */
export async function outcomeOf(
  evidence: Readonly<Record<string, string>>,
  prove: () => Promise<Pick<DrillOutcome, "state" | "summary">>,
): Promise<DrillOutcome> {
  try {
    return { ...(await prove()), todo: null, evidence };
  } catch (thrown) {
    if (!(thrown instanceof DrillFailure)) throw thrown;
    return { state: "failed", summary: thrown.message, todo: thrown.todo, evidence };
  }
}
