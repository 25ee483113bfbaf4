import * as z from "zod";
import type { ArchivedImage } from "../engine.ts";
import { shortName } from "./judge-archive.ts";

/** What is known about one file of an archive. */
export interface ArchiveEntry {
  /** Lower-case hex sha256 of its content. */
  readonly digest: string;
  /** Its content if it can be JSON, else null. */
  readonly text: string | null;
  /** True for a content that is compressed: its digest is not that of the layer in it. */
  readonly isPacked: boolean;
  /** The file in the archive that this link stands for; null for a file. */
  readonly target: string | null;
}

type Entries = ReadonlyMap<string, ArchiveEntry>;

/** The lists of what an archive has: Docker's own, which every engine reads, and that of the OCI layout. */
const DOCKER_LIST = "manifest.json";
const OCI_LIST = "index.json";

const DOCKER_IMAGES = z.array(
  z.object({
    Config: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Layers: z.array(z.string()).nullish(),
  }),
);
const DESCRIPTORS = z.object({
  manifests: z.array(
    z.object({ digest: z.string(), annotations: z.record(z.string(), z.string()).nullish() }),
  ),
});
const MANIFEST = z.object({
  config: z.object({ digest: z.string() }),
  layers: z.array(z.object({ digest: z.string() })),
});
const CONFIG = z.object({
  architecture: z.string().nullish(),
  rootfs: z.object({ diff_ids: z.array(z.string()).nullish() }).nullish(),
});

/** containerd's and the OCI's name of an image in an index; the second is often only the tag. */
const NAMES = ["io.containerd.image.name", "org.opencontainers.image.ref.name"] as const;
/** An index of platforms is one level below; a malformed archive may refer to itself. */
const MAX_DEPTH = 3;
const MAX_LINKS = 4;

/** True if an archive of images has one of the lists that an engine reads. */
export function isImageArchive(entries: Entries): boolean {
  return entries.has(DOCKER_LIST) || entries.has(OCI_LIST);
}

/** The first file of an archive whose content is not the one that its name or the image says; null if all are right. */
export function findAltered(entries: Entries): string | null {
  for (const [name, { digest }] of entries) {
    const named = /^(?:blobs\/sha256\/([0-9a-f]{64})|([0-9a-f]{64})\.json)$/.exec(name);
    if (named !== null && (named[1] ?? named[2]) !== digest) return name;
  }
  for (const { layers, config } of [...dockerImages(entries), ...ociImages(entries)]) {
    const expected = readConfig(entries, config).layers;
    for (const [index, path] of layers.entries()) {
      const layer = resolve(entries, path);
      const digest = expected[index];
      if (layer === null || layer.isPacked || digest === undefined) continue;
      if (`sha256:${layer.digest}` !== digest) return path;
    }
  }
  return null;
}

/** The images of an archive, each with what it lacks. An image may be listed twice. */
export function imagesOf(entries: Entries): readonly ArchivedImage[] {
  return [...dockerImages(entries), ...ociImages(entries)].flatMap(({ references, config, layers }) => {
    const lacks = [config, ...layers].filter((path) => resolve(entries, path) === null);
    const { architecture } = readConfig(entries, config);
    return references.map((reference) => ({ reference: shortName(reference), architecture, lacks }));
  });
}

/** One image as a list of an archive names it. */
interface Listed {
  readonly references: readonly string[];
  readonly config: string;
  readonly layers: readonly string[];
}

function dockerImages(entries: Entries): readonly Listed[] {
  const images = readJson(entries, DOCKER_LIST, DOCKER_IMAGES) ?? [];
  return images.map(({ Config, RepoTags, Layers }) => ({
    references: RepoTags ?? [],
    config: Config,
    layers: Layers ?? [],
  }));
}

function ociImages(entries: Entries): readonly Listed[] {
  const index = readJson(entries, OCI_LIST, DESCRIPTORS);
  return (index?.manifests ?? []).flatMap(({ digest, annotations }) => {
    const name = NAMES.map((key) => annotations?.[key]).find((one) => one?.includes(":") === true);
    return name === undefined ? [] : manifestsBelow(entries, { digest, name }, MAX_DEPTH);
  });
}

/** The images of one descriptor. An index names every platform, and the archive has those that the engine had. */
function manifestsBelow(
  entries: Entries,
  { digest, name }: { readonly digest: string; readonly name: string },
  depth: number,
): readonly Listed[] {
  const manifest = readJson(entries, blob(digest), MANIFEST);
  if (manifest !== null)
    return [
      {
        references: [name],
        config: blob(manifest.config.digest),
        layers: manifest.layers.map((layer) => blob(layer.digest)),
      },
    ];
  const index = depth === 0 ? null : readJson(entries, blob(digest), DESCRIPTORS);
  return (index?.manifests ?? []).flatMap((one) =>
    manifestsBelow(entries, { digest: one.digest, name }, depth - 1),
  );
}

function blob(digest: string): string {
  return `blobs/${digest.replace(":", "/")}`;
}

function readConfig(entries: Entries, path: string) {
  const config = readJson(entries, path, CONFIG);
  return { architecture: config?.architecture ?? "", layers: config?.rootfs?.diff_ids ?? [] };
}

/** Null if the file is not there, or is not what it should be. */
function readJson<Value>(entries: Entries, path: string, schema: z.ZodType<Value>): Value | null {
  const text = resolve(entries, path)?.text;
  if (text === null || text === undefined) return null;
  try {
    return schema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

/** Follows the links with which `docker save` of older engines stores a layer once. */
function resolve(entries: Entries, path: string): ArchiveEntry | null {
  let entry = entries.get(path);
  for (let links = 0; entry?.target != null && links < MAX_LINKS; links += 1)
    entry = entries.get(entry.target);
  return entry === undefined || entry.target !== null ? null : entry;
}
