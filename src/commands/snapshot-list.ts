import { EXIT_CODES, OperatorError } from "../errors.ts";
import { type ListedSnapshot, listSnapshots } from "../pinset/snapshot/list.ts";
import { readSnapshotKey, sha256Of, type SnapshotFlags, snapshotLayout } from "./snapshot-files.ts";
import type { VerbExit, World } from "./world.ts";

/** `snapshot list`: every snapshot, checked whole. Throws (`integrity`) after the list where one is not verified. */
export async function snapshotList(
  flags: SnapshotFlags & { readonly dir?: string },
  world: World,
): Promise<VerbExit> {
  const directory = flags.dir ?? snapshotLayout(flags).snapshotsDir;
  const files = await world.listSnapshotFiles(directory);
  const listed =
    files.length === 0
      ? []
      : await listSnapshots(files, await readSnapshotKey(world, flags), {
          sha256: sha256Of(world, flags),
          now: world.host.clock.now(),
        });
  world.reporter.result({
    data: { verb: "snapshot list", directory, snapshots: listed },
    lines:
      listed.length === 0
        ? [`There is no snapshot in ${directory}.`]
        : world.reporter.table(listed.map(rowOf)),
  });
  const refused = listed.filter(({ verdict }) => verdict !== "verified");
  if (refused.length === 0) return "ok";
  throw new OperatorError({
    exit: refused.every(({ verdict }) => verdict === "newer") ? "newer" : "integrity",
    what: `${refused.length} of ${listed.length} snapshots in ${directory} are not verified.`,
    why: "A snapshot that does not verify can't be restored, and retention never removes it: it may be evidence.",
    remedy: "Find out what happened to them; then move them away.",
    problems: refused.map(({ name, why }) => ({ subject: name, what: why ?? "" })),
  });
}

function rowOf(snapshot: ListedSnapshot): readonly string[] {
  const { name, verdict, count, order, drop, ageMs, layout } = snapshot;
  const said = verdict === "verified" ? "verified" : `refused (${EXIT_CODES[verdict]})`;
  const chain = layout === "upstream" ? "upstream's format" : (order ?? "");
  const dropped = drop === null ? "" : `, dropped from ${drop.from} to ${drop.to}`;
  return [
    name,
    said,
    ageMs === null ? "" : describeAge(ageMs),
    count === null ? "" : `${count} pins`,
    `${chain}${dropped}`,
  ];
}

function describeAge(ageMs: number): string {
  if (ageMs < 0) return "in the future";
  const minutes = Math.floor(ageMs / 60_000);
  if (minutes < 120) return `${minutes} min`;
  return minutes < 72 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} days`;
}
