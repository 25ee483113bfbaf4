import coerce from "semver/functions/coerce.js";
import gte from "semver/functions/gte.js";

/** A distribution's packages for the engine and Compose v2. */
type DockerPackages =
  | { readonly kind: "packages"; readonly engine: readonly string[]; readonly compose: readonly string[] }
  | { readonly kind: "none"; readonly why: string; readonly remedy: string };

/** Docker's own packages, and those of Microsoft's build, with the engine's package first. */
const VENDORS = [
  { engine: ["docker-ce", "docker-ce-cli", "containerd.io"], compose: ["docker-compose-plugin"] },
  { engine: ["moby-engine", "moby-cli"], compose: ["moby-compose"] },
] as const;

/**
 * The packages that contain Docker and Compose v2 (as of Debian 13 and Ubuntu 24.04). Debian 12 has an
 * engine, but its `docker-compose` is Compose v1. Debian testing and unstable have no version number.
 */
export function dockerPackages(
  os: { readonly id: string; readonly versionId: string; readonly prettyName: string },
  /** dpkg's records. */
  installed = "",
): DockerPackages {
  // An engine of a vendor is completed by the vendor's own packages: the distribution's would replace it.
  const vendor = VENDORS.find(({ engine }) => isUnpacked(packageStatus(installed, engine[0])));
  if (vendor !== undefined) return { kind: "packages", ...vendor };
  const major = Number.parseInt(os.versionId, 10);
  if (os.id === "debian" && (os.versionId === "" || major >= 13)) {
    return {
      kind: "packages",
      engine: ["docker.io", "docker-cli", "iptables", "ca-certificates"],
      compose: ["docker-compose"],
    };
  }
  if (os.id === "ubuntu" && major >= 22) {
    return {
      kind: "packages",
      engine: ["docker.io", "iptables", "ca-certificates"],
      compose: ["docker-compose-v2"],
    };
  }
  return {
    kind: "none",
    why: `${os.prettyName} has no packages for a Docker engine with Compose v2.`,
    remedy:
      "Install Docker with its Compose plugin from Docker's own package repository, or use Debian 13 or later, or Ubuntu 22.04 or later. Then run again.",
  };
}

/** True if apt was interrupted after it began to unpack the engine and before it was configured. */
export function isHalfInstalled(records: string): boolean {
  const status = packageStatus(records, "docker.io");
  return isUnpacked(status) && status !== "installed";
}

/** True for a package whose files are here, whether or not it was configured. */
function isUnpacked(status: string | null): boolean {
  return status !== null && status !== "config-files" && status !== "not-installed";
}

/** The last word of a package's newest Status (dpkg(1)): `installed`, `unpacked`, `half-configured`; null if dpkg does not list it. */
function packageStatus(records: string, name: string): string | null {
  const start = `\n${records}`.indexOf(`\nPackage: ${name}\n`);
  if (start < 0) return null;
  const end = records.indexOf("\n\n", start);
  const paragraph = records.slice(start, end < 0 ? undefined : end);
  return /^Status: \S+ \S+ (\S+)$/m.exec(paragraph)?.[1] ?? null;
}

/**
 * True if a version is at least the other one. Reads versions as programs and distributions write them: `v2.26.1`, `22.04`,
 * `1.41`, `20.10.24+dfsg1`. Missing numbers are 0; the order is that of Semantic Versioning 2.0.0, section 11.
 * False for text that does not begin with a number.
 */
export function isAtLeast(version: string, wanted: string): boolean {
  const [found, oldest] = [read(version), read(wanted)];
  return found !== null && oldest !== null && gte(found, oldest);
}

/** `coerce` finds a version anywhere in a text, but here it must be at the start. */
function read(text: string): ReturnType<typeof coerce> {
  const version = text.trim();
  return /^v?\d/.test(version) ? coerce(version, { includePrerelease: true, loose: true }) : null;
}
