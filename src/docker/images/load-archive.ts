import type Dockerode from "dockerode";
import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { messageOf, OperatorError } from "../../errors.ts";
import { fileError } from "../../machine/file-errors.ts";
import { followProgress } from "./engine-progress.ts";

type Report = (line: string) => void;

const LOADED = /^Loaded image/m;

/** Loads the images of an archive. Throws an OperatorError if the engine refuses it, or finds no image in it. */
export async function loadArchive(docker: Dockerode, archive: string, report: Report): Promise<void> {
  const file = await openArchive(archive);
  const body = Readable.from(bytesOf(file, archive, report), { objectMode: false });
  try {
    const answer = await docker.loadImage(body, { quiet: true });
    const messages = await followProgress(answer, `load ${archive}`, report);
    if (LOADED.test(messages.join("\n"))) return;
  } finally {
    body.destroy();
    await file.close();
  }
  throw new OperatorError({
    exit: "settings",
    what: `${archive} contains no image that Docker can load.`,
    remedy: "Pass a file that `docker save` wrote.",
  });
}

async function openArchive(archive: string): Promise<FileHandle> {
  const unreadable = (why: string, cause?: unknown) =>
    new OperatorError({
      exit: "settings",
      what: `The archive ${archive} cannot be read.`,
      why,
      remedy: "Pass --images the path of a file that `docker save` wrote.",
      cause,
    });
  const file = await open(archive).catch((cause: unknown) => {
    throw unreadable(fileError("read", archive, cause).why ?? messageOf(cause), cause);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw unreadable("it is not a regular file");
}

/** The archive's bytes. Reports each tenth of them. */
async function* bytesOf(
  file: FileHandle,
  archive: string,
  report: (line: string) => void,
): AsyncGenerator<Buffer> {
  const { size } = await file.stat();
  let seen = 0;
  let reportedTenths = 0;
  for await (const chunk of file.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
    yield chunk;
    seen += chunk.length;
    const tenths = Math.floor((seen * 10) / size);
    if (tenths > reportedTenths) report(`${archive}: ${tenths * 10} % read`);
    reportedTenths = tenths;
  }
}
