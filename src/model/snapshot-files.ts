/** Which files make up a snapshot, by their base names. */
export interface SnapshotParts {
  /** `ours`: signed manifest and compressed body; `upstream`: one JSON file, signed itself (functionland/fula-ota). */
  readonly layout: "ours" | "upstream";
  readonly name: string;
  readonly body: string;
  readonly manifest: string | null;
  /** Names that the signature may have; the first that exists counts. */
  readonly signatures: readonly string[];
}

/** The parts that a file's base name belongs to; a bare name is one of ours. */
export function partsOf(fileName: string): SnapshotParts {
  const ours = /^(.+?)(\.ndjson\.gz|\.manifest\.json|\.manifest\.sig)$/.exec(fileName)?.[1];
  if (ours !== undefined) return ourParts(ours);
  const upstream = /^(.+?)(\.json|\.json\.sig|\.sig)$/.exec(fileName)?.[1];
  if (upstream !== undefined) return upstreamParts(upstream);
  return ourParts(fileName);
}

/** The snapshots that lie in a directory, by its file names, ours and upstream's. */
export function findSnapshots(fileNames: readonly string[]): readonly SnapshotParts[] {
  const found = new Map<string, SnapshotParts>();
  for (const file of fileNames) {
    if (!/^pinset-[^/]*\.(ndjson\.gz|json|sig)$/.test(file)) continue;
    const parts = partsOf(file);
    found.set(`${parts.layout} ${parts.name}`, parts);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The files of one snapshot, by what they hold. */
export function snapshotFiles(name: string): {
  readonly body: string;
  readonly manifest: string;
  readonly signature: string;
} {
  return { body: `${name}.ndjson.gz`, manifest: `${name}.manifest.json`, signature: `${name}.manifest.sig` };
}

function ourParts(name: string): SnapshotParts {
  const { body, manifest, signature } = snapshotFiles(name);
  return { layout: "ours", name, body, manifest, signatures: [signature] };
}

function upstreamParts(name: string): SnapshotParts {
  return {
    layout: "upstream",
    name,
    body: `${name}.json`,
    manifest: null,
    signatures: [`${name}.json.sig`, `${name}.sig`],
  };
}
