import { OperatorError } from "../errors.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import { type Invite, readPayload, splitToken } from "./invite.ts";

/** An invite whose signature fits the key that it carries. */
export interface VerifiedInvite {
  readonly invite: Invite;
  readonly fingerprint: string;
  readonly expired: boolean;
}

const FETCH_ANOTHER = "Ask the master's operator for another one: fula-node invite create.";

/**
 * Reads a token and checks its signature. Throws `integrity` for garbage, an altered token and another
 * key than the expected one, `newer` for a version to come. Expiry is told, not thrown: `invite show` may
 * look at an old one.
 */
export function readInvite(
  token: string,
  options: {
    readonly now: Date;
    /** The fingerprint that the operator was told by another way; null: none was. */
    readonly expected: string | null;
    readonly parseKey: (pem: string, path: string) => VerifyingKey;
  },
): VerifiedInvite {
  const parts = splitToken(token);
  if ("fault" in parts) {
    if (parts.fault === "newer")
      throw new OperatorError({
        exit: "newer",
        what: `This invite can't be read: ${parts.what}.`,
        remedy: "Use a newer fula-node.",
      });
    throw refuse(`This is no invite: ${parts.what}.`);
  }
  const payload = Buffer.from(parts.payload, "base64url");
  const invite = readPayload(payload.toString("utf8"));
  if ("what" in invite) throw refuse(`This invite can't be read: ${invite.what}.`);
  const key = parseOr(options.parseKey, invite.publicPem);
  if (!key.verify(payload, Buffer.from(parts.signature, "base64url")))
    throw refuse("The invite's signature does not fit: it was altered.");
  if (options.expected !== null && options.expected !== key.id) {
    throw refuse(`The invite is signed by the key ${key.id}, not by ${options.expected}.`);
  }
  return { invite, fingerprint: key.id, expired: invite.expiresAt.getTime() <= options.now.getTime() };
}

/** Throws `integrity` for an invite whose time is over. */
export function refuseExpired({ invite, expired }: VerifiedInvite): void {
  if (expired) throw refuse(`The invite has expired at ${invite.expiresAt.toISOString()}.`);
}

function parseOr(parse: (pem: string, path: string) => VerifyingKey, pem: string): VerifyingKey {
  try {
    return parse(pem, "the invite's key");
  } catch (cause) {
    throw refuse("The invite's key is no ed25519 key.", cause);
  }
}

function refuse(what: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what,
    why: "Whoever writes an invite decides whom this node obeys.",
    remedy: FETCH_ANOTHER,
    cause,
  });
}
