import { monotonic } from "../status/collect.ts";
import { askDocker, askWithin, listContainers, type StatusDeps } from "../status/look-at-node.ts";
import { lookOnce } from "../status/look-once.ts";
import { lookAtMaster } from "../status/master-parts.ts";
import { DRILLS_PART } from "../status/pinset-parts.ts";
import type { Part } from "../status/part.ts";
import { countOf } from "../units.ts";
import type { Drill, DrillOutcome } from "./drill.ts";
import { orStop } from "./or-stop.ts";

/** How often parts are asked again that did not answer in time. */
const MORE_LOOKS = 2;

/** Asks every part of the master for its work, and judges the answers as `status` does. Makes nothing. */
export const stackHealthDrill: Drill<StatusDeps> = {
  id: "D1",
  title: "stack health",
  proves:
    "Docker, the writer, the database, the services, the edge, the snapshots and cron each do their work now.",
  isScheduled: true,
  deadlineMs: 30_000,

  async run(given, { master, stop, report }) {
    const look = async (): Promise<readonly Part[]> => {
      const deps = { ...given, host: lookOnce(given.host) };
      const { host } = deps;
      const ask = askWithin(monotonic);
      const docker = { askedAtMs: monotonic.nowMs(), facts: askDocker(host, ask) };
      docker.facts.catch(() => {});
      const containers = listContainers(host.docker, ask);
      const { baseDir } = master.layout;
      const looking = lookAtMaster({ baseDir, docker, containers, host }, deps, monotonic);
      return partsOfStack((await orStop(stop, looking)).parts);
    };
    return judgeStack(await lookUntilAnswered(look, report));
  },

  cleanUp: () => Promise.resolve([]),
};

/** What earlier drills found is no part of the stack, and would fail this one for ever. */
export function partsOfStack(all: readonly Part[]): readonly Part[] {
  return all.filter(({ name }) => name !== DRILLS_PART);
}

/** A busy machine answers late. What is down stays so; what did not answer is asked again, a few times. */
export async function lookUntilAnswered(
  look: () => Promise<readonly Part[]>,
  report: (line: string) => void,
): Promise<readonly Part[]> {
  let parts = await look();
  for (let again = 0; again < MORE_LOOKS; again += 1) {
    const late = parts.filter(({ state }) => state === "unknown");
    if (late.length === 0 || parts.some(({ state }) => state === "down")) break;
    report(`${countOf(late.length, "part")} did not answer in time; asking again`);
    parts = await look();
  }
  return parts;
}

/** A part that is down, or could not be asked, fails the drill; one that needs attention works, and is named. */
export function judgeStack(parts: readonly Part[]): DrillOutcome {
  const evidence = Object.fromEntries(
    parts.map(({ name, state, summary }) => [name, `${state}: ${summary}`]),
  );
  const broken = parts.filter(({ state }) => state === "down" || state === "unknown");
  const flawed = parts.filter(({ state }) => state === "attention");
  const tell = (some: readonly Part[]) => some.map(({ name, summary }) => `${name}: ${summary}`).join("; ");
  const [first] = broken.toSorted((a, b) => a.state.localeCompare(b.state));
  if (first !== undefined) {
    const count = `${broken.length} of ${countOf(parts.length, "part")}`;
    const verb = broken.length === 1 ? "does" : "do";
    const summary = `${count} ${verb} not work or could not be asked: ${tell(broken)}`;
    return { state: "failed", summary, todo: first.todo ?? "fula-node status --verbose", evidence };
  }
  const also = flawed.length === 0 ? "" : `, but see fula-node status: ${tell(flawed)}`;
  const summary = `all ${countOf(parts.length, "part")} work${also}`;
  return { state: "passed", summary, todo: null, evidence };
}
