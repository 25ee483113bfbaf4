import * as z from "zod";
import { isPeerId } from "../settings/address.ts";
import { MAX_NAME_CHARACTERS, NODE_NAME, validateNodeName } from "../settings/node-name.ts";
import { RULES } from "../settings/rules.ts";
import {
  type Announcement,
  MAX_ADDRESSES,
  MAX_TRUSTED,
  publicKeyOf,
  type Release,
  type Signed,
  type TrustStatement,
  validateNodeAddress,
} from "./announcement.ts";

// Separate from announcement.ts: only a master reads announcements, so only a master loads zod.

/** The parsed message, or a sentence for each problem with it. */
export type Reading<Message> = Signed<Message> | { readonly problems: readonly string[] };

/** The largest body of an announcement. */
export const MAX_ANNOUNCEMENT_BYTES = 16_384;

/** Reads the body of `POST /api/v1/nodes`. A key that is not signed is an error; it is not ignored. */
export function readAnnouncement(body: unknown): Reading<Announcement> {
  const read = readBody(ANNOUNCEMENT, body);
  if ("problems" in read) return read;
  const problems = addressProblems(read.message);
  return problems.length > 0 ? { problems } : read;
}

/** Reads the body of `POST /api/v1/nodes/NAME/trust`. */
export function readTrustStatement(body: unknown): Reading<TrustStatement> {
  return readBody(TRUST, body);
}

/** Reads the body of `DELETE /api/v1/nodes/NAME`. */
export function readRelease(body: unknown): Reading<Release> {
  return readBody(RELEASE, body);
}

const SIGNATURE = /^[0-9a-f]{128}$/;
const RESERVATION = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const TIME = /^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

const common = {
  name: text("name", validateNodeName).meta({ pattern: NODE_NAME.source, maxLength: MAX_NAME_CHARACTERS }),
  peerId: text("peerId", (value) =>
    publicKeyOf(value) === null
      ? "peerId must be an ed25519 peer id: 12D3KooW and 44 more characters."
      : null,
  ).meta({ format: "ed25519-peer-id" }),
  time: text("time", validateTime).meta({ format: "utc-milliseconds" }),
  pool: text("pool", (value) =>
    RULES.name.holds(value) ? null : `pool must be ${RULES.name.requirement}.`,
  ).meta({ format: "pool-name" }),
  signature: text("signature", (value) =>
    SIGNATURE.test(value) ? null : "signature must be 128 lower-case hex digits.",
  ).meta({ pattern: SIGNATURE.source }),
};
const listRule = { error: "addresses must be a list of strings." };
/** The body of `POST /api/v1/nodes`. */
export const ANNOUNCEMENT = signedBody({
  ...common,
  addresses: z.array(z.string(listRule), listRule).meta({ minItems: 1, maxItems: MAX_ADDRESSES }),
});
const peerRule = { error: `trusts must be a list of at most ${MAX_TRUSTED} peer ids.` };
/** The body of `POST /api/v1/nodes/NAME/trust`. */
export const TRUST = signedBody({
  ...common,
  trusts: z
    .array(z.string(peerRule).refine(isPeerId, peerRule).meta({ format: "peer-id" }), peerRule)
    .max(MAX_TRUSTED, peerRule),
});
/** The body of `DELETE /api/v1/nodes/NAME`. */
export const RELEASE = signedBody({
  ...common,
  reservation: text("reservation", (value) =>
    RESERVATION.test(value)
      ? null
      : "reservation must be null or the id from the answer to the announcement.",
  )
    .meta({ pattern: RESERVATION.source })
    .nullable(),
});

function signedBody<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: ({ code }) => (code === "invalid_type" ? "The body must be one JSON object." : undefined),
  });
}

function text(key: string, why: (value: string) => string | null) {
  return z.string({ error: `${key} must be a string.` }).check(({ value, issues }) => {
    const message = why(value);
    if (message !== null) issues.push({ code: "custom", message, input: value });
  });
}

function readBody<Message>(
  schema: z.ZodType<Message & { readonly signature: string }>,
  value: unknown,
): Reading<Omit<Message, "signature">> {
  const read = schema.safeParse(value);
  if (read.success) {
    const { signature, ...message } = read.data;
    return { message, signature };
  }
  const problems = read.error.issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => `${JSON.stringify(key.slice(0, 40))} is not a known key.`)
      : [issue.message],
  );
  return { problems: [...new Set(problems)] };
}

function addressProblems({ addresses, peerId }: Announcement): readonly string[] {
  if (addresses.length === 0 || addresses.length > MAX_ADDRESSES)
    return [`addresses must hold 1 to ${MAX_ADDRESSES} multiaddrs.`];
  return addresses.flatMap((address) => validateNodeAddress(address, peerId) ?? []);
}

function validateTime(value: string): string | null {
  const at = TIME.test(value) ? new Date(value) : new Date(Number.NaN);
  const isExact = !Number.isNaN(at.getTime()) && at.toISOString() === value;
  return isExact ? null : "time must be UTC with milliseconds, such as 2026-11-21T20:00:00.000Z.";
}
