import { messageOf } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Change } from "./step.ts";

/** One line of the journal. The line with phase `intent` is on disk before the effect starts. */
export interface JournalLine {
  readonly at: string;
  readonly attempt: string;
  readonly version: string;
  readonly step: string;
  readonly phase: "intent" | "done" | "failed";
  readonly change: Change;
  readonly error?: string;
}

/** Records what was done, for people and for support. A join makes no decision by it; `leave` reads from it whether fula-node created the signing key. */
export interface Journal {
  /** Writes the intent, runs the effect, and writes its result. */
  around(step: string, change: Change, effect: () => Promise<void>): Promise<void>;
}

/** A journal of JSON lines in `<base>/journal.ndjson`, mode 0600. Each line is fsynced. */
export function openJournal(options: {
  readonly files: Pick<Host["files"], "append">;
  readonly path: string;
  readonly attempt: string;
  readonly version: string;
  readonly now: () => Date;
}): Journal {
  const { files, path, attempt, version, now } = options;
  const write = async (line: Omit<JournalLine, "at" | "attempt" | "version">): Promise<void> => {
    const complete: JournalLine = { at: now().toISOString(), attempt, version, ...line };
    await files.append(path, JSON.stringify(complete), { mode: 0o600 });
  };
  return {
    async around(step, change, effect) {
      await write({ step, change, phase: "intent" });
      try {
        await effect();
      } catch (thrown) {
        // The cause of the failure often prevents this line too. The error of the effect is the one to report.
        await write({ step, change, phase: "failed", error: messageOf(thrown) }).catch(() => {});
        throw thrown;
      }
      await write({ step, change, phase: "done" });
    },
  };
}
