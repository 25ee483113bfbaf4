import type { Rule } from "./rules.ts";

/** Units as kubo reads them (dustin/go-humanize): GB is 1000^3, GiB is 1024^3. */
const UNITS = {
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
} as const;

/** Of the free disk, what a new node offers unless told otherwise. */
const OFFERED_SHARE = 0.8;

/** What KUBO_STORAGE_MAX must be. */
export const STORAGE_SIZE_RULE: Rule = {
  say: "a size such as 500GB or 2TiB (MB, GB, TB, MiB, GiB, TiB)",
  holds: (value) => parseSize(value) !== null,
};

/** A size in bytes; null for anything else. */
export function parseSize(text: string): number | null {
  const [, amount, unit] = /^([1-9][0-9]{0,6})(MB|GB|TB|MiB|GiB|TiB)$/.exec(text) ?? [];
  return amount === undefined ? null : Number(amount) * UNITS[unit as keyof typeof UNITS];
}

/** What a new node offers of so many free bytes: four fifths, in whole GB; in MB on a small disk. */
export function offeredSize(freeBytes: number): string {
  const offered = freeBytes * OFFERED_SHARE;
  return offered >= UNITS.GB
    ? `${Math.floor(offered / UNITS.GB)}GB`
    : `${Math.max(1, Math.floor(offered / UNITS.MB))}MB`;
}
