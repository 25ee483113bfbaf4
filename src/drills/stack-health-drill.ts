import { monotonic } from "../status/collect.ts";
import { askDocker, askWithin, listContainers, type StatusDeps } from "../status/look-at-node.ts";
import { lookOnce } from "../status/look-once.ts";
import { lookAtMaster } from "../status/master-parts.ts";
import { DRILLS_PART } from "../status/pinset-parts.ts";
import type { Part } from "../status/part.ts";
import { countOf } from "../units.ts";
import type { Drill, DrillOutcome } from "./drill.ts";
import { orStop } from "./or-stop.ts";

/** Asks every part of the master for its work, and judges the answers as `status` does. Makes nothing. */
export const stackHealthDrill: Drill<StatusDeps> = {
  id: "D1",
  title: "stack health",
  proves:
    "Docker, the writer, the database, the services, the edge, the snapshots and cron each do their work now.",
  isScheduled: true,
  deadlineMs: 30_000,

  async run(given, { master, stop }) {
    const deps = { ...given, host: lookOnce(given.host) };
    const { host } = deps;
    const ask = askWithin(monotonic);
    const docker = { askedAtMs: monotonic.nowMs(), facts: askDocker(host, ask) };
    docker.facts.catch(() => {});
    const containers = listContainers(host.docker, ask);
    const { baseDir } = master.layout;
    const look = lookAtMaster({ baseDir, docker, containers, host }, deps, monotonic);
    const { parts } = await orStop(stop, look);
    return judgeStack(parts);
  },

  cleanUp: () => Promise.resolve([]),
};

/** A part that is down, or could not be asked, fails the drill; one that needs attention works, and is named. */
export function judgeStack(all: readonly Part[]): DrillOutcome {
  // What earlier drills found is no part of the stack, and would fail this one for ever.
  const parts = all.filter(({ name }) => name !== DRILLS_PART);
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
