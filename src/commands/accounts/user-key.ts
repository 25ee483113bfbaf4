import { listKeys, revokeByOperator } from "../../accounts/keys.ts";
import { actorOf, readReason } from "../../accounts/decisions.ts";
import { issueToken } from "../../accounts/token.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import { parseDuration } from "../../federation/invite.ts";
import { hang } from "../../ui/text.ts";
import { countOf } from "../../units.ts";
import type { World } from "../../world.ts";
import {
  type DecisionFlags,
  noAccount,
  quoted,
  readAccount,
  requireValue,
  usage,
  type UserFlags,
  withAccounts,
} from "./user.ts";

/**
 * `user token --email E [--name NAME] [--upload] [--expires TIME]`: prints a new API key as the only line on stdout. It
 * can't be printed again.
 */
export async function userToken(flags: KeyFlags, world: World): Promise<VerbExit> {
  const lifetimeMs = readLifetime(flags);
  const issued = await withAccounts(flags, world, (deps, { layout, values }) =>
    issueToken(
      {
        ...deps,
        clock: world.host.clock,
        jwtSecret: requireValue(layout.envFile, "JWT_SECRET", values("JWT_SECRET")),
      },
      { email: flags.email, name: flags.name, uploadOnly: flags.upload === true, lifetimeMs },
    ),
  );
  if (issued.expiresAt !== null)
    // On standard error: the key is the only line of the output.
    world.reporter.listen({
      type: "warning",
      text:
        flags.upload === true
          ? `This key is good for uploads only, and expires at ${issued.expiresAt}.`
          : `This key expires at ${issued.expiresAt}.`,
    });
  world.reporter.result({ data: { verb: "user token", ...issued }, lines: [issued.token] });
  return "ok";
}

/** The flags of `user token`. */
export interface KeyFlags extends UserFlags {
  readonly name?: string;
  readonly upload?: boolean;
  readonly hours?: string;
  readonly expires?: string;
}

/** A day: an upload takes less, and a key that a storage node's operator has read is soon worthless. */
const UPLOAD_HOURS = "24";
const MAX_UPLOAD_HOURS = 720;
const MAX_KEY_DAYS = 3_650;

/** How long the key is valid; null: until it is revoked, which a key for uploading never is. */
function readLifetime({ upload, hours, expires }: KeyFlags): number | null {
  if (hours !== undefined && (upload !== true || expires !== undefined))
    throw usage(
      upload === true
        ? "--hours and --expires both say when the key expires."
        : "--hours is only for a key that is made with --upload.",
      upload === true ? "Pass one of them." : "Pass --expires, or add --upload.",
    );
  if (expires !== undefined) {
    const maxDays = upload === true ? MAX_UPLOAD_HOURS / 24 : MAX_KEY_DAYS;
    const lifetimeMs = parseDuration(expires, maxDays);
    if (lifetimeMs !== null) return lifetimeMs;
    throw usage(
      `--expires is ${quoted(expires)}; it must be a duration such as 90m, 24h or 30d, at most ${maxDays} days.`,
      "Pass a duration, such as --expires 30d.",
    );
  }
  if (upload !== true) return null;
  const given = hours ?? UPLOAD_HOURS;
  if (/^[1-9][0-9]{0,2}$/.test(given) && Number(given) <= MAX_UPLOAD_HOURS) return Number(given) * 3_600_000;
  throw usage(
    `--hours is ${quoted(given)}; it must be a whole number from 1 to ${MAX_UPLOAD_HOURS}.`,
    "Pass a number, such as --hours 24.",
  );
}

/** The flags that name the account whose keys are meant. */
export interface KeysFlags {
  readonly baseDir?: string;
  readonly email?: string;
  readonly account?: string;
  /** Also those that were revoked or have expired. */
  readonly all?: boolean;
}

/** `user keys --email E [--all]`: the keys of an account, without the keys themselves. */
export async function userKeys(flags: KeysFlags, world: World): Promise<VerbExit> {
  const account = readAccount(flags);
  const found = await withAccounts(flags, world, ({ database, encryptionKey }) =>
    listKeys(database, account, encryptionKey),
  );
  if (found === null) throw noAccount(flags);
  const keys = found.map(({ key }) => key).filter(({ state }) => flags.all === true || state === "active");
  const rows = keys.flatMap(({ id, name, kind, created, expires, lastUsed, state, revoked }) => {
    const facts = [
      name ?? "no name",
      { full: "full key", upload: "for uploads only", session: "for the pinning API only" }[kind],
      `made ${created ?? "at an unknown time"}`,
      ...(expires === null || state === "revoked" ? [] : [`expires ${expires}`]),
      ...(kind === "session" ? [] : [lastUsed === null ? "never used" : `last used ${lastUsed}`]),
      ...(state === "active" ? [] : [revoked === null ? state : `revoked ${revoked}`]),
    ].join(", ");
    return hang(`  ${id}  `, facts);
  });
  world.reporter.result({
    data: { verb: "user keys", account, keys },
    lines:
      keys.length === 0
        ? ["The account has no key that is good now."]
        : [
            `${countOf(keys.length, "key")}:`,
            ...rows,
            ...(keys.some(({ lastUsed }) => lastUsed !== null)
              ? ["A key may have been used up to 5 minutes after its time of last use."]
              : []),
            "To revoke one:",
            `  fula-node user revoke KEY ${nameFlag(flags)} --reason TEXT`,
          ],
  });
  return "ok";
}

/** `user revoke KEY --email E --reason TEXT`: revokes one key of an account. KEY is its id, or the beginning of it. */
export async function userRevoke(key: string, flags: DecisionFlags, world: World): Promise<VerbExit> {
  const account = readAccount(flags);
  const reason = readReason(flags.reason);
  // A whole key in the command line would stand in the list of processes, and in the shell's history.
  if (!/^[0-9a-f]{6,64}$/.test(key))
    throw usage(
      "KEY must be the id of a key: at least 6 of its hex digits, not the key itself.",
      "See the ids with fula-node user keys --email ADDRESS.",
    );
  const { id, changed } = await withAccounts(flags, world, async ({ database, encryptionKey }) => {
    const all = await listKeys(database, account, encryptionKey);
    if (all === null) throw noAccount(flags);
    const [found, ...others] = all.filter(({ hash }) => hash.startsWith(key));
    if (found === undefined || others.length > 0) throw notOneKey(key, others.length, flags);
    const revocation = { account, hash: found.hash, reason, actor: actorOf(world) };
    return { id: found.key.id, changed: await revokeByOperator(database, revocation) };
  });
  world.reporter.result({
    data: { verb: "user revoke", account, key: id, changed },
    lines: [
      changed
        ? `Revoked the key ${id}: it opens nothing any more.`
        : `Nothing to do: the key ${id} was already revoked.`,
    ],
  });
  return "ok";
}

/** The flag that names the account, as it was given. */
function nameFlag({ email, account }: KeysFlags): string {
  return email === undefined ? `--account ${account ?? "ID"}` : `--email ${email}`;
}

function notOneKey(key: string, others: number, flags: KeysFlags): OperatorError {
  const list = `fula-node user keys ${nameFlag(flags)} --all`;
  return new OperatorError({
    exit: "settings",
    what:
      others === 0
        ? `The account has no key whose id begins with ${key}.`
        : `The account has ${others + 1} keys whose id begins with ${key}.`,
    remedy:
      others === 0 ? `See the ids of its keys: ${list}` : `Pass more of the digits that this shows: ${list}`,
  });
}
