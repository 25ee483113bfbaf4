import { OperatorError } from "../errors.ts";
import { diffPinsets, type PinDifference } from "../pinset/snapshot/diff.ts";
import { liveSource, type PinsetSource, snapshotSource } from "../pinset/snapshot/verify.ts";
import { openOwnCluster, readInstalledMaster } from "../join/installed-master.ts";
import { openVerified, type SnapshotFlags } from "./snapshot-files.ts";
import type { VerbExit, World } from "./world.ts";

/** What a person calls the pinset that the cluster has now. */
const LIVE = "live";
const SIGNS = { "only-left": "-", "only-right": "+", differs: "~" } as const;

/** `snapshot diff A B|live`: how two pinsets differ; `pending` where they do. Both snapshots are verified first. */
export async function snapshotDiff(
  given: readonly [string, string],
  flags: SnapshotFlags & { readonly limit: string },
  world: World,
): Promise<VerbExit> {
  if (!/^\d{1,6}$/.test(flags.limit))
    throw new OperatorError({
      exit: "usage",
      what: `--limit is ${JSON.stringify(flags.limit)}; it must be a number.`,
    });
  const workspace = world.openWorkspace();
  const open = async (one: string): Promise<PinsetSource> => {
    if (one !== LIVE) return snapshotSource(await openVerified(world, flags, one));
    return liveSource(openOwnCluster(world, await readInstalledMaster(world, flags.baseDir)), workspace);
  };
  const left = await open(given[0]);
  const right = await open(given[1]);
  const diff = await diffPinsets(left, right, { workspace, limit: Number(flags.limit) });
  await left.close();
  await right.close();
  const { onlyLeft, onlyRight, differing, same } = diff;
  const named = diff.examples.length;
  const unnamed = onlyLeft + onlyRight + differing - named;
  world.reporter.result({
    data: { verb: "snapshot diff", ...diff },
    lines: [
      `--- ${diff.left}`,
      `+++ ${diff.right}`,
      ...diff.examples.map(lineOf),
      ...(unnamed > 0 ? [`... and ${unnamed} more (--limit names more of each kind)`] : []),
      `${onlyLeft} only in ${diff.left}, ${onlyRight} only in ${diff.right}, ${differing} with other options, ${same} alike.`,
    ],
  });
  return diff.exit === "pending" ? "pending" : "ok";
}

function lineOf({ kind, cid, name, changes }: PinDifference): string {
  const more = kind === "differs" ? changes.join("; ") : name;
  return `${SIGNS[kind]} ${cid}${more === "" ? "" : `  ${more}`}`;
}
