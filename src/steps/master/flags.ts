import type { Change, Evidence, Finding, StepSpec } from "../../engine/step.ts";
import { reasonOf } from "../../database/connection-fault.ts";
import { readWriterPeer } from "../../cluster/writer.ts";
import {
  type MasterPeer,
  type MasterRecord,
  type MasterRow,
  type RemovedMaster,
  removedMaster,
  SILENT_MASTER_MS,
} from "../../database/masters.ts";
import { OperatorError } from "../../errors.ts";
import { readWriterTrust } from "../../federation/writer-trust.ts";
import type { HostReader } from "../../host.ts";
import { dialable, parseTcpMultiaddr } from "../../settings/address.ts";
import { isDatabaseElsewhere, postgresTarget } from "../../settings/postgres-target.ts";
import { type MasterContext, readValues, requireTarget, type Values } from "../../settings/context.ts";

interface Seen {
  /** What this master is. `id` is empty before `.env` has one. */
  readonly wanted: MasterRecord;
  /** Its row; null if there is none, or no database or table yet. */
  readonly recorded: MasterRow | null;
}

type FlagsChange = Change & {
  readonly kind: "record-flags";
  readonly master: string;
  readonly flags: readonly string[];
};

/** Flags that need database objects. A down migration must not remove those while any master uses the flag. */
const GUARDED = ["BILLING_IDEMPOTENCY", "FULA_BUCKET_ROOT_CAS"];

/** systemd's: unique to an installation, and the same on a clone of it (machine-id(5)). */
const MACHINE_ID = "/etc/machine-id";

/**
 * Records in the database that this master exists, which guarded flags it uses (the down migrations read them), and which
 * ipfs-cluster it has. Refuses a master that was removed, and an identity that another machine uses.
 */
export function flags(context: MasterContext): StepSpec<Seen, FlagsChange> {
  const { settings, hash, version } = context;
  const name = settings.get("CLUSTER_PEERNAME")?.value ?? "";

  /** False if the database is ours and has no volume: a join was interrupted before it was created. */
  async function hasData(host: HostReader): Promise<boolean> {
    const isElsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
    return isElsewhere || (await host.docker.volume(context.postgresVolume)) !== null;
  }

  async function readSeen(host: HostReader): Promise<
    Seen & {
      readonly place: string;
      readonly unknown?: string | null;
      /** True if other machines can use the database. */
      readonly isShared: boolean;
      readonly others?: readonly MasterRow[];
      readonly removed?: readonly RemovedMaster[];
    }
  > {
    const [values, machineId] = await Promise.all([
      readValues(host, context),
      host.files.readText(MACHINE_ID),
    ]);
    const peer = await readOwnPeer(host, values);
    const id = values("MASTER_ID") ?? "";
    const wanted = {
      pool: values("CLUSTERNAME") ?? "",
      id,
      name,
      flags: GUARDED.filter((key) => values(key) === "true"),
      machine: hash(`fula-node machine\n${machineId?.trim() ?? "unknown"}`).slice(0, 32),
      peer,
    };
    const isShared = isDatabaseElsewhere(values);
    const target = postgresTarget(values);
    const answer = target === null ? null : await host.postgres.ask(target);
    if (target === null || answer === null)
      return { wanted, recorded: null, isShared, place: "no password yet" };
    if (answer.kind !== "open") {
      // Whether it is recorded is known once the database answers. Before it was created, it is not.
      const unknown =
        id === "" || !(await hasData(host))
          ? null
          : `the table of masters can't be read now: ${reasonOf(answer)}`;
      return { wanted, recorded: null, isShared, place: answer.kind, unknown };
    }
    const masters = await host.migrations.readMasters(target);
    const recorded = masters?.find((one) => one.id === id && one.pool === wanted.pool) ?? null;
    return {
      wanted,
      recorded,
      isShared,
      place: masters === null ? "no table of masters yet" : "not recorded",
      others: (masters ?? []).filter((one) => one.id !== id && one.pool === wanted.pool),
      removed: masters === null ? [] : await host.migrations.readRemovedMasters(target),
    };
  }

  return {
    id: "flags",
    title: "flags that protect the schema",
    touches:
      "Records in the database this master, by its own identity, with its cluster peer and the peers that it trusts, and which flags it uses, so that no down migration removes what they need.",

    async probe(host): Promise<Finding<Seen>> {
      const read = await readSeen(host);
      const { place, unknown = null, wanted, recorded } = read;
      const seen = { wanted, recorded };
      const evidence: Evidence = {
        master: name,
        identity: wanted.id === "" ? "not generated yet" : wanted.id,
        wanted: wanted.flags.join(" ") || "none",
        recorded: recorded === null ? place : recorded.flags.join(" ") || "none",
        peer: wanted.peer?.peerId ?? "not known: ipfs-cluster does not answer",
      };
      const refusal = refuse(read);
      if (refusal !== null) return { state: "foreign", evidence, ...refusal };
      if (unknown !== null) return { state: "drifted", seen, drift: [unknown], evidence };
      if (recorded === null) return { state: "absent", seen, evidence };
      const drift = compare(wanted, recorded, version);
      return drift.length === 0
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift, evidence };
    },

    plan({ state, seen: { wanted } }) {
      if (state === "ours") return [];
      const summary = `record the flags of ${name}: ${wanted.flags.join(", ") || "none"}`;
      return [{ kind: "record-flags", summary, master: name, flags: wanted.flags }];
    },

    async apply(_change, host) {
      const target = requireTarget(await readValues(host, context), context);
      const { wanted } = await readSeen(host);
      if (wanted.id === "") {
        throw new OperatorError({
          exit: "interrupted",
          what: `${context.layout.envFile} has no MASTER_ID.`,
          remedy: "Run again: it generates one.",
        });
      }
      await host.migrations.recordMaster(target, wanted);
    },

    async verify(host) {
      const { wanted, recorded } = await readSeen(host);
      if (recorded !== null && compare(wanted, recorded, version).length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: "This master and its flags are not recorded in the database.",
        remedy: "Run again. If it stays so, another machine uses the same MASTER_ID.",
      });
    },
  };
}

