import { createHash } from "node:crypto";
import { buffer } from "node:stream/consumers";
import tar from "tar-stream";

/** One image of an archive that a test makes. */
export interface MadeImage {
  readonly reference: string;
  readonly architecture?: string;
  /** The contents of its layers. */
  readonly layers?: readonly string[];
}

/** What is left out of an archive, or put in its place, by the name of the file in it. */
export type Spoil = (name: string, content: Buffer) => Buffer | null;

export const sha256 = (content: Buffer | string): string =>
  createHash("sha256").update(content).digest("hex");

/** A tar file with these files, in this order; a text that begins with `->` is a symbolic link. */
export async function tarOf(
  files: readonly (readonly [name: string, content: Buffer | string])[],
): Promise<Buffer> {
  const pack = tar.pack();
  for (const [name, content] of files) {
    if (typeof content === "string" && content.startsWith("->"))
      pack.entry({ name, type: "symlink", linkname: content.slice(2) });
    else pack.entry({ name }, content);
  }
  pack.finalize();
  return buffer(pack);
}

const configOf = ({ architecture = "amd64", layers = ["layer"] }: MadeImage): string =>
  JSON.stringify({
    architecture,
    os: "linux",
    rootfs: { type: "layers", diff_ids: layers.map((layer) => `sha256:${sha256(layer)}`) },
  });

/** As engines before 25 write it: a directory for each layer, and the description of each image beside them. */
export async function legacyArchive(images: readonly MadeImage[], spoil: Spoil = (_, content) => content) {
  const files: [string, Buffer | string][] = [];
  const list = images.map((image) => {
    const layers = (image.layers ?? ["layer"]).map((layer, index) => {
      const path = `${sha256(`${image.reference} ${index}`)}/layer.tar`;
      const same = files.find(([, content]) => content.toString() === layer);
      files.push([path, same === undefined ? Buffer.from(layer) : `->../${same[0]}`]);
      return path;
    });
    const config = configOf(image);
    files.push([`${sha256(config)}.json`, Buffer.from(config)]);
    return { Config: `${sha256(config)}.json`, RepoTags: [image.reference], Layers: layers };
  });
  files.push(["manifest.json", Buffer.from(JSON.stringify(list))]);
  return tarOf(spoilt(files, spoil));
}

/** As engines since 25 write it: an OCI layout with Docker's own list. `lists` chooses which of the two it has. */
export async function ociArchive(
  images: readonly MadeImage[],
  spoil: Spoil = (_, content) => content,
  lists: readonly string[] = ["index.json", "manifest.json"],
) {
  const blobs = new Map<string, Buffer>();
  const put = (content: string): string => {
    blobs.set(`blobs/sha256/${sha256(content)}`, Buffer.from(content));
    return sha256(content);
  };
  const made = images.map((image) => {
    const config = put(configOf(image));
    const layers = (image.layers ?? ["layer"]).map(put);
    const manifest = put(
      JSON.stringify({
        schemaVersion: 2,
        config: { digest: `sha256:${config}` },
        layers: layers.map((layer) => ({ digest: `sha256:${layer}` })),
      }),
    );
    // An index of platforms, of which one is here.
    const platforms = put(
      JSON.stringify({
        manifests: [{ digest: `sha256:${manifest}` }, { digest: `sha256:${sha256("absent")}` }],
      }),
    );
    return { image, config, layers, platforms };
  });
  const index = {
    manifests: made.map(({ image, platforms }) => ({
      digest: `sha256:${platforms}`,
      annotations: { "io.containerd.image.name": `docker.io/library/${image.reference}` },
    })),
  };
  const list = made.map(({ image, config, layers }) => ({
    Config: `blobs/sha256/${config}`,
    RepoTags: [image.reference],
    Layers: layers.map((layer) => `blobs/sha256/${layer}`),
  }));
  const texts = [
    ["index.json", JSON.stringify(index)],
    ["manifest.json", JSON.stringify(list)],
  ] as const;
  const files = [
    ...blobs,
    ...texts
      .filter(([name]) => lists.includes(name))
      .map(([name, text]) => [name, Buffer.from(text)] as const),
    ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')] as const,
  ];
  return tarOf(spoilt(files, spoil));
}

function spoilt(files: readonly (readonly [string, Buffer | string])[], spoil: Spoil) {
  return files.flatMap(([name, content]) => {
    const left = typeof content === "string" ? content : spoil(name, content);
    return left === null ? [] : [[name, left] as const];
  });
}
