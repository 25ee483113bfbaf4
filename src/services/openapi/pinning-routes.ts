import * as z from "zod";
import { LIMITS } from "../../pinning/pin-body.ts";
import { MATCHES, MAX_CIDS, MAX_LIMIT, STATUSES } from "../../pinning/pin-filter.ts";
import type { PinStatus } from "../../pinning/pin-status.ts";
import type { PinPage } from "../../pinning/pin-store.ts";
import { named, openApiDocument, type Operation, type Operations } from "./document.ts";
import { all, count, DOCUMENT, HEALTH, limitOf, time } from "./schemas.ts";

const failure = named(
  "PinFailure",
  z.object({ error: z.object({ reason: z.string().min(1), details: z.string() }) }),
);
const cid = z.string().meta({
  format: "cid",
  description: "A CID in any usual base.",
  examples: ["bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"],
});
/** A character that PostgreSQL stores and gives back unchanged. `\0` would not be a pattern for every program. */
const STORABLE = "[^\\x00\\uFFFE\\uFFFF]";
const text = z.string().meta({ pattern: `^${STORABLE}*$` });
const meta = z.record(z.string().meta({ pattern: `^(?!__proto__$)${STORABLE}*$` }), text);
const origin = z.string().meta({ format: "multiaddr" });
const pin = named(
  "Pin",
  z.object({
    cid,
    name: text.max(LIMITS.name).exactOptional(),
    origins: z.array(origin).max(LIMITS.origins).exactOptional(),
    meta: meta.meta({ maxProperties: LIMITS.meta }).exactOptional(),
  }),
);
const status = named(
  "PinStatus",
  z.object({
    requestid: z.string(),
    status: z.enum(STATUSES),
    created: time,
    // Upstream's service writes rows, too, with texts that this one refuses.
    pin: z.object({
      cid: z.string(),
      name: z.string().exactOptional(),
      origins: z.array(z.string()),
      meta: z.record(z.string(), z.unknown()),
    }),
    delegates: z.array(z.string()),
    info: z.record(z.string(), z.unknown()),
  }) satisfies z.ZodType<Omit<PinStatus, "status">>,
);
const page = named(
  "PinResults",
  z.object({ count, results: z.array(status).max(MAX_LIMIT) }) satisfies z.ZodType<PinPage>,
);

const ALWAYS = all(failure, {
  400: "The body, the query or the path is not valid.",
  401: "The token is missing, revoked or expired.",
  403: "The key is only good for uploading blocks.",
  503: "The database does not respond.",
});
const FOUND = { ...ALWAYS, ...all(failure, { 404: "There is no such request of this account." }) };
const ACCEPTED = {
  202: ["The request waits for its turn.", status],
  ...all(failure, {
    301: "The content is blocked here.",
    402: "The account has no credit for it.",
    408: "The body is too slow.",
    413: "The body is too long.",
    415: "The body is not application/json.",
    451: "The content is blocked.",
  }),
} as const;
const credentials = ["token", "service"] as const;
const path = { requestid: z.string().regex(/^[A-Za-z0-9._~-]{1,128}$/) };

