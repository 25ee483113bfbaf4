import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** SPDX identifiers of licences that allow us to ship the code together with their text. */
const ALLOWED = new Set([
  "0BSD",
  "Apache-2.0",
  "BlueOak-1.0.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "CC0-1.0",
  "ISC",
  "MIT",
  "MIT-0",
  "Unlicense",
]);

/**
 * Texts for packages that ship none, or only as a part of their README: files in this directory, copied from the package's
 * repository at that version.
 */
const CHECKED_IN = {
  "@napi-rs/blake-hash-linux-x64-gnu": "license-of-blake-hash.txt",
  "pg-types": "license-of-pg-types.txt",
  pgpass: "license-of-pgpass.txt",
};

const LICENSE_FILE = /^(?:un)?(?:licen[cs]e|copying)(?:[.-]|$)/i;
const NOTICE_FILE = /^notice(?:\.|$)/i;
const PACKAGE_DIRECTORY = /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/;

/**
 * The licences of the packages that the bundle's input files belong to, as one text for dist/licenses.txt. `inputs` are
 * paths relative to `root`. Throws an Error that names every package without a licence text, and every package whose
 * licence is not allowed.
 */
export async function collectLicenses({ root, inputs, checkedIn = CHECKED_IN }) {
  const directories = new Set(inputs.flatMap((input) => PACKAGE_DIRECTORY.exec(input)?.[0] ?? []));
  const parts = [];
  const problems = [];
  for (const directory of [...directories].toSorted((a, b) => (a < b ? -1 : 1))) {
    const manifest = JSON.parse(await readFile(join(root, directory, "package.json"), "utf8"));
    const license = licenseOf(manifest);
    const label = `${manifest.name} ${manifest.version}`;
    if (license === null) problems.push(`${label}: package.json names no licence`);
    else if (!isAllowed(license))
      problems.push(`${label}: ${license} is not on the list of allowed licences`);
    const text = await readTexts(join(root, directory), checkedIn[manifest.name]);
    if (text === "") problems.push(`${label}: no licence text; add one to scripts/ and to CHECKED_IN`);
    parts.push(`${label} (${license})\n\n${text}\n`);
  }
  if (problems.length === 0) return parts.join(`\n${"-".repeat(80)}\n\n`);
  throw new Error(`The bundle cannot be shipped (scripts/licenses.mjs):\n${problems.join("\n")}`);
}

/** The SPDX expression; old packages have an object, or a list of them to choose from. Null: there is none. */
function licenseOf({ license, licenses }) {
  const named = [license ?? licenses ?? []].flat().map((one) => (typeof one === "string" ? one : one?.type));
  const known = named.filter((one) => typeof one === "string" && one !== "");
  return known.length === 0 ? null : known.join(" OR ");
}

/** Of alternatives, one allowed licence is enough. Where AND combines licences, all of them must be allowed. */
function isAllowed(expression) {
  const names = expression
    .replaceAll(/[()]/g, " ")
    .trim()
    .split(/\s+(?:AND|OR)\s+/);
  const isAny = !/\sAND\s/.test(expression);
  return isAny ? names.some((name) => ALLOWED.has(name)) : names.every((name) => ALLOWED.has(name));
}

/** All licence and notice files of a package (Apache-2.0, section 4 d), or the text that is checked in for it. */
async function readTexts(directory, checkedIn) {
  const files = (await readdir(directory, { withFileTypes: true })).filter((entry) => entry.isFile());
  const named = (pattern) =>
    files
      .map(({ name }) => name)
      .filter((name) => pattern.test(name))
      .toSorted();
  const licenses = named(LICENSE_FILE).map((name) => join(directory, name));
  if (licenses.length === 0 && checkedIn !== undefined) {
    licenses.push(join(dirname(fileURLToPath(import.meta.url)), checkedIn));
  }
  if (licenses.length === 0) return "";
  const paths = [...licenses, ...named(NOTICE_FILE).map((name) => join(directory, name))];
  const texts = await Promise.all(paths.map(async (path) => (await readFile(path, "utf8")).trim()));
  return texts.filter((text) => text !== "").join("\n\n");
}
