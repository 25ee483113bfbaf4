import type { BoxSnapshot } from "./box-snapshot.ts";

/** What is new on a box, what is missing and what is different, compared with an earlier moment. */
export interface BoxDifference {
  readonly more: readonly string[];
  readonly less: readonly string[];
  readonly changed: readonly string[];
}

/**
 * Compares two moments: files by everything that is known about them (directories without their times), and the
 * engine's objects by name and id. Of paths deeper than `/opt/DIRECTORY/ENTRY`, only that entry is reported.
 */
export function difference(before: BoxSnapshot, after: BoxSnapshot): BoxDifference {
  const [old, now] = [flat(before), flat(after)];
  const names = (some: readonly string[]) => [...new Set(some.map(shortened))].toSorted();
  return {
    more: names([...now.keys()].filter((key) => !old.has(key))),
    less: names([...old.keys()].filter((key) => !now.has(key))),
    changed: names([...now.keys()].filter((key) => old.has(key) && old.get(key) !== now.get(key))),
  };
}

/** The result if nothing differs. */
export const NO_DIFFERENCE: BoxDifference = { more: [], less: [], changed: [] };

function flat({ files, docker }: BoxSnapshot): ReadonlyMap<string, string> {
  const { containers = {}, volumes = [], networks = {}, images = {} } = docker ?? {};
  return new Map([
    ...Object.entries(files).map(([path, stat]) => [path, withoutTime(stat)] as const),
    ...Object.entries(containers).map(([name, state]) => [`container ${name}`, state] as const),
    ...volumes.map((name) => [`volume ${name}`, ""] as const),
    ...Object.entries(networks).map(([name, id]) => [`network ${name}`, id] as const),
    ...Object.entries(images).map(([name, id]) => [`image ${name}`, id] as const),
  ]);
}

/** A directory's time only shows that entries were added or removed, so it is left out. */
function withoutTime(stat: string): string {
  const [kind, mode, owner] = stat.split(" ");
  return kind === "d" ? `${kind} ${mode} ${owner}` : stat;
}

function shortened(name: string): string {
  return name.startsWith("/") ? name.split("/").slice(0, 4).join("/") : name;
}
