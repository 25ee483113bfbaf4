import type { Files } from "../host/host.ts";
import type { FailedPin } from "./restore-apply.ts";

/** Where a restore leaves its lists. */
export interface NotesHands {
  readonly files: Pick<Files, "append" | "remove">;
  /** `<base>/restore`. */
  readonly directory: string;
}

/** Two lists on the disk, one JSON object a line: what failed, and what can't be brought back. */
export interface RestoreNotes {
  note(file: "failed" | "lost", pin: FailedPin): Promise<void>;
  flush(): Promise<void>;
  /** The paths of those that hold something. */
  readonly files: { readonly failed: string | null; readonly lost: string | null };
}

const LINES_AT_ONCE = 200;

/** Starts both lists anew; a file appears with its first line. */
export async function openRestoreNotes(hands: NotesHands, snapshot: string): Promise<RestoreNotes> {
  const lists = {
    failed: { path: `${hands.directory}/${snapshot}.failed.ndjson`, lines: [] as string[], written: false },
    lost: {
      path: `${hands.directory}/${snapshot}.not-restorable.ndjson`,
      lines: [] as string[],
      written: false,
    },
  };
  for (const { path } of Object.values(lists)) await hands.files.remove(path);
  let writing: Promise<void> = Promise.resolve();
  const write = (list: (typeof lists)["failed"]): Promise<void> => {
    const lines = list.lines.splice(0);
    if (lines.length === 0) return writing;
    list.written = true;
    writing = writing.then(() => hands.files.append(list.path, lines.join("\n"), { mode: 0o600 }));
    return writing;
  };
  return {
    note: async (file, pin) => {
      const list = lists[file];
      list.lines.push(JSON.stringify(pin));
      if (list.lines.length >= LINES_AT_ONCE) await write(list);
    },
    flush: async () => {
      await write(lists.failed);
      await write(lists.lost);
    },
    get files() {
      return {
        failed: lists.failed.written ? lists.failed.path : null,
        lost: lists.lost.written ? lists.lost.path : null,
      };
    },
  };
}
