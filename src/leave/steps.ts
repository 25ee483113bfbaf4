import { trusting } from "../machine/http.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { dropScratch, listScratches } from "../database/scratch-mark.ts";
import type { AnyStep, Change, Evidence, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { giveBackName, lookUpName, type NodesClient } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import type { HostReader } from "../host.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { type Part, PURGEABLE } from "./policy.ts";
import { applyPurge, isGoing, type LeavingNode, surveyNode, type Thing } from "./survey.ts";

/** What the steps of a leave need. */
export interface Leaving {
  readonly node: LeavingNode;
  readonly purged: ReadonlySet<Part>;
  /** Everything that is to be removed, as the survey found it with the locks taken. */
  readonly going: readonly Thing[];
  /** See `releaseName`; null if the name stays reserved, or no name is known. */
  readonly name: AnyStep | null;
  /** See `retractFlags`; null if no database is on another machine. */
  readonly flags: AnyStep | null;
  /** See `dropScratches`; null for a storage node. */
  readonly scratches: AnyStep | null;
}

/** What is still there. Without drift, nothing is. */
interface Remaining<C extends Change> {
  readonly drift: readonly string[];
  readonly evidence: Evidence;
  readonly changes: readonly C[];
}

type RemoveChange = Change & { readonly kind: `remove-${Thing["kind"]}`; readonly name: string };
type ReleaseChange = Change & { readonly kind: "release-name"; readonly pool: string; readonly name: string };
type ScratchChange = Change & { readonly kind: "remove-scratch"; readonly name: string };
type RetractChange = Change & { readonly kind: "retract-flags"; readonly master: string };

/** The journal is a log, but is removed last, with its directory: it records all other removals. */
const LAST: readonly Thing["kind"][] = ["journal", "directory"];

/** The steps of a leave, in order: first what runs, then its data, and at the end the journal. */
export function leaveSteps(leaving: Leaving): readonly AnyStep[] {
  const { name, flags, scratches } = leaving;
  const remove = (id: string, title: string, touches: string, selects: (thing: Thing) => boolean) =>
    removeThings(leaving, { id, title, touches }, selects);
  const ofKind = (id: string, title: string, touches: string, ...kinds: Thing["kind"][]) =>
    remove(id, title, touches, ({ kind }) => kinds.includes(kind));
  return [
    ...(name === null ? [] : [name]),
    ofKind("cron", "what cron runs", "Removes our files in /etc/cron.d.", "cron-file"),
    ...(scratches === null ? [] : [scratches]),
    ofKind("containers", "containers", "Stops and removes our containers.", "container"),
    // While our services run, they read what other masters' down files would remove: the flags must stay until then.
    ...(flags === null ? [] : [flags]),
    remove(
      "drill-volumes",
      "volumes of drills",
      "Removes the volumes that a killed drill left.",
      ({ kind, part }) => kind === "volume" && part === null,
    ),
    ofKind("networks", "networks", "Removes the networks of our compose projects.", "network"),
    ofKind("service-image", "service image", "Removes the images that were built on this machine.", "image"),
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
    ofKind("directories", "directories", "Removes our directories when they are empty.", ...LAST),
  ];
}

/** The id of the step that releases the node's name. */
export const RELEASE_ID = "node-name";

const UNREADABLE = "this node's id can't be read";

/** True if that step found that the name is nobody's, or another node's. */
export function isNameOfOther({ evidence }: Finding<unknown>): boolean {
  return !Object.values(evidence).some((one) => one.includes(UNREADABLE));
}

/**
 * Releases the node's name in the pool. It is the first step: the signature needs the identity on the node's volume,
 * and if the master does not answer, nothing has been changed yet.
 */
export function releaseName({
  pool,
  name,
  client,
  ca,
}: {
  readonly pool: string;
  readonly name: string;
  readonly client: NodesClient;
  /** The private CA of its server; null if there is none. */
  readonly ca: string | null;
}): StepSpec<Remaining<ReleaseChange>, ReleaseChange> {
  const summary = `release the name ${name} in pool ${pool}`;
  return {
    id: RELEASE_ID,
    title: "the node's name",
    touches: "Releases the node's name at the master, signed with the cluster peer's own key.",
    ...untilGone({
      async look(host) {
        const [identity, { entry }] = await Promise.all([
          readNodeIdentity(host),
          lookUpName(trusting(host.http, ca), client.url, name, "--no-release"),
        ]);
        const isHeld = identity !== null && entry?.peerId === identity.peerId;
        return {
          drift: isHeld ? [`${name} is still reserved for this node`] : [],
          evidence: {
            [`${name} in ${pool}`]: `held by ${isHeld ? "this node" : (entry?.peerId ?? "nobody")}${
              identity === null && entry !== null ? `; ${UNREADABLE}` : ""
            }`,
          },
          changes: [{ kind: "release-name", summary, pool, name }],
        };
      },
      error: () => ({
        what: `The master still has the name ${name} reserved for this node.`,
        remedy: "Run again, or give --no-release.",
      }),
    }),
    async apply(_change, host) {
      const identity = await readNodeIdentity(host);
      if (identity !== null) await giveBackName({ client, identity, clock: host.clock }, { pool, name });
    },
  };
}

/**
 * Removes this master's flags from a database that other masters use too: while they are there, no master can revert
 * the migrations that they need. A database that does not answer keeps them.
 */
export function retractFlags(
  target: PostgresTarget,
  { id, name: master }: { readonly id: string | null; readonly name: string },
): StepSpec<Remaining<RetractChange>, RetractChange> {
  const place = `${target.host}:${target.port}`;
  const summary = `remove the flags of ${master} from the database at ${place}`;
  return {
    id: "flags",
    title: "feature flags recorded in the database",
    touches:
      "Removes this master's flags from a database on another machine, so that other masters may revert migrations.",
    ...untilGone({
      async look({ postgres, migrations }) {
        const isOpen = (await postgres.ask(target)).kind === "open";
        const masters = isOpen ? ((await migrations.readMasters(target)) ?? []) : [];
        const own = masters.filter((one) =>
          id === null ? one.machine === null && one.name === master : one.id === id,
        );
        const flags = own.flatMap((one) => one.flags);
        return {
          drift: own.length > 0 ? [`${place} has flags of ${master}`] : [],
          evidence: { [place]: isOpen ? flags.join(" ") || "none" : "can't be reached" },
          changes: [{ kind: "retract-flags", summary, master }],
        };
      },
      error: () => ({
        what: `The database at ${place} still has flags of ${master}.`,
        remedy: "Run again.",
      }),
    }),
    apply: (_change, host) => host.migrations.forgetMaster(target, { id, name: master }),
  };
}

/** Drops what killed drills left in the database, while that still runs. A database that does not answer keeps it. */
export function dropScratches(
  target: PostgresTarget,
  maker: string,
): StepSpec<Remaining<ScratchChange>, ScratchChange> {
  return {
    id: "drill-databases",
    title: "databases of drills",
    touches: "Drops the scratch databases that a killed drill left.",
    ...untilGone({
      async look({ postgres }) {
        const isOpen = (await postgres.ask(target)).kind === "open";
        const query: PostgresPool["query"] = (sql, given = []) => postgres.query(target, sql, given);
        const names = isOpen ? await listScratches(query, maker) : [];
        return {
          drift: names.map((name) => `the database ${name} is still there`),
          evidence: Object.fromEntries(names.map((name) => [name, "made by a drill"])),
          changes: names.map((name) => ({
            kind: "remove-scratch",
            summary: `drop the scratch database ${name} of a drill`,
            name,
          })),
        };
      },
      error: ({ changes }) => stillHere(changes),
    }),
    apply: ({ name }, { postgres }) => postgres.session(target, ({ query }) => dropScratch(query, name)),
  };
}

/** A step that removes some of the things. It looks at each thing again before it removes it. */
function removeThings(
  { going }: Leaving,
  names: { readonly id: string; readonly title: string; readonly touches: string },
  selects: (thing: Thing) => boolean,
): StepSpec<Remaining<RemoveChange>, RemoveChange> {
  const things = going.filter(selects);
  return {
    ...names,
    ...untilGone({
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
 * Surveys the whole box again while the journal still marks the base directory as ours. Only the journal and the
 * directories may be left then. It also finds what came up after the plan was made.
 */
async function expectGone(host: HostReader, { node, purged }: Leaving): Promise<void> {
  const { things } = applyPurge(await surveyNode(host, node), purged);
  const left = things.filter((thing) => isGoing(thing, purged) && !LAST.includes(thing.kind));
  if (left.length > 0) throw new OperatorError({ exit: "unhealthy", ...stillHere(left) });
}

function stillHere(left: readonly { readonly name: string }[]) {
  return {
    what: `Still here: ${left.map(({ name }) => name).join(", ")}.`,
    why: "Something creates it again.",
    remedy: "Find out what creates it, stop that, then run again.",
  };
}

/** The parts of a step that is done when its look finds nothing any more. */
function untilGone<C extends Change>(step: {
  readonly look: (host: HostReader) => Promise<Remaining<C>>;
  readonly error: (left: Remaining<C>) => {
    readonly what: string;
    readonly why?: string;
    readonly remedy: string;
  };
}): Pick<StepSpec<Remaining<C>, C>, "probe" | "plan" | "verify"> {
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
