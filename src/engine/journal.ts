import { messageOf } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Change } from "./step.ts";

/** One line of the journal; `phase` intent is on disk before the effect begins. */
export interface JournalLine {
  readonly at: string;
  readonly attempt: string;
  readonly version: string;
  readonly step: string;
  readonly phase: "intent" | "done" | "failed";
  readonly change: Change;
  readonly error?: string;
}

/** Keeps what was done, for people and `doctor`. No join decides by it; a leave learns from it whose hand made the signing key. */
export interface Journal {
  /** Runs one effect between its intent and its result. */
  around(step: string, change: Change, effect: () => Promise<void>): Promise<void>;
}

/** A journal of JSON lines, each fsynced: `<base>/journal.ndjson`, 0600. */
export function openJournal(options: {
  readonly files: Pick<Host["files"], "append">;
  readonly path: string;
  readonly attempt: string;
  readonly version: string;
  readonly now: () => Date;
}): Journal {
  const { files, path, attempt, version, now } = options;
  const write = async (line: Omit<JournalLine, "at" | "attempt" | "version">): Promise<void> => {
    const whole: JournalLine = { at: now().toISOString(), attempt, version, ...line };
    await files.append(path, JSON.stringify(whole), { mode: 0o600 });
  };
  return {
    async around(step, change, effect) {
      await write({ step, change, phase: "intent" });
      try {
        await effect();
      } catch (thrown) {
        // What stopped the effect often stops this line too; the effect's own error is the one to tell.
        await write({ step, change, phase: "failed", error: messageOf(thrown) }).catch(() => {});
        throw thrown;
      }
      await write({ step, change, phase: "done" });
    },
  };
}
