import { age, decimalBytes, duration } from "../units.ts";

/** The last restore that was proven. */
export interface ProvenRestore {
  /** When, as ISO text. */
  readonly at: string;
  /** How long the dump and its restore took. */
  readonly durationMs: number;
  readonly dumpBytes: number;
}

/** Older than this, a proof says little of what a dump would be worth today. */
const OLD_MS = 30 * 86_400_000;

/** The text of the record. */
export function renderRestoreRecord(proven: ProvenRestore): string {
  return `${JSON.stringify(proven)}\n`;
}

/** Reads the record; null if there is none, or if it is damaged: then nothing is known to be proven. */
export function parseRestoreRecord(text: string | null): ProvenRestore | null {
  try {
    const { at, durationMs, dumpBytes } = JSON.parse(text ?? "") as Partial<ProvenRestore>;
    const isRead =
      typeof at === "string" &&
      !Number.isNaN(Date.parse(at)) &&
      Number.isFinite(durationMs) &&
      Number.isFinite(dumpBytes);
    return isRead ? { at, durationMs: durationMs ?? 0, dumpBytes: dumpBytes ?? 0 } : null;
  } catch {
    return null;
  }
}

/** `restore proven 3 days ago (1.2 MB in 4.0 s)`, and whether that is too long ago. */
export function describeProof(
  { at, durationMs, dumpBytes }: ProvenRestore,
  now: Date,
): { readonly sentence: string; readonly isOld: boolean } {
  const ageMs = now.getTime() - Date.parse(at);
  // A clock that was set back is no reason to call it new.
  const when = ageMs < 0 ? `at ${at}` : `${age(ageMs)} ago`;
  const sentence = `restore proven ${when} (${decimalBytes(dumpBytes)} in ${duration(durationMs)})`;
  return { sentence, isOld: ageMs < 0 || ageMs > OLD_MS };
}
