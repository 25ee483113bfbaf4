import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { messageOf, OperatorError } from "../errors.ts";
import { fileError } from "../machine/file-errors.ts";
import { type DockerApi, type DockerCall, NoEngine } from "./docker-api.ts";
import { followProgress } from "./docker-progress.ts";
import type { Docker } from "./engine.ts";

type ByApi = Pick<
  Docker,
  "pull" | "load" | "restart" | "removeContainer" | "removeNetwork" | "removeVolume" | "removeImage"
>;

const SILENCE_MS = 300_000;
const RESTART_MS = 180_000;
const STOP_SECONDS = "60";
const LOADED = /^Loaded image/m;

/** Changes what one engine has, by its API. */
export function dockerWriter(api: DockerApi): ByApi {
  return {
    pull: (reference, report) => pull(api, reference, report),
    load: (archive, report) => load(api, archive, report),
    restart: async (container) => {
      const path = `/containers/${encodeURIComponent(container)}/restart`;
      const query = { t: STOP_SECONDS };
      const answer = await must(
        api,
        { method: "POST", path, query, idleMs: RESTART_MS },
        `container ${container}`,
      );
      answer.resume();
    },
    removeContainer: async (container) => {
      const path = `/containers/${encodeURIComponent(container)}`;
      // Without a time it is the container's own; one that does not run answers 304.
      await unlessAbsent(api, { method: "POST", path: `${path}/stop`, idleMs: RESTART_MS });
      await unlessAbsent(api, { method: "DELETE", path, query: { force: "1" }, idleMs: RESTART_MS });
    },
    removeNetwork: (name) =>
      unlessAbsent(api, { method: "DELETE", path: `/networks/${encodeURIComponent(name)}` }),
    removeVolume: (name) =>
      unlessAbsent(api, {
        method: "DELETE",
        path: `/volumes/${encodeURIComponent(name)}`,
        idleMs: SILENCE_MS,
      }),
    removeImage: (reference) =>
      unlessAbsent(api, { method: "DELETE", path: `/images/${encodeURI(reference)}`, idleMs: SILENCE_MS }),
  };
}

/** Name and tag of an image as `POST /images/create` wants them: without a tag it would pull every one. */
export function splitReference(reference: string): { readonly fromImage: string; readonly tag?: string } {
  if (reference.includes("@")) return { fromImage: reference };
  const colon = reference.lastIndexOf(":");
  if (colon > reference.lastIndexOf("/")) {
    return { fromImage: reference.slice(0, colon), tag: reference.slice(colon + 1) };
  }
  return { fromImage: reference, tag: "latest" };
}

async function pull(api: DockerApi, reference: string, report: (line: string) => void): Promise<void> {
  const what = `pull ${reference}`;
  const call = {
    method: "POST",
    path: "/images/create",
    query: { ...splitReference(reference) },
    idleMs: SILENCE_MS,
  } as const;
  try {
    await followProgress(await must(api, call, `image ${reference}`), what, report);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw new OperatorError({
      exit: "unavailable",
      what: `The image ${reference} can't be pulled.`,
      why: thrown.why ?? thrown.what,
      remedy: `Check the network and the name; or pull it by hand (docker pull ${reference}), or bring the images in a file (--images ARCHIVE). Then run again.`,
      cause: thrown,
    });
  }
  if ((await api.json({ path: `/images/${encodeURI(reference)}/json` })) !== null) return;
  throw new OperatorError({ exit: "unavailable", what: `Docker pulled ${reference}, but does not have it.` });
}

async function load(api: DockerApi, archive: string, report: (line: string) => void): Promise<void> {
  const file = await openArchive(archive);
  try {
    const body = Readable.from(bytesOf(file, archive, report), { objectMode: false });
    const query = { quiet: "1" };
    const call = { method: "POST", path: "/images/load", query, idleMs: SILENCE_MS, body } as const;
    const messages = await followProgress(await must(api, call, archive), `load ${archive}`, report);
    if (LOADED.test(messages.join("\n"))) return;
  } finally {
    await file.close();
  }
  throw new OperatorError({
    exit: "settings",
    what: `${archive} holds no image that Docker can load.`,
    remedy: "Give a file that `docker save` wrote.",
  });
}

async function openArchive(archive: string): Promise<FileHandle> {
  const unreadable = (why: string, cause?: unknown) =>
    new OperatorError({
      exit: "settings",
      what: `The archive ${archive} can't be read.`,
      why,
      remedy: "Give --images the path of a file that `docker save` wrote.",
      cause,
    });
  const file = await open(archive).catch((cause: unknown) => {
    throw unreadable(fileError("read", archive, cause).why ?? messageOf(cause), cause);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw unreadable("it is no plain file");
}

/** The archive's bytes; each tenth of them is told. */
async function* bytesOf(
  file: FileHandle,
  archive: string,
  report: (line: string) => void,
): AsyncGenerator<Buffer> {
  const { size } = await file.stat();
  let seen = 0;
  let toldTenths = 0;
  for await (const chunk of file.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
    yield chunk;
    seen += chunk.length;
    const tenths = Math.floor((seen * 10) / size);
    if (tenths > toldTenths) report(`${archive}: ${tenths * 10} % read`);
    toldTenths = tenths;
  }
}

/** Something that is not there (404) is as gone as it should be. */
async function unlessAbsent(api: DockerApi, call: DockerCall): Promise<void> {
  (await send(api, call))?.resume();
}

async function send(api: DockerApi, call: DockerCall) {
  try {
    return await api.stream(call);
  } catch (thrown) {
    if (!(thrown instanceof NoEngine)) throw thrown;
    throw new OperatorError({
      exit: "unavailable",
      what: "No Docker engine answers.",
      why: thrown.message,
      remedy: "Start it (systemctl start docker), then run again.",
      cause: thrown,
    });
  }
}

async function must(api: DockerApi, call: DockerCall, what: string) {
  const answer = await send(api, call);
  if (answer !== null) return answer;
  throw new OperatorError({ exit: "unavailable", what: `Docker does not know ${what}.` });
}
