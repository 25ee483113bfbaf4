import { OperatorError } from "../errors.ts";
import type { AnnounceDeps } from "./announce-name.ts";
import { type TrustStatement, trustText } from "./announcement.ts";

/**
 * Tells the master which cluster peers this node trusts, so that it can say which nodes lack a master. Returns false if the
 * master is an older one, which does not ask for it. Throws (`unavailable`) if it does not take it.
 */
export async function announceTrust(
  { client, identity, clock }: AnnounceDeps,
  {
    pool,
    name,
    trusts,
  }: { readonly pool: string; readonly name: string; readonly trusts: readonly string[] },
): Promise<boolean> {
  const { peerId } = identity;
  const message: TrustStatement = {
    name,
    peerId,
    pool,
    time: clock.now().toISOString(),
    trusts: trusts.toSorted(),
  };
  const signature = identity.sign(trustText(message));
  const answer = await client.send("POST", `/api/v1/nodes/${name}/trust`, { ...message, signature });
  if ("status" in answer && answer.status === 200) return true;
  if ("status" in answer && (answer.status === 404 || answer.status === 405)) return false;
  throw new OperatorError({
    exit: "unavailable",
    what: `The master at ${client.url} did not take the list of the masters that this node trusts.`,
    why: "failure" in answer ? `${answer.failure}.` : `It responded with HTTP status ${answer.status}.`,
    remedy: "Run again. The node itself works: its master only does not know yet which masters it trusts.",
  });
}
