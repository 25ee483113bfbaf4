import { createHash } from "node:crypto";

/** An account's id: lower-case hex sha256 of its lower-cased address (functionland/pinning-service, emailToUserId). */
export function userIdOf(address: string): string {
  return createHash("sha256").update(address).digest("hex");
}

/**
 * The account that a text from outside names: the `sub` of a JWT, the user of a trusted header, a wallet. Letters' case
 * makes no other account: an e-mail address is hashed in lower case, as upstream does, and an id or a wallet is in lower
 * case itself. Nothing connects an e-mail address with a wallet: these are two accounts, also of one person. Null if the
 * text can't name an account.
 */
export function accountIdOf(subject: string): string | null {
  if (subject.includes("@")) {
    const address = readEmail(subject);
    return address === null ? null : userIdOf(address);
  }
  if (/^(?:0x[0-9a-f]{40}|[0-9a-f]{64})$/i.test(subject)) return subject.toLowerCase();
  // Other ids are upstream's own, and are taken as they are.
  return /^[!-~]{1,64}$/.test(subject) ? subject : null;
}

/**
 * The e-mail address that identifies an account, or null if the text is not an address. It is only lower-cased, as
 * upstream does, so that both find the same account.
 */
export function readEmail(text: string): string | null {
  const isAddress = text.length <= 254 && /^[^\s@,]+@[^\s@,]+$/.test(text);
  return isAddress ? text.toLowerCase() : null;
}
