import type { Problem } from "../errors.ts";
import { isHostName } from "./address.ts";
import { RULES } from "./rules.ts";
import type { Settings, SettingSpec } from "./settings.ts";

/** Let's Encrypt. */
const PUBLIC_CA = "https://acme-v02.api.letsencrypt.org/directory";

/** The settings of a master's edge: the proxy that makes it reachable from other machines. */
export const EDGE_SETTINGS: readonly SettingSpec[] = [
  {
    key: "PUBLIC_HOST",
    about:
      "host name under which other machines reach this master; if set, a proxy (Caddy) serves its APIs over HTTPS on the ports 80 and 443",
    rule: {
      requirement: "a host name in lower case, such as master.example.org",
      holds: (value) => isHostName(value) && /^[a-z0-9.-]+$/.test(value),
    },
  },
  {
    key: "EDGE_TLS",
    about:
      "where the certificate for PUBLIC_HOST comes from: acme, files (EDGE_CERT and EDGE_KEY) or internal (a CA of this master, for a lab; invites contain it)",
    rule: {
      requirement: "acme, files or internal",
      holds: (value) => ["acme", "files", "internal"].includes(value),
    },
    byDefault: "acme",
  },
  {
    key: "EDGE_CERT",
    about: "path of the operator's certificate for PUBLIC_HOST with its chain, in PEM form",
    rule: RULES.path,
  },
  {
    key: "EDGE_KEY",
    about: "path of that certificate's key, in PEM form; nobody but its owner and group may read it",
    rule: RULES.path,
  },
  {
    key: "EDGE_ACME_CA",
    about: "URL of the ACME directory of the CA that issues the certificate",
    rule: {
      requirement: "an https:// address without credentials, query or fragment",
      holds: (value) =>
        /^https:\/\/[A-Za-z0-9.:[\]-]+(?:\/[A-Za-z0-9._~/-]*)?$/.test(value) && URL.canParse(value),
    },
    byDefault: PUBLIC_CA,
  },
  {
    key: "EDGE_ACME_EMAIL",
    about: "e-mail address that the CA may write to about the certificate",
    rule: {
      requirement: "an e-mail address",
      holds: (value) => /^[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+$/.test(value),
    },
  },
  {
    key: "EDGE_ACME_ROOT",
    about:
      "path of a PEM file with the roots of a private ACME CA: the edge trusts them for EDGE_ACME_CA, and invites contain them",
    rule: RULES.path,
  },
  { key: "EDGE_IMAGE", about: "image of Caddy", rule: RULES.image, byDefault: "caddy:2.11.9-alpine" },
];

/** The ports of the edge, on every address of both families. */
export const EDGE_PORTS = [80, 443] as const;

/** How the edge gets its certificate. */
export type EdgeTls =
  | {
      readonly kind: "acme";
      readonly directory: string;
      readonly email: string | null;
      readonly root: string | null;
    }
  | { readonly kind: "files"; readonly certificate: string; readonly key: string }
  | { readonly kind: "internal" };

/** The edge as the settings want it. */
export interface Edge {
  readonly host: string;
  readonly tls: EdgeTls;
}

/** Reads the settings of the edge. Null if it is off. */
export function edgeOf(values: (key: string) => string | undefined): Edge | null {
  const host = values("PUBLIC_HOST");
  if (host === undefined) return null;
  const kind = values("EDGE_TLS");
  if (kind === "internal") return { host, tls: { kind } };
  if (kind === "files")
    return { host, tls: { kind, certificate: values("EDGE_CERT") ?? "", key: values("EDGE_KEY") ?? "" } };
  const [directory = PUBLIC_CA, email = null, root = null] = [
    values("EDGE_ACME_CA"),
    values("EDGE_ACME_EMAIL"),
    values("EDGE_ACME_ROOT"),
  ];
  return { host, tls: { kind: "acme", directory, email, root } };
}

/** The address at which storage nodes reach this master, as invites contain it. Undefined if it is not known. */
export function addressForNodes(values: (key: string) => string | undefined): string | undefined {
  const host = values("PUBLIC_HOST");
  return values("STORAGE_API_URL") ?? (host === undefined ? undefined : `https://${host}`);
}

/** Settings of the edge that do not go together. */
export function findEdgeConflicts(settings: Settings): readonly Problem[] {
  const subject = "EDGE_TLS";
  const tls = settings.get(subject)?.value;
  const missing = ["EDGE_CERT", "EDGE_KEY"].filter((key) => !settings.has(key));
  if (tls === "files" && missing.length > 0)
    return missing.map((key) => ({
      subject: key,
      what: `${key} is missing: EDGE_TLS is files.`,
      remedy: "Give the paths of both: EDGE_CERT and EDGE_KEY.",
    }));
  // What this run sets and nothing reads would look as if it had an effect. What is saved may be used again.
  return idleKeys(settings)
    .filter((key) => settings.get(key)?.origin !== "saved")
    .map((key) => ({
      subject: key,
      what: `${key} is set, but EDGE_TLS is ${tls ?? "not set"}, so nothing uses it.`,
      remedy: key.startsWith("EDGE_ACME")
        ? `Set EDGE_TLS=acme, or leave ${key} out.`
        : `Set EDGE_TLS=files too, or leave ${key} out.`,
    }));
}

/** The settings that the other kinds of EDGE_TLS use. */
function idleKeys(settings: Settings): readonly string[] {
  const tls = settings.get("EDGE_TLS")?.value;
  const keys = [
    ...(tls === "files" ? [] : ["EDGE_CERT", "EDGE_KEY"]),
    ...(tls === "acme" ? [] : ["EDGE_ACME_EMAIL", "EDGE_ACME_ROOT"]),
  ];
  return keys.filter((key) => settings.has(key));
}

/** Which settings in `.env` another EDGE_TLS would use, as a sentence; null if there is none. */
export function describeIdle(settings: Settings): string | null {
  // Once is enough: the run that changes EDGE_TLS says it.
  const origin = settings.get("EDGE_TLS")?.origin;
  if (!settings.has("PUBLIC_HOST") || (origin !== "flag" && origin !== "environment")) return null;
  const kept = idleKeys(settings).filter((key) => settings.get(key)?.origin === "saved");
  if (kept.length === 0) return null;
  const verb = kept.length === 1 ? "stays in .env, but is" : "stay in .env, but are";
  return `${kept.join(" and ")} ${verb} not used: EDGE_TLS is ${settings.get("EDGE_TLS")?.value ?? "not set"}.`;
}
