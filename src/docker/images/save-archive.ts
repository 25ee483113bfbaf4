import type Dockerode from "dockerode";
import { rmSync } from "node:fs";
import { open } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { OperatorError } from "../../errors.ts";
import { fileError } from "../../machine/file-errors.ts";
import { replacing } from "../../machine/file-writer.ts";
import { reasonOf } from "../engine-client.ts";
import type { Docker } from "../engine.ts";
import { findFault } from "./judge-archive.ts";
import { archiveReader } from "./read-archive.ts";

type Report = (line: string) => void;

/** dockerode has this call, and its types lack it. */
type Exporting = Dockerode & {
  getImages(options: { readonly names: readonly string[] }): Promise<IncomingMessage>;
};

const MODE = 0o644;
const BYTES_PER_MB = 1_000_000;
const REPORTED_BYTES = 50 * BYTES_PER_MB;

/** Writes the images to a file next to its final name, syncs it, reads it back, and renames it. */
export async function saveArchive(
  docker: Dockerode,
  wanted: Parameters<Docker["save"]>[0],
  { archive, report }: { readonly archive: string; readonly report: Report },
): Promise<void> {
  try {
    await replacing(archive, async (temporary) => {
      // A signal ends the process in the middle: half of an archive is large.
      const remove = () => rmSync(temporary, { force: true });
      process.once("exit", remove);
      try {
        await write(docker, wanted.references, { temporary, archive, report });
        report(`${archive}: reading it back`);
        await verify(temporary, archive, wanted);
      } catch (thrown) {
        remove();
        throw thrown;
      } finally {
        process.off("exit", remove);
      }
    });
  } catch (thrown) {
    throw fileError("write", archive, thrown);
  }
}

async function write(
  docker: Dockerode,
  references: readonly string[],
  { temporary, archive, report }: { temporary: string; archive: string; report: Report },
): Promise<void> {
  const answer = await (docker as Exporting).getImages({ names: references });
  const file = await open(temporary, "wx", MODE);
  try {
    await file.chmod(MODE);
    let seen = 0;
    let reported = 0;
    for await (const chunk of chunksOf(answer)) {
      await file.writeFile(chunk);
      seen += chunk.length;
      if (seen - reported < REPORTED_BYTES) continue;
      reported = seen;
      report(`${archive}: ${Math.round(seen / BYTES_PER_MB)} MB written`);
    }
    await file.sync();
  } finally {
    answer.destroy();
    await file.close();
  }
}

/** What the engine sends. An error of its connection is not one of the file. */
async function* chunksOf(answer: IncomingMessage): AsyncGenerator<Buffer> {
  const chunks = (answer as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  for (;;) {
    const next = await chunks.next().catch((thrown: unknown) => {
      throw broken(reasonOf(thrown, answer), thrown);
    });
    if (next.done === true) return;
    yield next.value;
  }
}

/** The engine copies what it has: a layer that a power cut spoiled, too. */
async function verify(
  temporary: string,
  archive: string,
  wanted: Parameters<Docker["save"]>[0],
): Promise<void> {
  const spoiled = (why: string, cause?: unknown) =>
    new OperatorError({
      exit: "integrity",
      what: `${archive} was not made: what Docker wrote is not what the images should be.`,
      why,
      remedy: `Remove the images (docker image rm ${wanted.references.join(" ")}), then run again: they are pulled again.`,
      cause,
    });
  const images = await archiveReader()(temporary).catch((thrown: unknown) => {
    if (!(thrown instanceof OperatorError) || thrown.exit === "unavailable") throw thrown;
    throw spoiled((thrown.why ?? thrown.what).replaceAll(temporary, archive), thrown);
  });
  const fault = findFault(images, wanted);
  if (fault === null) return;
  const names = fault.references.join(", ");
  const whys = {
    missing: `It does not contain ${names}.`,
    architecture: `${names}: not for ${wanted.architecture}.`,
    parts: `Parts of ${names} are missing.`,
  };
  throw spoiled(whys[fault.kind]);
}

function broken(why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: "Docker could not save the images.",
    why,
    remedy: "Look at `journalctl -u docker -n 50`, and at the free space of Docker's disk, then run again.",
    cause,
  });
}
