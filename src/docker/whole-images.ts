import type { Host, HostReader } from "../host.ts";
import type { NodeContext } from "../settings/context.ts";
import type { Image } from "./engine.ts";

/**
 * Docker registers a layer and its image before their files are on the disk, and neither checks nor replaces what it has registered: an
 * image that was being written when the power was cut may have empty programs for ever. So a file names the images that are being
 * written, from before the first byte until all are on the disk.
 */
type Mark = ReadonlyMap<string, string>;

/** Another way than a pull, in a sentence on one that failed: for joins, which have this flag. */
export const OR_FROM_ARCHIVE = ", or pass the images in a file (--images ARCHIVE)";

type Place = Pick<NodeContext, "layout">;

/** An image of this machine; null if it is not here, or was not written to its end. */
export async function wholeImage(host: HostReader, place: Place, reference: string): Promise<Image | null> {
  const [image, mark] = await Promise.all([host.docker.image(reference), readMark(host, place)]);
  return mark.has(reference) ? null : image;
}

/** The images of the list that are not on this machine, or were not written to their end. */
export async function findMissingImages(
  host: HostReader,
  place: Place,
  references: readonly string[],
): Promise<readonly string[]> {
  const found = await Promise.all(references.map((reference) => wholeImage(host, place, reference)));
  return references.filter((_, index) => found[index] === null);
}

/** Pulls an image. If the power was cut in the pull before, it is removed and pulled a second time: only so Docker drops the layers. */
export async function pullImage(
  host: Host,
  place: Place,
  reference: string,
  report: (line: string) => void,
): Promise<void> {
  await writeImages(host, place, [reference], async (cut) => {
    await host.docker.pull(reference, report);
    if (cut.length === 0) return;
    report(
      `${reference}: the power was cut while it was pulled, so it is pulled once more from the beginning`,
    );
    await host.docker.removeImage(reference);
    await host.docker.pull(reference, report);
  });
}

/**
 * Does work that writes these images and syncs them. `write` gets those of them that were being written when the machine stopped: they
 * must be removed and written again.
 */
export async function writeImages(
  host: Host,
  place: Place,
  references: readonly string[],
  write: (cut: readonly string[]) => Promise<void>,
): Promise<void> {
  const [before, start] = await Promise.all([readMark(host, place), startOf(host)]);
  // What was cut keeps the start that it was cut at: this run may be killed before the repair has ended.
  const writing = references.map((reference) => [reference, before.get(reference) ?? start] as const);
  await writeMark(host, place, new Map([...before, ...writing]));
  await write(writing.flatMap(([reference, begun]) => (begun === start ? [] : [reference])));
  await writeMark(host, place, new Map([...before].filter(([reference]) => !references.includes(reference))));
}

async function readMark(host: HostReader, { layout }: Place): Promise<Mark> {
  const text = await host.files.readText(layout.unfinishedImages);
  if (text === null) return new Map();
  return new Map(
    text.split("\n").flatMap((line) => {
      const [reference = "", start = ""] = line.split("\t");
      return reference === "" ? [] : [[reference, start] as const];
    }),
  );
}

async function writeMark({ files }: Host, { layout }: Place, mark: Mark): Promise<void> {
  if (mark.size === 0) return files.remove(layout.unfinishedImages);
  const text = [...mark].map(([reference, start]) => `${reference}\t${start}\n`).join("");
  await files.writeAtomic(layout.unfinishedImages, text, { mode: 0o644 });
}

/**
 * Which start of this machine it is: what was written since is in its memory, at least. Process 1 counts too, since a container that
 * has Docker in it has its machine's boot id (proc(5): its start is field 22, the 20th after its name).
 */
async function startOf({ files }: HostReader): Promise<string> {
  const [boot, first] = await Promise.all([
    files.readText("/proc/sys/kernel/random/boot_id"),
    files.readText("/proc/1/stat"),
  ]);
  const began = first?.slice(first.lastIndexOf(")") + 2).split(" ")[19];
  return `${boot?.trim() ?? "unknown"}/${began ?? "unknown"}`;
}
