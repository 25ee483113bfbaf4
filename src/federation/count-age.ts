/** A node asks every ten seconds, and a master tells a count again for five: such an age is not worth a word. */
const YOUNG_MS = 20_000;
const MINUTE_MS = 60_000;

/** How long ago a master counted its pins, for behind the count; nothing where that was just now. */
export function ageOfCount(ageMs: number): string {
  if (ageMs <= YOUNG_MS) return "";
  const age =
    ageMs < 2 * MINUTE_MS
      ? `${Math.floor(ageMs / 1000)} seconds`
      : `${Math.floor(ageMs / MINUTE_MS)} minutes`;
  return ` (the master counted ${age} ago)`;
}
