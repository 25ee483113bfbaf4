import type { HostReader } from "../host.ts";
import { OperatorError } from "../errors.ts";
import { OWN_IMAGE } from "../docker/kept-service.ts";
import type { Values } from "../settings/context.ts";
import { certificatesInPem } from "../settings/certificates.ts";
import { type Edge, edgeOf, type EdgeTls } from "../settings/edge.ts";
import { CONTAINER_USER, type MasterLayout, NAMES } from "../settings/layout.ts";
import { FILES, renderCaddyfile } from "./caddyfile.ts";

/** A file that the edge's container reads. */
export interface EdgeFile {
  readonly path: string;
  /** Null if it must not be there. */
  readonly text: string | null;
  readonly mode: number;
  readonly uid: number;
}

/** Everything that the edge's container reads, and the files of the operator that are missing. */
export interface EdgeFiles {
  readonly files: readonly EdgeFile[];
  /** The text of the Caddyfile; null if the edge is off. */
  readonly caddyfile: string | null;
  readonly missing: readonly string[];
}

/** Every name in the directory of the edge. */
const EVERY: readonly string[] = Object.values(FILES);

/**
 * What the files of the edge should contain. Those of the operator are copied: only root can read his key, and the
 * container is not root.
 */
export async function readEdgeFiles(
  { files }: Pick<HostReader, "files">,
  options: {
    readonly layout: Pick<MasterLayout, "edgeDir">;
    readonly values: Values;
    readonly hash: (text: string) => string;
  },
): Promise<EdgeFiles> {
  const { layout, values, hash } = options;
  const edge = edgeOf(values);
  const sources = edge === null ? [] : sourcesOf(edge.tls);
  const read = await Promise.all(
    sources.map(async ({ name, path }) => ({ name, path, text: await files.readText(path) })),
  );
  const found = new Map(read.flatMap(({ name, text }) => (text === null ? [] : [[name, text] as const])));
  const own = [FILES.certificate, FILES.root].flatMap((name) => found.get(name) ?? []);
  const caddyfile =
    edge === null
      ? null
      : renderCaddyfile(
          {
            ...edge,
            pinningPort: pinningPortOf(values),
            storagePort: values("WEBUI_PORT") ?? "",
            hasStatusPage: (values("WEBUI_IMAGE") ?? OWN_IMAGE) === OWN_IMAGE,
            fingerprints: own.map((text) => hash(text)),
          },
          hash,
        );
  const texts = new Map([...found, ...(caddyfile === null ? [] : [[FILES.caddyfile, caddyfile] as const])]);
  return {
    caddyfile,
    missing: read.flatMap(({ path, text }) => (text === null ? [path] : [])),
    files: EVERY.map((name) => ({
      path: `${layout.edgeDir}/${name}`,
      text: texts.get(name) ?? null,
      ...(name === FILES.key ? { mode: 0o400, uid: CONTAINER_USER.uid } : { mode: 0o644, uid: 0 }),
    })),
  };
}

/** Where Caddy keeps the root of its own CA, on the volume. */
const OWN_ROOT = "caddy/pki/authorities/local/root.crt";

/** The file with the certificates that other machines need in order to trust the edge. */
export interface PrivateCa {
  readonly path: string;
  /** As STORAGE_API_CA has them. Null if there is none in the file, or no file. */
  readonly certificates: string | null;
}

/** Looks for that file. Null if the edge's certificate is of a public CA, or of the operator. */
export async function findPrivateCa(
  { files, docker }: Pick<HostReader, "files" | "docker">,
  { tls }: Edge,
): Promise<PrivateCa | null> {
  const root = tls.kind === "acme" ? tls.root : null;
  if (tls.kind === "files" || (tls.kind === "acme" && root === null)) return null;
  const volume = root === null ? await docker.volume(NAMES.edgeVolume) : null;
  const path = root ?? `${volume?.mountpoint ?? ""}/${OWN_ROOT}`;
  return { path, certificates: certificatesInPem((await files.readText(path)) ?? "") };
}

/** What that file contains. Throws (`unavailable`) if there should be a certificate and is none. */
export async function readPrivateCa(
  host: Pick<HostReader, "files" | "docker">,
  edge: Edge,
): Promise<string | null> {
  const found = await findPrivateCa(host, edge);
  if (found === null || found.certificates !== null) return found?.certificates ?? null;
  throw new OperatorError({
    exit: "unavailable",
    what: `There is no certificate of the edge's CA in ${found.path}.`,
    why: "Nodes trust it because the invite contains it.",
    remedy: "See what fula-node status says of the edge, then try again.",
  });
}

/** The operator's files, by their names in the directory of the edge. */
function sourcesOf(tls: EdgeTls): readonly { readonly name: string; readonly path: string }[] {
  if (tls.kind === "files")
    return [
      { name: FILES.certificate, path: tls.certificate },
      { name: FILES.key, path: tls.key },
    ];
  return tls.kind === "acme" && tls.root !== null ? [{ name: FILES.root, path: tls.root }] : [];
}

/** The listener of our pinning API that knows who comes from outside. Another image has one port for all. */
function pinningPortOf(values: Values): string {
  const isOwn = (values("PINNING_API_IMAGE") ?? OWN_IMAGE) === OWN_IMAGE;
  return (isOwn ? values("PINNING_EDGE_PORT") : undefined) ?? values("PINNING_API_PORT") ?? "";
}
