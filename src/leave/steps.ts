import type { AnyStep } from "../engine/step.ts";
import { leaveFlags } from "./flags.ts";
import { leaveName, type NameToRelease } from "./name.ts";
import { type Part, PURGEABLE } from "./policy.ts";
import type { LeavingNode, Thing } from "./survey.ts";
import { type Group, leaveThings } from "./things.ts";
import type { PostgresTarget } from "../settings/master.ts";

/** What a node leaves with. */
export interface Leaving {
  readonly node: LeavingNode;
  readonly purged: ReadonlySet<Part>;
  /** Null: it holds none that is known, or it shall stay reserved. */
  readonly name: NameToRelease | null;
  /** A database elsewhere, and under which name this master stands in it; null where there is none. */
  readonly flags: { readonly target: PostgresTarget; readonly master: string } | null;
}

/** The order in which a node leaves: first what acts, then what it acted on, the record of it at the end. */
export function leaveSteps({ node, purged, name, flags }: Leaving): readonly AnyStep[] {
  const things = (group: Group) => leaveThings(node, purged, group);
  return [
    ...(name === null ? [] : [leaveName(name)]),
    things(ofKind("cron", "what cron runs", "Removes our files in /etc/cron.d.", "cron-file")),
    things(ofKind("containers", "containers", "Stops and removes our containers.", "container")),
    // The down files of others must not pass while our own services still read what those take away.
    ...(flags === null ? [] : [leaveFlags(flags.target, flags.master)]),
    things(ofKind("networks", "networks", "Removes the networks of our compose projects.", "network")),
    things(ofKind("service-image", "service image", "Removes the images that were built here.", "image")),
    ...(Object.keys(PURGEABLE) as Part[]).map((part) => things(ofPart(part))),
    things({
      id: "files",
      title: "rendered files and fula-node itself",
      touches: "Removes compose files, heartbeats and `cli/`.",
      holds: ({ kind, part }) => kind === "path" && part === null,
    }),
    things(
      ofKind("directories", "directories", "Removes our directories, once empty.", "journal", "directory"),
    ),
  ];
}

function ofKind(id: string, title: string, touches: string, ...kinds: readonly Thing["kind"][]): Group {
  return { id, title, touches, holds: ({ kind }) => kinds.includes(kind) };
}

/** The journal is a log, but goes last: it tells of all the rest. */
function ofPart(part: Part): Group {
  return {
    id: part,
    title: PURGEABLE[part],
    touches: `Where --purge ${part} is given: removes ${PURGEABLE[part]}.`,
    holds: (thing) => thing.part === part && thing.kind !== "journal",
  };
}
