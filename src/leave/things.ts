import type { Change, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import type { Part } from "./policy.ts";
import { type LeavingNode, surveyNode, type Thing } from "./survey.ts";

/** Some of a node's things, to be removed. */
export interface Group {
  readonly id: string;
  readonly title: string;
  readonly touches: string;
  readonly holds: (thing: Thing) => boolean;
}

type RemoveChange = Change & { readonly kind: `remove-${Thing["kind"]}`; readonly name: string };

/**
 * A step that takes some of a node's things away. What stays by default counts as wished, and what is not
 * ours is never among them: both are looked at anew before each removal.
 */
export function leaveThings(
  node: LeavingNode,
  purged: ReadonlySet<Part>,
  { id, title, touches, holds }: Group,
): StepSpec<readonly Thing[], RemoveChange> {
  async function lookFor(host: HostReader): Promise<readonly Thing[]> {
    const { things } = await surveyNode(host, node, purged);
    return things.filter(({ part }) => part === null || purged.has(part));
  }

  return {
    id,
    title,
    touches,

    async probe(host) {
      const seen = (await lookFor(host)).filter(holds);
      const evidence = Object.fromEntries(seen.map(({ kind, name }) => [name, `${kind} of ours`]));
      if (seen.length === 0) return { state: "ours", seen, evidence };
      return { state: "drifted", seen, drift: seen.map(({ name }) => `${name} is still here`), evidence };
    },

    plan: ({ seen }) =>
      seen.map(({ kind, name }) => ({ kind: `remove-${kind}`, summary: SUMMARIES[kind](name), name })),

    async apply({ kind, name }, host) {
      const thing = (await lookFor(host)).find((one) => one.name === name && `remove-${one.kind}` === kind);
      if (thing !== undefined) await remove(host, thing);
    },

    async verify(host) {
      const left = (await lookFor(host)).filter(holds);
      if (left.length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `Still here: ${left.map(({ name }) => name).join(", ")}.`,
        why: "Something puts it back.",
        remedy: "Find out what does, then run again.",
      });
    },
  };
}

const SUMMARIES: Readonly<Record<Thing["kind"], (name: string) => string>> = {
  "cron-file": (name) => `remove ${name}`,
  container: (name) => `stop and remove the container ${name}`,
  network: (name) => `remove the network ${name}`,
  image: (name) => `remove the image ${name.replace(/^(sha256:[0-9a-f]{12})[0-9a-f]+$/, "$1")}`,
  volume: (name) => `remove the volume ${name} and all that is on it`,
  path: (name) => `remove ${name}`,
  journal: (name) => `remove ${name}`,
  directory: (name) => `remove the empty directory ${name}`,
};

async function remove({ files, docker }: Host, { kind, name }: Thing): Promise<void> {
  switch (kind) {
    case "container":
      return docker.removeContainer(name);
    case "network":
      return docker.removeNetwork(name);
    case "image":
      return docker.removeImage(name);
    case "volume":
      return docker.removeVolume(name);
    case "directory":
      return files.removeEmptyDirectory(name);
    case "cron-file":
    case "path":
    case "journal":
      return files.remove(name);
  }
}
