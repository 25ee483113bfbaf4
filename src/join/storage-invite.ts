import { OperatorError } from "../errors.ts";
import { isMasterInvite } from "../federation/master-invite.ts";
import { readInvite, refuseExpired } from "../federation/invite-signing.ts";
import { formatRegistration } from "../federation/invite.ts";
import type { TrustInfo } from "../federation/trust.ts";
import type { JoinDeps } from "./join-run.ts";

/**
 * Reads the invite of a join, prints its content, and asks the operator to compare the fingerprint of its key
 * unless that was given: also with --yes, which never covers trusting a key. A dry run trusts nobody, so it does not ask.
 * Throws `preflight` if there is nobody to ask, `integrity` if the invite is altered, expired or signed by another key,
 * `newer` for a newer version, and `usage` if it can't be read.
 */
export async function readInviteTrust(
  flags: {
    readonly invite: string;
    readonly fingerprint?: string;
    readonly dryRun: boolean;
  },
  deps: Pick<JoinDeps, "host" | "reporter" | "questions" | "readStdin" | "loadKeyParser">,
): Promise<TrustInfo> {
  const { host, reporter } = deps;
  const token = await tokenText(flags.invite, deps);
  if (isMasterInvite(token))
    throw new OperatorError({
      exit: "usage",
      what: "This is the invite of a master, not of a storage node.",
      remedy: "Use it with join-as-master. For a storage node: fula-node invite create, without --master.",
    });
  const verified = readInvite(token, {
    now: host.clock.now(),
    expected: flags.fingerprint ?? null,
    parseKey: await deps.loadKeyParser(),
  });
  refuseExpired(verified);
  const { invite, fingerprint } = verified;
  const lines = [
    ["Invite to pool", invite.clusterName],
    ["masters to trust", invite.trustedPeers.join(" ")],
    ["addresses", invite.bootstrap.join(" ")],
    ["storage API", invite.storageApiUrl],
    ...(invite.storageApiCa === null ? [] : [["its CA", "a private one, trusted for that address only"]]),
    ["name", invite.nodeName ?? "chosen by the node"],
    ["key fingerprint", fingerprint],
  ];
  for (const line of reporter.table(lines)) reporter.note(line);
  await confirmFingerprint(fingerprint, flags, deps);
  return {
    source: "The invite",
    isSigned: true,
    values: new Map([
      ["CLUSTERNAME", invite.clusterName],
      ["CLUSTER_SECRET", invite.clusterSecret],
      ["MASTER_CLUSTER_PEERIDS", invite.trustedPeers.join(",")],
      ["MASTER_CLUSTER_BOOTSTRAP", invite.bootstrap.join(",")],
      ["STORAGE_API_URL", invite.storageApiUrl],
      ...(invite.storageApiCa === null ? [] : ([["STORAGE_API_CA", invite.storageApiCa]] as const)),
      ...(invite.nodeName === null ? [] : ([["CLUSTER_PEERNAME", invite.nodeName]] as const)),
      ...(invite.registration === null
        ? []
        : ([["NODE_INVITE", formatRegistration(invite.registration)]] as const)),
    ]),
  };
}

/**
 * Asks the operator to compare the fingerprint of an invite's key, unless it was given. Throws `preflight` if there is
 * nobody to ask, and `integrity` if it is another one.
 */
export async function confirmFingerprint(
  fingerprint: string,
  flags: { readonly fingerprint?: string; readonly dryRun: boolean },
  { questions }: Pick<JoinDeps, "questions">,
): Promise<void> {
  const isCompared = flags.fingerprint !== undefined || flags.dryRun;
  if (!isCompared && questions === null) throw nobodyCompared(fingerprint);
  if (
    !isCompared &&
    questions !== null &&
    !(await questions.confirm("Is this the fingerprint that the operator of the master gave you?", false))
  ) {
    throw new OperatorError({
      exit: "integrity",
      what: "The fingerprint of the invite is not the one that you were given.",
      why: "The author of an invite decides which masters this node trusts.",
      remedy:
        "Ask the operator of the master for another invite, and for its fingerprint over another channel (phone, chat).",
    });
  }
}

function nobodyCompared(fingerprint: string): OperatorError {
  return new OperatorError({
    exit: "preflight",
    what: `Nobody has compared the fingerprint of the invite's key, ${fingerprint}.`,
    why: "An invite decides which masters this node trusts, and anybody can make one. There is no terminal to ask on.",
    remedy:
      "Ask the operator of the master for the fingerprint over another channel (phone, chat), then run again with --fingerprint FINGERPRINT. Do not copy it from this message.",
  });
}

/** Far above the size of any token: a larger file is not an invite. */
const MAX_FILE_BYTES = 1024 ** 2;

/** Returns the token: the given text, or the content of `@FILE`, or standard input for `-`. Throws `usage` if the file is missing or unusable. */
export async function tokenText(token: string, deps: Pick<JoinDeps, "host" | "readStdin">): Promise<string> {
  if (token === "-") return tokenIn(await deps.readStdin());
  if (!token.startsWith("@")) return token;
  const path = token.slice(1);
  const text = await readTokenFile(path, deps);
  if (text === null) throw usage(`There is no file ${path}.`);
  if (text.length > MAX_FILE_BYTES) throw usage(`${path} is not an invite: it is larger than 1 MiB.`);
  return tokenIn(text);
}

/** The token of a text that has lines around it, as `invite create` prints them; any other text as it is. */
function tokenIn(text: string): string {
  const lines = text.split("\n").filter((line) => /^fula-(?:master-)?invite\./.test(line));
  return lines.length === 1 && lines[0] !== undefined ? lines[0] : text;
}

async function readTokenFile(path: string, { host }: Pick<JoinDeps, "host">): Promise<string | null> {
  try {
    return await host.files.readText(path);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw new OperatorError({
      exit: "usage",
      what: `The invite file ${path} can't be read.`,
      why: thrown.why ?? thrown.what,
      remedy: "Pass the path of a text file that contains the invite (one line), or - for standard input.",
      cause: thrown,
    });
  }
}

function usage(what: string): OperatorError {
  return new OperatorError({ exit: "usage", what });
}
