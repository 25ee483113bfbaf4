import { isOurCompose } from "../docker/compose-render.ts";
import type { HostReader } from "../host.ts";
import { findEntry, parseEnvFile } from "../settings/env-file.ts";
import { TAKEN_OVER } from "../settings/master-layout.ts";
import { findWriterMarks } from "../steps/master/writer-answer.ts";
import { mountPointsOf } from "./mount-points.ts";
import { type Fate, fateOf, type Fates, type Part, writerFates } from "./policy.ts";
import { wasEmptiedByLeave } from "./record.ts";
import type { Found, LeavingNode, Thing } from "./survey.ts";

/** An entry of a directory of ours; `told` where it stays although it looks like ours. */
interface Judged {
  readonly path: string;
  readonly fate: Fate | null;
  readonly isMount: boolean;
  /** What it would be if it were no link. */
  readonly looksLike: Fate | null;
  readonly told: string | null;
}

const NOTHING: Found = { things: [], others: [] };

/** What a writer made here has: only what lies beside marks of ours, as an adopted one may live at the same place. */
export async function surveyWriter(
  host: HostReader,
  { writerDir, layout }: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<Found> {
  const names = writerDir === null ? null : await host.files.list(writerDir);
  if (writerDir === null || names === null) return NOTHING;
  const composeText = await textOf(host, `${writerDir}/docker-compose.yml`);
  const marks = await findWriterMarks(host, writerDir);
  const isMarked = marks.length > 0 || isOurCompose(composeText);
  if (!isMarked && names.length > 0) return { things: [], others: [writerDir] };
  if (!isMarked && !wasEmptiedByLeave(await textOf(host, layout.journal), writerDir)) return NOTHING;
  const fates = writerFates(names.includes(TAKEN_OVER));
  return surveyDirectory(host, { directory: writerDir, names, fates, purged, journal: null });
}

/** What the base directory has of the node; an empty one may be all that a killed leave has left. */
export async function surveyBase(
  host: HostReader,
  { layout, fates }: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<Found> {
  const { baseDir, journal } = layout;
  const names = await host.files.list(baseDir);
  if (names === null) return NOTHING;
  if (names.length > 0 && !(await isOurBase(host, layout))) return { things: [], others: [baseDir] };
  return surveyDirectory(host, { directory: baseDir, names, fates, purged, journal });
}

/** Upstream's installer uses the same directory, and the same `.env`: one of our marks tells. */
async function isOurBase(host: HostReader, layout: LeavingNode["layout"]): Promise<boolean> {
  if ((await host.files.stat(layout.journal)) !== null) return true;
  if ((await host.files.readLink(layout.cliCurrent)) !== null) return true;
  if (isOurCompose(await textOf(host, layout.composeFile))) return true;
  const env = parseEnvFile(await textOf(host, layout.envFile));
  return env.ok && findEntry(env, "FULA_NODE_VERSION") !== undefined;
}

async function surveyDirectory(
  host: HostReader,
  at: {
    readonly directory: string;
    readonly names: readonly string[];
    readonly fates: Fates;
    readonly purged: ReadonlySet<Part>;
    readonly journal: string | null;
  },
): Promise<Found> {
  const { directory, names, fates, purged, journal } = at;
  const mounts = mountPointsOf(await textOf(host, "/proc/self/mountinfo"));
  const target = await host.files.readLink(directory);
  const judged = await Promise.all(
    names.map((name) => judge(host, { path: `${directory}/${name}`, fate: fateOf(name, fates), mounts })),
  );
  const hasData = judged.some(
    ({ looksLike, path }) => looksLike === "data" || path.endsWith(`/${TAKEN_OVER}`),
  );
  const goes = (part: Part | null) => part === null || purged.has(part);
  const marksLast = judged.toSorted((a, b) => Number(a.fate === "mark") - Number(b.fate === "mark"));
  const things = marksLast.flatMap(({ path, fate }): Thing[] => {
    if (fate === null) return [];
    const kind = path === journal ? "journal" : "path";
    return [{ kind, name: path, part: partOf(fate, hasData) }];
  });
  const others = judged.flatMap(({ path, fate, isMount, told }) => {
    if (fate === null) return [told ?? path];
    return isMount && goes(partOf(fate, hasData)) ? [mountWords(path)] : [];
  });
  // The journal of a leave lies in its base directory, which so stays as long as logs do.
  const isEmptied =
    others.length === 0 && things.every(({ part }) => goes(part)) && (journal === null || purged.has("logs"));
  if (target !== null)
    return { things, others: names.length === 0 ? [] : [...others, linkWords(directory, target)] };
  if (!isEmptied) return { things, others };
  if (mounts.has(directory)) return { things, others: [mountWords(directory)] };
  return { things: [...things, { kind: "directory", name: directory, part: null }], others };
}

async function judge(
  host: HostReader,
  entry: { readonly path: string; readonly fate: Fate | null; readonly mounts: ReadonlySet<string> },
): Promise<Judged> {
  const { path, fate, mounts } = entry;
  const isMount = mounts.has(path);
  const stays = { path, fate: null, isMount, looksLike: null, told: null };
  if (fate === null) return stays;
  const target = await host.files.readLink(path);
  if (target !== null) return { ...stays, looksLike: fate, told: linkWords(path, target) };
  if (fate === "marked" && !isOurCompose(await textOf(host, path))) return stays;
  if (isMount && (await host.files.stat(path))?.kind === "directory") {
    const isEmpty = (await host.files.list(path))?.length === 0;
    if (isEmpty) return { ...stays, told: mountWords(path) };
  }
  return { path, fate, isMount, looksLike: fate, told: null };
}

function linkWords(path: string, target: string): string {
  return `${path} is a link to ${target}: remove what it points at by hand`;
}

function mountWords(path: string): string {
  return `${path}, the directory alone: a file system is mounted there`;
}

function partOf(fate: Fate, hasData: boolean): Part | null {
  if (fate === "goes" || fate === "marked") return null;
  if (fate === "mark") return hasData ? "data" : null;
  return fate;
}

/** Blank where there is no such file. */
async function textOf(host: HostReader, path: string): Promise<string> {
  return (await host.files.readText(path)) ?? "";
}
