import type { AnyStep, Change, Evidence, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { giveBackName, lookUpName, type NodesClient } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import type { HostReader } from "../host.ts";
import type { PostgresTarget } from "../settings/master.ts";
import { type Part, PURGEABLE } from "./policy.ts";
import { isGoing, judge, type LeavingNode, surveyNode, type Thing } from "./survey.ts";

/** What a node leaves with. */
export interface Leaving {
  readonly node: LeavingNode;
  readonly purged: ReadonlySet<Part>;
  /** All that goes, as the survey under the lock found it. */
  readonly going: readonly Thing[];
  /** See `releaseName`; null if the name stays reserved, or none is known. */
  readonly name: AnyStep | null;
  /** See `retractFlags`; null if there is no database elsewhere. */
  readonly flags: AnyStep | null;
}

/** What is still there; no drift: nothing. */
interface Left<C extends Change> {
  readonly drift: readonly string[];
  readonly evidence: Evidence;
  readonly changes: readonly C[];
}

type RemoveChange = Change & { readonly kind: `remove-${Thing["kind"]}`; readonly name: string };
type ReleaseChange = Change & { readonly kind: "release-name"; readonly pool: string; readonly name: string };
type RetractChange = Change & { readonly kind: "retract-flags"; readonly master: string };

/** The journal is a log, but goes last with its directory: it has the record of all the rest. */
const LAST: readonly Thing["kind"][] = ["journal", "directory"];

/** The order in which a node leaves: first what acts, then what it acted on, the record of it at the end. */
export function leaveSteps(leaving: Leaving): readonly AnyStep[] {
  const { name, flags } = leaving;
  const remove = (id: string, title: string, touches: string, holds: (thing: Thing) => boolean) =>
    removeThings(leaving, { id, title, touches }, holds);
  const ofKind = (id: string, title: string, touches: string, ...kinds: Thing["kind"][]) =>
    remove(id, title, touches, ({ kind }) => kinds.includes(kind));
  return [
    ...(name === null ? [] : [name]),
    ofKind("cron", "what cron runs", "Removes our files in /etc/cron.d.", "cron-file"),
    ofKind("containers", "containers", "Stops and removes our containers.", "container"),
    // The down files of others must not pass while our own services still read what those take away.
    ...(flags === null ? [] : [flags]),
    ofKind("networks", "networks", "Removes the networks of our compose projects.", "network"),
    ofKind("service-image", "service image", "Removes the images that were built here.", "image"),
    ...(Object.keys(PURGEABLE) as Part[]).map((part) =>
      remove(
        part,
        PURGEABLE[part],
        `Removes ${PURGEABLE[part]}, if --purge ${part} is given.`,
        (thing) => thing.part === part && thing.kind !== "journal",
      ),
    ),
    {
      ...remove(
        "files",
        "rendered files and fula-node itself",
        "Removes compose files, heartbeats and `cli/`.",
        ({ kind, part }) => kind === "path" && part === null,
      ),
      verify: (host) => expectGone(host, leaving),
    },
    ofKind("directories", "directories", "Removes our directories, once empty.", ...LAST),
  ];
}

/**
 * The node's name, given back to the pool. It comes before all else: the signature needs the identity on the
 * node's volume, and if the master can't be asked, nothing has been changed yet.
 */
export function releaseName({
  pool,
  name,
  client,
}: {
  readonly pool: string;
  readonly name: string;
  readonly client: NodesClient;
}): StepSpec<Left<ReleaseChange>, ReleaseChange> {
  const summary = `give the name ${name} back to pool ${pool}`;
  return {
    id: "node-name",
    title: "the node's name",
    touches: "Gives the node's name back to the master, signed with the cluster peer's own key.",
    ...untilNothing({
      async look(host) {
        const [identity, entry] = await Promise.all([
          readNodeIdentity(host),
          lookUpName(host.http, client.url, name, "--no-release"),
        ]);
        const isHeld = identity !== null && entry?.peerId === identity.peerId;
        return {
          drift: isHeld ? [`${name} is still this node's`] : [],
          evidence: {
            [`${name} in ${pool}`]: `held by ${isHeld ? "this node" : (entry?.peerId ?? "nobody")}`,
          },
          changes: [{ kind: "release-name", summary, pool, name }],
        };
      },
      error: () => ({
        what: `The master still has ${name} as this node's.`,
        remedy: "Run again; or use --no-release.",
      }),
    }),
    async apply(_change, host) {
      const identity = await readNodeIdentity(host);
      if (identity !== null) await giveBackName({ client, identity, clock: host.clock }, { pool, name });
    },
  };
}

/**
 * The flags that a master is recorded with in a database that others use too: while they are there, no
 * master can take back what serves them. A database that can't be asked keeps them.
 */
export function retractFlags(
  target: PostgresTarget,
  master: string,
): StepSpec<Left<RetractChange>, RetractChange> {
  const place = `${target.host}:${target.port}`;
  const summary = `take the flags of ${master} out of the database at ${place}`;
  return {
    id: "flags",
    title: "flags that the schema guards",
    touches: "Takes this master's flags out of a database elsewhere, so that down files of others may pass.",
    ...untilNothing({
      async look({ postgres, migrations }) {
        const isOpen = (await postgres.ask(target)).kind === "open";
        const flags = isOpen ? ((await migrations.readFlags(target, master)) ?? []) : [];
        return {
          drift: flags.length > 0 ? [`${place} has flags of ${master}`] : [],
          evidence: { [place]: isOpen ? flags.join(" ") || "none" : "can't be asked" },
          changes: [{ kind: "retract-flags", summary, master }],
        };
      },
      error: () => ({
        what: `The database at ${place} still has flags of ${master}.`,
        remedy: "Run again.",
      }),
    }),
    apply: (_change, host) => host.migrations.recordFlags(target, master, []),
  };
}

/** A step that removes some of what goes. Each thing is looked at anew, alone, before it is removed. */
function removeThings(
  { going }: Leaving,
  names: { readonly id: string; readonly title: string; readonly touches: string },
  holds: (thing: Thing) => boolean,
): StepSpec<Left<RemoveChange>, RemoveChange> {
  const things = going.filter(holds);
  return {
    ...names,
    ...untilNothing({
      async look(host) {
        const areHere = await Promise.all(things.map((thing) => thing.isStillOurs(host)));
        const here = things.filter((_, index) => areHere[index]);
        return {
          drift: here.map(({ name }) => `${name} is still here`),
          evidence: Object.fromEntries(here.map(({ kind, name }) => [name, `${kind} of ours`])),
          changes: here.map(({ kind, name, summary }) => ({
            kind: `remove-${kind}` as const,
            summary,
            name,
          })),
        };
      },
      error: ({ changes }) => stillHere(changes),
    }),
    async apply({ kind, name }, host) {
      const thing = things.find((one) => one.name === name && `remove-${one.kind}` === kind);
      if ((await thing?.isStillOurs(host)) === true) await thing?.remove(host);
    },
  };
}

/**
 * Looks over the whole box again while the journal still marks the base directory as ours: of what goes, also of
 * what was not planned, only the last things may be left.
 */
async function expectGone(host: HostReader, { node, purged }: Leaving): Promise<void> {
  const { things } = judge(await surveyNode(host, node), purged);
  const left = things.filter((thing) => isGoing(thing, purged) && !LAST.includes(thing.kind));
  if (left.length > 0) throw new OperatorError({ exit: "unhealthy", ...stillHere(left) });
}

function stillHere(left: readonly { readonly name: string }[]) {
  return {
    what: `Still here: ${left.map(({ name }) => name).join(", ")}.`,
    why: "Something puts it back.",
    remedy: "Find out what does, then run again.",
  };
}

/** The parts of a step that is done once its look finds nothing any more. */
function untilNothing<C extends Change>(step: {
  readonly look: (host: HostReader) => Promise<Left<C>>;
  readonly error: (left: Left<C>) => {
    readonly what: string;
    readonly why?: string;
    readonly remedy: string;
  };
}): Pick<StepSpec<Left<C>, C>, "probe" | "plan" | "verify"> {
  const { look, error } = step;
  return {
    async probe(host) {
      const seen = await look(host);
      const { drift, evidence } = seen;
      return drift.length === 0
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift, evidence };
    },
    plan: ({ seen }) => (seen.drift.length === 0 ? [] : seen.changes),
    async verify(host) {
      const left = await look(host);
      if (left.drift.length > 0) throw new OperatorError({ exit: "unhealthy", ...error(left) });
    },
  };
}