/** The IPFS Pinning Service API 1.0. */
export const PINS: Operations = {
  "GET /pins": {
    id: "getPins",
    summary: "List requests to pin, the newest first",
    description: "Without `status`, only pinned requests are listed.",
    credentials,
    query: {
      cid: z.array(cid).min(1).max(MAX_CIDS).describe("In any spelling."),
      name: text.max(LIMITS.name),
      match: z.enum(MATCHES).default("exact").describe("How the name is compared."),
      status: z.array(z.enum(STATUSES)).min(1),
      before: time.describe("Created before."),
      after: time.describe("Created after."),
      limit: limitOf(10, MAX_LIMIT),
      meta: meta.describe("Pairs that the metadata has."),
    },
    answers: { 200: ["Requests.", page], ...ALWAYS },
  },
  "POST /pins": {
    id: "addPin",
    summary: "Pin a content",
    credentials,
    body: pin,
    answers: { ...ALWAYS, ...ACCEPTED },
  },
  "GET /pins/{requestid}": {
    id: "getPin",
    summary: "Read a request",
    credentials,
    path,
    answers: { 200: ["The request.", status], ...FOUND },
  },
  "POST /pins/{requestid}": {
    id: "replacePin",
    summary: "Replace a request",
    description: "With the same CID nothing is unpinned.",
    credentials,
    path,
    body: pin,
    answers: { ...FOUND, ...ACCEPTED },
  },
  "POST /pins/import/car": {
    id: "importCar",
    summary: "Send a content as a CAR file, and pin it",
    description: "The CAR has one root, and all blocks of it.",
    credentials,
    form: z.object({
      file: z.string().meta({ contentMediaType: "application/vnd.ipld.car" }),
      name: text.max(LIMITS.name).exactOptional(),
    }),
    answers: {
      ...ALWAYS,
      ...ACCEPTED,
      ...all(failure, {
        404: "This master does not import CAR files.",
        415: "The body is not multipart/form-data.",
        429: "Too many CAR files are being imported.",
        503: "The database or the master's kubo does not respond.",
        507: "The master has no space for the CAR.",
      }),
    },
  },
  "DELETE /pins/{requestid}": {
    id: "deletePin",
    summary: "Delete a request",
    description: "The content is unpinned if no other request has it.",
    credentials,
    path,
    answers: { 202: ["The request is deleted."], ...FOUND },
  },
};

/** What the pinning API serves to programs of its machine: `GET /openapi.json`. */
export function pinningDocument(version: string): object {
  return openApiDocument(
    { title: "Pinning API of a Fula master", description: "The IPFS Pinning Service API 1.0.", version },
    { ...PINS, ...HEALTH, "GET /openapi.json": { id: "getDocument", ...DOCUMENT } },
  );
}

const REFUSED = all(failure, {
  400: "The query or the path is not valid.",
  401: "The key is missing or wrong.",
  429: "There are too many requests.",
  503: "The database does not respond.",
});
const sums = z.object({ user_id: z.string().nullable(), pins: count, bytes: z.number() });
const counts = z.record(z.string(), count).nullable();
const row = z.object({
  requestid: z.string(),
  user_id: z.string().nullable(),
  cid: z.string(),
  name: z.string().nullable(),
  status: z.enum(STATUSES),
  size: z.number().nullable(),
  created: time,
});
const rows = named("AdminPins", z.object({ count, pins: z.array(row) }));
const account = z.string().meta({ format: "account", description: "An id, or an e-mail address." });
const limit = limitOf(200, MAX_LIMIT);

function admin(answer: z.ZodType, operation: Omit<Operation, "credentials" | "answers">): Operation {
  return { ...operation, credentials: ["systemKey", "token"], answers: { 200: ["OK.", answer], ...REFUSED } };
}

const ADMIN: Operations = {
  "GET /admin/stats": admin(named("AdminStats", z.object({ pins: counts, accounts: count, work: counts })), {
    id: "getStats",
    summary: "How many requests have each status",
  }),
  "GET /admin/storage": admin(
    named("AdminStorage", z.object({ pins: count, bytes: z.number(), accounts: z.array(sums) })),
    { id: "getStorage", summary: "Sums, and the accounts that store most", query: { limit } },
  ),
  "GET /admin/storage/user/{account}": admin(named("AdminAccount", sums), {
    id: "getStorageOf",
    summary: "The sums of one account",
    path: { account },
  }),
  "GET /admin/pins/pending": admin(rows, {
    id: "getPending",
    summary: "Requests that are not pinned yet",
    query: {
      after: time.describe("Created after."),
      before: time.describe("Created before."),
      username: account,
      status: z.enum(["pending", ...STATUSES]).default("pending"),
      limit,
    },
    required: ["after"],
  }),
  "GET /admin/pins/needs-size-recalc": admin(rows, {
    id: "getUnsized",
    summary: "Pinned requests whose size is not known",
    query: { limit },
  }),
  "GET /admin/openapi.json": admin(DOCUMENT.answers[200][1], {
    id: "getAdminDocument",
    summary: DOCUMENT.summary,
  }),
};

/** The routes of operators: `GET /admin/openapi.json`, for who has their key. */
export function adminDocument(version: string): object {
  const about = {
    title: "Pinning API of a Fula master: operators",
    description: "These routes only read.",
    version,
  };
  return openApiDocument(about, ADMIN);
}
