import coerce from "semver/functions/coerce.js";
import gte from "semver/functions/gte.js";

/**
 * True if a version is at least the other one, as programs and distributions write versions: `v2.26.1`, `22.04`,
 * `1.41`, `20.10.24+dfsg1`. Missing numbers are 0; the order is that of Semantic Versioning 2.0.0, section 11.
 * False for text that does not begin with a number.
 */
export function isAtLeast(version: string, wanted: string): boolean {
  const [found, oldest] = [read(version), read(wanted)];
  return found !== null && oldest !== null && gte(found, oldest);
}

/** `coerce` looks for a version anywhere in a text; here it must stand at the start. */
function read(text: string): ReturnType<typeof coerce> {
  const version = text.trim();
  return /^v?\d/.test(version) ? coerce(version, { includePrerelease: true, loose: true }) : null;
}
