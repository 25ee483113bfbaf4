import type { Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { edgeOf } from "../settings/edge.ts";
import type { Settings } from "../settings/settings.ts";

/** Group members may be programs that renew it; everybody else must not read a key. */
const OTHERS = 0o007;

/** What is wrong with the operator's files of the edge: a pair that does not match would only fail once a client asks. */
export async function findCertificateProblems(
  host: Pick<HostReader, "files" | "tls" | "clock">,
  settings: Settings,
): Promise<readonly Problem[]> {
  const edge = edgeOf((key) => settings.get(key)?.value);
  if (edge === null) return [];
  if (edge.tls.kind === "files") {
    const { certificate, key } = edge.tls;
    if (certificate === "" || key === "") return [];
    return findPairProblems(host, { name: edge.host, certificate, key });
  }
  const path = edge.tls.kind === "acme" ? edge.tls.root : null;
  if (path === null) return [];
  const subject = "EDGE_ACME_ROOT";
  const pem = await host.files.readText(path);
  if (pem === null) return [missing(subject, path)];
  const facts = await host.tls.inspect(pem, { name: edge.host, key: null });
  if (typeof facts !== "string") return [];
  const remedy = "Put the root certificates of the ACME CA there, in PEM form.";
  return [{ subject, what: `${subject} is ${path}: ${facts}.`, remedy }];
}

/** The first Caddy that knows all that our Caddyfile says: `timeouts` for a part of a site. */
const OLDEST = [2, 11, 5] as const;
/** The labels of the official images, which others that are built on them inherit. */
const LABELS = {
  title: "org.opencontainers.image.title",
  version: "org.opencontainers.image.version",
} as const;

/**
 * A problem if EDGE_IMAGE is a Caddy that does not know our Caddyfile: its container would end at once, after the one that
 * works was removed. The version is that of its labels, or of its tag if it is called caddy. Without one, nothing is said.
 */
export async function findOldCaddy(
  { docker }: Pick<HostReader, "docker">,
  settings: Settings,
): Promise<readonly Problem[]> {
  const subject = "EDGE_IMAGE";
  const setting = settings.get(subject);
  if (!settings.has("PUBLIC_HOST") || setting === undefined) return [];
  const image = await docker.image(setting.value);
  const tag = /(?:^|\/)caddy:([^:/@]+)(?:@.*)?$/.exec(setting.value)?.[1];
  const labelled = image?.labels[LABELS.title] === "Caddy" ? image.labels[LABELS.version] : undefined;
  const version = labelled ?? tag ?? "";
  const numbers = /^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-|$)/.exec(version)?.slice(1);
  if (numbers === undefined) return [];
  // A part that a tag leaves open is the newest.
  const differing = OLDEST.findIndex((part, index) => Number(numbers[index] ?? Infinity) !== part);
  if (differing < 0 || Number(numbers[differing] ?? Infinity) > (OLDEST[differing] ?? 0)) return [];
  const what = `${subject} is ${setting.value}, which has Caddy ${version.replace(/^v/, "")}: too old, the edge needs ${OLDEST.join(".")} or newer.`;
  return [{ subject, what, remedy: `Remove ${subject} from the settings, or name a newer image.` }];
}

async function findPairProblems(
  { files, tls, clock }: Pick<HostReader, "files" | "tls" | "clock">,
  paths: { readonly name: string; readonly certificate: string; readonly key: string },
): Promise<readonly Problem[]> {
  const { name } = paths;
  const [pem, key, target] = await Promise.all([
    files.readText(paths.certificate),
    files.readText(paths.key),
    files.realPath(paths.key),
  ]);
  const absent = [
    ...(pem === null ? [missing("EDGE_CERT", paths.certificate)] : []),
    ...(key === null ? [missing("EDGE_KEY", paths.key)] : []),
  ];
  if (pem === null || key === null) return absent;
  const stat = target === null ? null : await files.stat(target);
  const problem = (subject: "EDGE_CERT" | "EDGE_KEY", what: string, remedy: string): Problem => ({
    subject,
    what: `${subject} is ${subject === "EDGE_CERT" ? paths.certificate : paths.key}: ${what}.`,
    remedy,
  });
  const open =
    stat !== null && (stat.mode & OTHERS) !== 0
      ? [
          problem(
            "EDGE_KEY",
            `every user of this machine can read it, its mode is ${stat.mode.toString(8)}`,
            `Run \`chmod 600 ${target ?? paths.key}\`. If others may have read it, get a new certificate.`,
          ),
        ]
      : [];
  const facts = await tls.inspect(pem, { name, key });
  if (typeof facts === "string")
    return [...open, problem("EDGE_CERT", facts, "Give a certificate and its key in PEM form.")];
  const now = clock.now().getTime();
  const day = (date: Date) => date.toISOString().slice(0, 10);
  return [
    ...open,
    ...(facts.isOfKey === false
      ? [
          problem(
            "EDGE_KEY",
            "it is not the key of the certificate in EDGE_CERT",
            "Give the two that belong together.",
          ),
        ]
      : []),
    ...(facts.coversName
      ? []
      : [
          problem(
            "EDGE_CERT",
            `it is not for ${name}`,
            "Get a certificate for PUBLIC_HOST, or change PUBLIC_HOST.",
          ),
        ]),
    ...(facts.validTo.getTime() <= now
      ? [problem("EDGE_CERT", `it expired on ${day(facts.validTo)}`, "Renew it, then run again.")]
      : []),
    ...(facts.validFrom.getTime() > now
      ? [
          problem(
            "EDGE_CERT",
            `it is not valid before ${day(facts.validFrom)}`,
            "Check the clock of this machine.",
          ),
        ]
      : []),
  ];
}

function missing(subject: string, path: string): Problem {
  return {
    subject,
    what: `${subject} is ${path}, which does not exist.`,
    remedy: "Put the file there, or change the setting.",
  };
}
