import type { JoinDeps } from "./join-run.ts";
import { OperatorError } from "../errors.ts";
import { readInvite, refuseExpired } from "../federation/invite-signing.ts";
import type { TrustInfo } from "../federation/trust.ts";

/**
 * Reads the invite of a join, shows what it says, and has a person compare its key's fingerprint unless that
 * was given. Throws `integrity` for one that is altered, expired or signed by another key, `newer` for a
 * version to come, `usage` where there is none to read.
 */
export async function learnFromInvite(
  flags: {
    readonly invite: string;
    readonly fingerprint?: string;
    readonly dryRun: boolean;
    readonly yes: boolean;
  },
  deps: Pick<JoinDeps, "host" | "reporter" | "questions" | "readStdin" | "parseVerifyingKey">,
): Promise<TrustInfo> {
  const { host, reporter, questions } = deps;
  const verified = readInvite(await tokenText(flags.invite, deps), {
    now: host.clock.now(),
    expected: flags.fingerprint ?? null,
    parseKey: deps.parseVerifyingKey,
  });
  refuseExpired(verified);
  const { invite, fingerprint } = verified;
  const lines = [
    ["Invite to pool", invite.clusterName],
    ["masters to obey", invite.trustedPeers.join(" ")],
    ["found at", invite.bootstrap.join(" ")],
    ["storage API", invite.storageApiUrl],
    ["name", invite.nodeName ?? "the node's own choice"],
    ["key fingerprint", fingerprint],
  ];
  for (const line of reporter.table(lines)) reporter.note(line);
  const asks = questions !== null && flags.fingerprint === undefined && !flags.dryRun && !flags.yes;
  if (
    asks &&
    !(await questions.confirm("Is that the fingerprint which the master's operator told you?", false))
  ) {
    throw new OperatorError({
      exit: "integrity",
      what: "The invite's fingerprint is not the one that you were told.",
      why: "Whoever writes an invite decides whom this node obeys.",
      remedy: "Ask the master's operator for another invite, and for its fingerprint by another way.",
    });
  }
  return {
    source: "The invite",
    isSigned: true,
    values: new Map([
      ["CLUSTERNAME", invite.clusterName],
      ["CLUSTER_SECRET", invite.clusterSecret],
      ["MASTER_CLUSTER_PEERIDS", invite.trustedPeers.join(",")],
      ["MASTER_CLUSTER_BOOTSTRAP", invite.bootstrap.join(",")],
      ["STORAGE_API_URL", invite.storageApiUrl],
      ...(invite.nodeName === null ? [] : ([["CLUSTER_PEERNAME", invite.nodeName]] as const)),
    ]),
  };
}

/** Far above any token: a file that is larger is another one. */
const MAX_FILE_BYTES = 1024 ** 2;

/** A token itself, or where it is to be read from: `@FILE`, or `-` for standard input. Throws `usage` for a file that holds none. */
export async function tokenText(token: string, deps: Pick<JoinDeps, "host" | "readStdin">): Promise<string> {
  if (token === "-") return await deps.readStdin();
  if (!token.startsWith("@")) return token;
  const path = token.slice(1);
  const text = await readTokenFile(path, deps);
  if (text === null) throw usage(`There is no file ${path}.`);
  if (text.length > MAX_FILE_BYTES) throw usage(`${path} is no invite: it is larger than 1 MiB.`);
  return text;
}

async function readTokenFile(path: string, { host }: Pick<JoinDeps, "host">): Promise<string | null> {
  try {
    return await host.files.readText(path);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw new OperatorError({
      exit: "usage",
      what: `The invite's file ${path} can't be read.`,
      why: thrown.why ?? thrown.what,
      remedy: "Give the path of a plain file with the invite's one line in it, or - for standard input.",
      cause: thrown,
    });
  }
}

function usage(what: string): OperatorError {
  return new OperatorError({ exit: "usage", what });
}
