interface Version {
  readonly numbers: readonly number[];
  readonly prerelease: readonly string[];
}

/**
 * Orders two versions as Semantic Versioning 2.0.0 section 11 does: negative when `a` is the older.
 * A leading `v` and build metadata (`+ds1`) do not count, missing numbers are 0 (`1.41` is `1.41.0`).
 * Throws RangeError for text that does not begin with a number.
 */
export function compareVersions(a: string, b: string): number {
  const one = parseVersion(a);
  const other = parseVersion(b);
  const length = Math.max(one.numbers.length, other.numbers.length);
  for (let index = 0; index < length; index += 1) {
    const difference = (one.numbers[index] ?? 0) - (other.numbers[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return comparePrereleases(one.prerelease, other.prerelease);
}

/** True where the version is at least the wanted one; also false for text that is no version. */
export function isAtLeast(version: string, wanted: string): boolean {
  return isVersion(version) && compareVersions(version, wanted) >= 0;
}

/** True for text that compareVersions can order. */
export function isVersion(text: string): boolean {
  return PATTERN.test(text.trim());
}

const PATTERN = /^v?(?<numbers>\d+(?:\.\d+)*)(?:-(?<prerelease>[0-9A-Za-z.-]+))?/;

function parseVersion(text: string): Version {
  const match = PATTERN.exec(text.trim());
  if (match?.groups === undefined) throw new RangeError(`not a version: ${text}`);
  const { numbers = "", prerelease } = match.groups;
  return {
    numbers: numbers.split(".").map(Number),
    prerelease: prerelease === undefined ? [] : prerelease.split("."),
  };
}

function comparePrereleases(a: readonly string[], b: readonly string[]): number {
  if (a.length === 0 || b.length === 0) return b.length - a.length;
  for (const [index, one] of a.entries()) {
    const other = b[index];
    if (other === undefined) return 1;
    const difference = compareIdentifiers(one, other);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

function compareIdentifiers(a: string, b: string): number {
  const numeric = [a, b].map((text) => /^\d+$/.test(text));
  if (numeric[0] === true && numeric[1] === true) return Number(a) - Number(b);
  if (numeric[0] !== numeric[1]) return numeric[0] === true ? -1 : 1;
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
