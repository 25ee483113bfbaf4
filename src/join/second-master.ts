import { describeRefusal } from "../database/connection-fault.ts";
import { type MasterRow, SILENT_MASTER_MS } from "../database/masters.ts";
import { OperatorError, type Problem } from "../errors.ts";
import { findInvite, type InviteRecord } from "../federation/invite-records.ts";
import {
  isMasterInvite,
  type MasterInvite,
  readMasterInvite,
  refuse,
  SHARED_SECRETS,
} from "../federation/master-invite.ts";
import type { HostReader } from "../host.ts";
import type { MasterLayout } from "../settings/layout.ts";
import { isDatabaseElsewhere, postgresTarget, type PostgresTarget } from "../settings/postgres-target.ts";
import type { Settings } from "../settings/settings.ts";
import type { JoinDeps, JoinFlags } from "./join-run.ts";
import { readSavedSettings } from "./settings-source.ts";
import { savedValue } from "../settings/settings.ts";
import { confirmFingerprint, tokenText } from "./storage-invite.ts";

/** An invite to become another master of a pool, and the settings that it stands for. */
export interface Invited {
  readonly invite: MasterInvite;
  readonly values: ReadonlyMap<string, string>;
}

/**
 * Reads the invite of a join as a master; null without one. Prints its content, and has its fingerprint compared unless it
 * was given. Throws `integrity` if it is altered, expired or signed by another key, `foreign` if this machine is a master
 * of another pool, `usage` for the invite of a storage node, and what storage-invite.ts throws.
 */
export async function readInvited(
  flags: JoinFlags,
  layout: Pick<MasterLayout, "envFile">,
  deps: JoinDeps,
): Promise<Invited | null> {
  if (flags.invite === undefined) return null;
  const { host, reporter } = deps;
  const token = await tokenText(flags.invite, deps);
  if (token.trim().startsWith("fula-invite."))
    throw new OperatorError({
      exit: "usage",
      what: "This is the invite of a storage node, not of a master.",
      remedy: "Ask the operator of the other master for one: fula-node invite create --master.",
    });
  if (!isMasterInvite(token)) throw refuse("This is not an invite of a master.");
  const { invite, fingerprint, expired } = readMasterInvite(token, {
    now: host.clock.now(),
    expected: flags.fingerprint ?? null,
    parseKey: await deps.loadKeyParser(),
  });
  if (expired) throw refuse(`The invite expired at ${invite.expiresAt.toISOString()}.`);
  const pool = savedValue(await readSavedSettings(deps, layout.envFile), "CLUSTERNAME");
  if (pool !== undefined && pool !== invite.clusterName)
    throw otherPool(`This machine is a master of pool ${pool}, and the invite is to ${invite.clusterName}.`);
  const lines = [["Invite to be a master of pool", invite.clusterName], ...describeInvite(invite)];
  for (const line of reporter.table([...lines, ["key fingerprint", fingerprint]])) reporter.note(line);
  await confirmFingerprint(fingerprint, flags, deps);
  return { invite, values: valuesOf(invite) };
}

/** What an invite has, for people. */
export function describeInvite({
  database,
  trustedPeers,
  bootstrap,
  settings,
}: MasterInvite): readonly (readonly [string, string])[] {
  const { host, port, name, user, ssl, ca } = database;
  const equal = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
  return [
    ["database", `${name} at ${host}:${port}, user ${user}`],
    ["its TLS", ca === null ? ssl : `${ssl}, with the CA in the invite`],
    ["masters to trust", trustedPeers.join(" ")],
    ["address", bootstrap],
    ...(equal.length === 0 ? [] : [["settings", equal.join(" ")] as const]),
  ];
}

function valuesOf({ clusterName, trustedPeers, bootstrap, database, settings }: MasterInvite) {
  return new Map([
    ...Object.entries(settings),
    ["CLUSTERNAME", clusterName],
    ["MASTER_CLUSTER_PEERIDS", trustedPeers.join(",")],
    ["MASTER_CLUSTER_BOOTSTRAP", bootstrap],
    ["POSTGRES_HOST", database.host],
    ["POSTGRES_PORT", database.port],
    ["POSTGRES_DB", database.name],
    ["POSTGRES_USER", database.user],
    ["POSTGRES_SSL", database.ssl],
    ...(database.ca === null ? [] : ([["POSTGRES_CA", database.ca]] as const)),
  ]);
}

