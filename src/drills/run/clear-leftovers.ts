import { DRILL_DIRECTORY, DRILL_LABEL } from "../../settings/layout.ts";
import { createThrowaway, type Throwaway } from "../../dumps/throwaway.ts";
import type { HostReader } from "../../host.ts";
import { judgeError, within } from "../../status/collect.ts";
import { LATE } from "../../status/part.ts";
import type { DrillContext } from "../drill.ts";
import { type ContentDeps, removeContents } from "../drill-content.ts";
import { orStop } from "../or-stop.ts";
import { dropScratches, type ScratchDeps } from "../scratch/scratch-database.ts";

type Deps = ContentDeps &
  Pick<ScratchDeps, "hash" | "hostname"> & {
    readonly host: ScratchDeps["host"] & { readonly docker: HostReader["docker"] };
    readonly environment: Readonly<Record<string, string | undefined>>;
  };

/** Something that a killed drill leaves, and the drills that make it. */
interface Trace {
  readonly makers: readonly string[];
  readonly what: string;
  /** Looks for it at little cost, and removes what is there. Returns a line for each thing. */
  remove(
    deps: Deps,
    context: Pick<DrillContext, "master" | "report">,
    throwaway: Marked,
  ): Promise<readonly string[]>;
}

type Marked = Pick<Throwaway, "removeMarked">;

export const TRACES: readonly Trace[] = [
  {
    makers: ["D2", "D3", "D4", "D5", "D8", "D10"],
    what: "scratch databases",
    remove: (deps, { master }) => dropScratches(deps, { master }),
  },
  {
    makers: ["D6", "D7"],
    what: "pins, blocks and directories",
    // The directory is made first and goes last. To read a pinset without need takes a minute for a million pins.
    async remove(deps, context) {
      const names = (await deps.host.files.list(context.master.layout.baseDir)) ?? [];
      return names.some((name) => DRILL_DIRECTORY.test(name)) ? removeContents(deps, context) : [];
    },
  },
  {
    makers: ["D9"],
    what: "containers and volumes",
    async remove({ host: { docker } }, _context, throwaway) {
      const [containers, volumes] = await Promise.all([docker.containers(), docker.listVolumes()]);
      const isLeft = [...containers, ...volumes].some(({ labels }) => DRILL_LABEL in labels);
      return isLeft ? throwaway.removeMarked(DRILL_LABEL) : [];
    },
  },
];

const LIMIT_MS = 60_000;

/**
 * Removes what killed drills have left that do not run now: those that run clean up themselves. What can't be asked is a
 * warning only, because this run does not need it. `stop` ends it: it is safe to repeat.
 */
export async function clearLeftovers(
  running: readonly string[],
  { deps, master, stop }: Pick<DrillContext, "master" | "stop"> & { readonly deps: Deps },
  throwaway: Marked = createThrowaway(deps.environment),
): Promise<{ readonly removed: readonly string[]; readonly warnings: readonly string[] }> {
  const removed: string[] = [];
  const warnings: string[] = [];
  for (const trace of TRACES) {
    const { makers, what } = trace;
    if (stop.aborted) break;
    if (makers.some((id) => running.includes(id))) continue;
    const warn = (why: string) =>
      warnings.push(`Not looked for ${what} that an earlier drill may have left: ${why}`);
    try {
      const lines = await orStop(
        stop,
        within(LIMIT_MS, () =>
          trace.remove(deps, { master, report: (line) => void warnings.push(line) }, throwaway),
        ),
      );
      if (lines === LATE) warn("no answer in time.");
      else removed.push(...lines);
    } catch (thrown) {
      if (!stop.aborted) warn(judgeError(thrown).summary);
    }
  }
  return { removed, warnings };
}