/** This master's ipfs-cluster; null if it does not answer. */
async function readOwnPeer(host: HostReader, values: Values): Promise<MasterPeer | null> {
  const [peer, { trusts }, bridges] = await Promise.all([
    readWriterPeer(host, values),
    readWriterTrust(host),
    host.docker.bridgeSubnets(),
  ]);
  if (peer === null) return null;
  return { peerId: peer.id, addresses: dialable(peer.addresses, bridges).addresses, trusts };
}

/** Why this machine must not record itself: it was removed, or another one uses its identity. */
function refuse({
  wanted,
  recorded,
  others = [],
  removed = [],
  isShared,
}: Seen & {
  readonly others?: readonly MasterRow[];
  readonly removed?: readonly RemovedMaster[];
  readonly isShared: boolean;
}): { readonly why: string; readonly whyRefused?: string; readonly remedy: string } | null {
  const { id, peer, pool, machine } = wanted;
  const gone = removed.find(
    (one) => one.id === id || (one.pool === pool && peer !== null && one.peerId === peer.peerId),
  );
  if (gone !== undefined) {
    const { what, why: whyRefused = "", remedy = "" } = removedMaster(gone);
    const heir = others.find((one) => one.name === gone.name || one.peer?.peerId === gone.peerId);
    if (heir === undefined) return { why: what, whyRefused, remedy };
    return {
      why: `${what} Another master has taken its place: ${heir.name} (${heir.id}).`,
      whyRefused: "Nobody could distinguish two masters with one name or one cluster peer.",
      remedy:
        "This machine can't come back under its old identity. To make it another master: see docs/lost-master.md#another-has-its-place.",
    };
  }
  const isHeard = (row: MasterRow) => row.heartbeatAgeMs < SILENT_MASTER_MS;
  const isOther = recorded !== null && recorded.machine !== null && recorded.machine !== machine;
  // A database of this machine alone may be one that was restored, with the row of the machine before.
  if (isOther && isShared && isHeard(recorded))
    return {
      why: `Another machine is this master (MASTER_ID ${id}, ${recorded.name}), and wrote to the database at ${recorded.heartbeatAt}.`,
      remedy: OTHER_MACHINE,
    };
  if (recorded !== null && isShared && isHeard(recorded) && isClone(wanted.peer, recorded.peer))
    return {
      why: `Another machine is this master (MASTER_ID ${id}, ${recorded.name}): its cluster peer is ${recorded.peer?.peerId ?? ""} at ${recorded.peer?.addresses[0] ?? ""}, and it wrote to the database at ${recorded.heartbeatAt}.`,
      remedy: OTHER_MACHINE,
    };
  const twin = others.find((one) => peer !== null && one.peer?.peerId === peer.peerId);
  if (twin === undefined) return null;
  return {
    why: `The master ${twin.name} has the same cluster peer id (${peer?.peerId ?? ""}).`,
    remedy:
      "Two masters must have ipfs-clusters of their own. If the data of this one was copied, remove its identity.json and its state, and run again.",
  };
}

const OTHER_MACHINE =
  "If this machine was cloned from it, or has a copy of its .env, remove MASTER_ID from .env here. If it replaces the other, stop the other first, and run again ten minutes later.";

/**
 * True if a peer is another one than was recorded, and has no host in common with it. A clone has the machine id of its
 * original, and a peer and addresses of its own; a writer whose data was lost has a new peer at the old addresses.
 */
function isClone(peer: MasterPeer | null, recorded: MasterPeer | null): boolean {
  if (peer === null || recorded === null || peer.peerId === recorded.peerId) return false;
  const [here, there] = [peer, recorded].map(({ addresses }) =>
    addresses.flatMap((address) => parseTcpMultiaddr(address)?.host ?? []),
  );
  if (here === undefined || there === undefined || here.length === 0 || there.length === 0) return false;
  return !here.some((host) => there.includes(host));
}

function compare(wanted: MasterRecord, recorded: MasterRow, version: string): readonly string[] {
  const [uses, has] = [wanted.flags, recorded.flags].map((some) => some.join(" ") || "none");
  return [
    ...(uses === has ? [] : [`recorded: ${has ?? ""}; in use: ${uses ?? ""}`]),
    ...(wanted.name === recorded.name ? [] : [`recorded as ${recorded.name}`]),
    ...(recorded.version === version ? [] : [`recorded by fula-node ${recorded.version}`]),
    ...comparePeers(wanted.peer, recorded.peer),
    ...(recorded.machine === wanted.machine
      ? []
      : [
          `recorded by another machine, ${recorded.heartbeatAt}. If this one was cloned from it and both run, remove MASTER_ID from .env here and run again`,
        ]),
  ];
}

function comparePeers(wanted: MasterPeer | null, recorded: MasterPeer | null): readonly string[] {
  if (wanted === null) return [];
  if (recorded?.peerId !== wanted.peerId)
    return [
      recorded === null ? "its cluster peer is not recorded" : `recorded with the peer ${recorded.peerId}`,
    ];
  const [now, before] = [wanted, recorded].map(({ trusts }) =>
    trusts === null ? "not known" : trusts.toSorted().join(" ") || "nobody",
  );
  return now === before ? [] : [`recorded as trusting ${before ?? ""}; it trusts ${now ?? ""}`];
}
