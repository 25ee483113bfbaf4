import type { RunEvent } from "../../src/engine/events.ts";
import { type Journal, openJournal } from "../../src/engine/journal.ts";
import type { AnyStep, Change, Consent, Finding, StepSpec } from "../../src/engine/step.ts";
import { OperatorError } from "../../src/errors.ts";
import type { FakeHost } from "./fake-host.ts";

/** The text of a sample step's file once the step is done. */
export const DESIRED = "as desired";

/** Where a sample step's file lies. */
export function fileOf(id: string): string {
  return `/opt/samples/${id}`;
}

/** How a sample step differs from a plain one. */
export interface SampleOptions {
  /** Every probe, apply and verify is written here: `probe first`. */
  readonly log?: string[];
  readonly consent?: Consent;
  readonly reprobeAfter?: boolean;
  /** The settings that a repair changes. */
  readonly settings?: readonly string[];
  /** A path without which the probe sees nothing. */
  readonly needs?: string;
  /** What applying does instead of writing the file. */
  readonly apply?: (host: FakeHost, report: (line: string) => void) => void | Promise<void>;
  /** What verifying says instead of looking at the file. */
  readonly verify?: () => void;
}

/**
 * A step over one file: absent without it, ours when it holds DESIRED, foreign when it begins with
 * "theirs", and then claimable when it goes on with "claimable"; drifted with any other text.
 */
export function sample(id: string, options: SampleOptions = {}): AnyStep {
  const { log = [], settings, reprobeAfter = false, needs, apply, verify } = options;
  const path = fileOf(id);
  const step: StepSpec<string | null, Change> = {
    id,
    title: `the file of ${id}`,
    touches: "Nothing real.",
    reprobeAfter,

    async probe(host): Promise<Finding<string | null>> {
      log.push(`probe ${id}`);
      const blind = needs !== undefined && (await host.files.readText(needs)) === null;
      const found = judge(id, blind ? null : await host.files.readText(path), options.consent);
      return found.state === "drifted" && settings !== undefined ? { ...found, settings } : found;
    },

    plan: ({ state }) => (state === "ours" ? [] : [writeOf(id)]),

    async apply(_change, host, report) {
      log.push(`apply ${id}`);
      if (apply === undefined) await host.files.writeAtomic(path, DESIRED, { mode: 0o644 });
      else await apply(host as FakeHost, report);
    },

    async verify(host) {
      log.push(`verify ${id}`);
      verify?.();
      if (verify !== undefined || (await host.files.readText(path)) !== null) return;
      throw new OperatorError({ exit: "unhealthy", what: `${path} is not there.` });
    },
  };
  return step;
}

/** The one change that a sample step makes. */
export function writeOf(id: string): Change {
  return { kind: "write", summary: `write the file of ${id}`, path: fileOf(id) };
}

/** The journal of one attempt on a fake host. */
export function journalOn(host: FakeHost, attempt = "a1"): Journal {
  const { files, clock } = host;
  return openJournal({ files, path: JOURNAL, attempt, version: "0.1.0", now: () => clock.now() });
}

/** Where that journal lies. */
export const JOURNAL = "/opt/samples/journal.ndjson";

/** An event in a few words: `change-done first`. */
export function shorten(event: RunEvent): string {
  return "step" in event ? `${event.type} ${event.step}` : event.type;
}

function judge(id: string, text: string | null, consent: Consent | undefined): Finding<string | null> {
  const evidence = { [fileOf(id)]: text ?? "absent" };
  if (text === null)
    return { state: "absent", seen: text, evidence, ...(consent === undefined ? {} : { consent }) };
  if (text === DESIRED) return { state: "ours", seen: text, evidence };
  const drifted = { state: "drifted", seen: text, drift: [`${id} holds other text`], evidence } as const;
  if (!text.startsWith("theirs")) return drifted;
  const why = `The file of ${id} is somebody else's.`;
  const foreign = { state: "foreign", evidence, why, remedy: "Move it away." } as const;
  return text.includes("claimable") ? { ...foreign, claim: drifted } : foreign;
}