/** Settings that a flag and the invite give different values, and secrets that are not there. */
export function findInviteProblems(
  { values }: Invited,
  given: ReadonlyMap<string, string>,
  settings: Settings,
): readonly Problem[] {
  return [
    ...[...values]
      .filter(([key, value]) => given.has(key) && given.get(key) !== value)
      .map(([key]) => ({
        subject: key,
        what: `--set ${key} differs from the value in the invite.`,
        remedy: "Use only one of the two.",
      })),
    ...SHARED_SECRETS.filter((key) => !settings.has(key)).map((key) => ({
      subject: key,
      what: `${key} is missing: it must be the same on every master of the pool.`,
      remedy: `Pass --set-file ${key}=PATH, with the value from .env of the other master.`,
    })),
  ];
}

/**
 * Looks at a database on another machine before this one becomes a master of it, and writes nothing. Throws `preflight` for
 * a pooler, `foreign` if it belongs to another pool or another running master has the given identity, `newer` for a newer schema, and `integrity` if the invite does not
 * hold there. A master that is recorded there already is not judged by its pool.
 */
export async function checkSharedDatabase(
  host: HostReader,
  {
    settings,
    invite,
    saved,
  }: {
    readonly settings: Settings;
    readonly invite: MasterInvite | null;
    /** The value in `.env`. */
    readonly saved: (key: string) => string | undefined;
  },
): Promise<void> {
  const values = (key: string) => settings.get(key)?.value;
  const target = postgresTarget(values);
  if (!isDatabaseElsewhere(values) || target === null || host.system.uid() !== 0) return;
  const answer = await host.postgres.ask(target);
  if (answer.kind !== "open") {
    if (answer.kind === "pooler")
      throw new OperatorError({ ...describeRefusal(target, answer), exit: "preflight" });
    if (invite !== null) throw new OperatorError(describeRefusal(target, answer));
    return;
  }
  const masters = (await host.migrations.readMasters(target)) ?? [];
  const [own, pool] = [values("MASTER_ID"), values("CLUSTERNAME")];
  const others = masters.filter(({ machine, id }) => machine !== null && id !== own);
  const twin = masters.find(({ id }) => id === own);
  const isGiven = settings.get("MASTER_ID")?.origin === "flag" && saved("MASTER_ID") !== own;
  if (isGiven && twin !== undefined && twin.heartbeatAgeMs < SILENT_MASTER_MS) throw sameIdentity(twin);
  const stranger = others.find((one) => one.pool !== pool);
  if (twin === undefined && pool !== undefined && stranger !== undefined)
    throw otherPool(
      `The database at ${target.host}:${target.port} belongs to pool ${stranger.pool} (master ${stranger.name}), not to ${pool}.`,
    );
  // It reads the ledger, and refuses one that is newer.
  await host.migrations.status(target);
  if (invite !== null) await checkInvite(host, target, invite, own ?? null);
}

async function checkInvite(
  host: HostReader,
  target: PostgresTarget,
  { id, clusterName }: MasterInvite,
  own: string | null,
): Promise<void> {
  const database = {
    query: <Row extends Record<string, unknown>>(sql: string, values: readonly unknown[] = []) =>
      host.postgres.query<Row>(target, sql, values),
  };
  const why = whyNoInvite(await findInvite(database, clusterName, id), own, host.clock.now());
  if (why !== null) throw refuse(why);
}

/** Why the row of an invite lets this master not join; null if it does. `own`: its MASTER_ID, null before it has one. */
export function whyNoInvite(record: InviteRecord | null, own: string | null, now: Date): string | null {
  if (record === null || record.kind !== "master") return "The database does not know this invite.";
  const { revokedAt, boundPeer, boundNames, expiresAt } = record;
  if (revokedAt !== null) return `The invite was revoked at ${revokedAt.toISOString()}.`;
  if (boundPeer !== null)
    return boundPeer === own
      ? null
      : `The invite was used by another master (${boundNames[0] ?? boundPeer}).`;
  return expiresAt.getTime() <= now.getTime() ? `The invite expired at ${expiresAt.toISOString()}.` : null;
}

/** The step `flags` knows the same of a machine that has a copy of `.env`. */
function sameIdentity({ id, name, heartbeatAt }: MasterRow): OperatorError {
  return new OperatorError({
    exit: "foreign",
    what: `Another machine is this master (MASTER_ID ${id}, ${name}), and wrote to the database at ${heartbeatAt}.`,
    remedy:
      "Leave MASTER_ID out: this machine then gets its own. If it replaces the other, stop the other first, and run again ten minutes later.",
  });
}

function otherPool(what: string): OperatorError {
  return new OperatorError({
    exit: "foreign",
    what,
    why: "Accounts, pins and billing of a database belong to one pool.",
    remedy:
      "Use the database and the invite of this pool. Or make another machine a master of the other one.",
  });
}
