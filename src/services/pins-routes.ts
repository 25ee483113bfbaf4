import { type Credential, NOT_ACCEPTED, readCredential } from "../accounts/sessions.ts";
import type { PostgresPool } from "../database/postgres.ts";
import type { Log } from "../errors.ts";
import type { ReadDelegates } from "../pinning/delegates.ts";
import { type PinBody, readPinBody } from "../pinning/pin-body.ts";
import { decode, readPinFilter } from "../pinning/pin-filter.ts";
import { newRequestId } from "../pinning/pin-owner.ts";
import type { Sender } from "../pinning/pin-sql.ts";
import {
  type AcceptPin,
  findPin,
  listPins,
  type PinLimits,
  type PinOutcome,
  type PinRefusal,
  removePin,
  replacePin,
} from "../pinning/pin-store.ts";
import { whileDatabaseAnswers } from "./health.ts";
import { readJson } from "./request-body.ts";
import { type App, type Call, json } from "./server.ts";

/** What the routes of pins need. */
export interface PinsDeps {
  readonly pool: Pick<PostgresPool, "query">;
  readonly log: Log;
  readonly delegates: ReadDelegates;
  readonly limits: PinLimits;
  readonly accept: AcceptPin;
  /** FULA_PIN_SERVICE_SECRET; null if the trusted header is not used. */
  readonly serviceSecret: string | null;
  /** FULA_EIP712_AUTH: tokens that a wallet signed are accepted. */
  readonly walletTokens: boolean;
  /** Called when a request to change something begins; the queue lets it go first. Its result is called at the end. */
  readonly beginRequest: () => () => void;
  /** Called after a change that makes work for the queue. */
  readonly wake: () => void;
  /** Handles an upload of a CAR (car-import.ts). Null: DAG_IMPORT_ENABLED is off. */
  readonly importCar: PinsHandler | null;
}

/** A name of 255 characters, 20 origins and 1,000 pairs of metadata fit; a longer body is refused unread. */
const MAX_BODY_BYTES = 262_144;
/** The characters that a request id may have: ours are UUIDs, upstream's are not longer. */
const REQUEST_ID = /^[A-Za-z0-9._~-]{1,128}$/;

/**
 * As upstream, for pages of any origin. It gives them nothing that they don't have: no cookie opens an account, only a
 * token that the page must know.
 */
const CORS = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "retry-after, location, x-request-id",
};
const PREFLIGHT = {
  ...CORS,
  "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
  "access-control-allow-headers": "authorization, content-type",
  "access-control-max-age": "86400",
};

/** Uploads of CAR files. */
export const IMPORT_PATH = "/pins/import/car";

/** A handler that also gets the sender, whose token is checked with the statement of the handler. */
export type PinsHandler = (call: Call, sender: Sender) => Promise<Response>;

/** Adds `/pins` and `/pins/REQUESTID` (IPFS Pinning Service API 1.0). `isOutside`: the requests come through the edge. */
export function addPinsRoutes(
  app: App,
  deps: PinsDeps,
  { isOutside }: { readonly isOutside: boolean },
): void {
  const { pool, log, limits, delegates } = deps;
  const rules = { isOutside, serviceSecret: deps.serviceSecret };

  const authenticated =
    (work: PinsHandler) =>
    async (call: Call): Promise<Response> => {
      const sender = await senderOf(readCredential(call.env.incoming, rules, new Date()));
      if (sender instanceof Response) return sender;
      return whileDatabaseAnswers(
        log,
        () => work(call, sender),
        (error, headers) => refuse(503, "SERVICE_UNAVAILABLE", error, headers),
      );
    };

  /** The first send is quick if the queue does not wait for its next look. */
  function woken(response: Response): Response {
    if (response.status === 202) deps.wake();
    return response;
  }

  const changing = (work: PinsHandler) =>
    authenticated(async (call, sender) => {
      const end = deps.beginRequest();
      try {
        return woken(await work(call, sender));
      } finally {
        end();
      }
    });

  async function senderOf(credential: Credential): Promise<Sender | Response> {
    if (credential.kind === "session") return [credential.tokenHash, null];
    if (credential.kind === "account") return [null, credential.account];
    if (credential.kind === "refused") return refuseCredential(credential);
    if (!deps.walletTokens) return unauthorized("This master does not accept tokens of wallets.");
    // Loaded here: few masters accept them, and checking a signature needs much code.
    const { openWalletSession } = await import("./caller.ts");
    const opened = await openWalletSession(pool, credential.token);
    return "refused" in opened ? unauthorized(opened.refused) : [null, opened.account];
  }

  app.get(
    "/pins",
    authenticated(async ({ env }, sender) => {
      const filter = readPinFilter(queryOf(env.incoming.url));
      if ("problem" in filter) return badRequest(filter.problem);
      const page = await listPins(pool, sender, filter.value);
      return page === null ? unauthorized(NOT_ACCEPTED) : answer(200, page);
    }),
  );
  app.post(
    "/pins",
    changing(async (call, sender) => {
      const pin = await readPin(call);
      if (pin instanceof Response) return pin;
      const added = { requestid: newRequestId(), pin, delegates: await delegates() };
      return outcomeReply(await deps.accept(sender, added), pin);
    }),
  );
  app.get(
    "/pins/:id",
    authenticated(async (call, sender) => {
      const id = requestIdOf(call);
      if (id instanceof Response) return id;
      const found = await findPin(pool, sender, id);
      return "kind" in found ? refusalReply(found) : answer(200, found.status);
    }),
  );
  app.post(
    "/pins/:id",
    changing(async (call, sender) => {
      const id = requestIdOf(call);
      if (id instanceof Response) return id;
      const pin = await readPin(call);
      if (pin instanceof Response) return pin;
      const added = { requestid: newRequestId(), pin, delegates: await delegates() };
      return outcomeReply(await replacePin(pool, sender, id, added, limits), pin);
    }),
  );
  app.delete(
    "/pins/:id",
    changing(async (call, sender) => {
      const id = requestIdOf(call);
      if (id instanceof Response) return id;
      const removed = await removePin(pool, sender, id, limits);
      return removed.kind === "deleted"
        ? new Response(null, { status: 202, headers: CORS })
        : refusalReply(removed);
    }),
  );
  app.post(
    IMPORT_PATH,
    authenticated(async (call, sender) =>
      deps.importCar === null
        ? refuse(404, "NOT_FOUND", "This master does not import CAR files.", { connection: "close" })
        : woken(await deps.importCar(call, sender)),
    ),
  );
  const others = (methods: string) => authenticated(async () => refuseMethod(methods));
  const preflight = () => new Response(null, { status: 204, headers: PREFLIGHT });
  app.options("/pins", preflight);
  app.options("/pins/:id", preflight);
  app.options(IMPORT_PATH, preflight);
  app.all("/pins", others("GET, POST, OPTIONS"));
  app.all("/pins/:id", others("GET, POST, DELETE, OPTIONS"));
  app.all(IMPORT_PATH, others("POST, OPTIONS"));
}

/** The part of a request's target after the question mark. */
export function queryOf(url = ""): string {
  const at = url.indexOf("?");
  return at < 0 ? "" : url.slice(at + 1);
}

/** The request id in the path, or the response for a path that can't have one. */
function requestIdOf({ env }: Call): string | Response {
  const path = (env.incoming.url ?? "").split("?", 1)[0] ?? "";
  const id = decode(path.slice("/pins/".length));
  if (id === null) return badRequest("The path is not UTF-8.");
  if (REQUEST_ID.test(id)) return id;
  return /\p{Cc}/u.test(id) ? badRequest("The request id has a control character.") : notFound();
}

async function readPin({ env }: Call): Promise<PinBody | Response> {
  const body = await readJson(env.incoming, { maxBytes: MAX_BODY_BYTES, refuse: refuseBody });
  if (body instanceof Response) return body;
  const read = readPinBody(body.json);
  return "problem" in read ? badRequest(read.problem) : read.value;
}

function refuseBody(status: number, error: string, headers: Readonly<Record<string, string>>): Response {
  return refuse(status, BODY_REASONS[status] ?? "BAD_REQUEST", error, headers);
}

const BODY_REASONS: Readonly<Record<number, string>> = {
  408: "REQUEST_TIMEOUT",
  413: "PAYLOAD_TOO_LARGE",
  415: "UNSUPPORTED_MEDIA_TYPE",
};

/** The response to a new request. */
export function outcomeReply(outcome: PinOutcome, { cid }: Pick<PinBody, "cid">): Response {
  if (outcome.kind === "accepted") return answer(202, outcome.status);
  if (outcome.kind === "blocked" && outcome.mode === "redirect")
    return refuse(301, "BLOCKED", "This master does not pin this content.", {
      location: `https://ipfs.io/ipfs/${cid.text}`,
    });
  return refusalReply(outcome);
}

/** The response to a refusal. */
export function refusalReply(refusal: PinRefusal): Response {
  if (refusal.kind === "unknown-sender") return unauthorized(NOT_ACCEPTED);
  if (refusal.kind === "not-found") return notFound();
  return refusal.kind === "no-credit"
    ? refuse(402, "INSUFFICIENT_CREDITS", NO_CREDIT[refusal.verdict])
    : refuse(451, "UNAVAILABLE_FOR_LEGAL_REASONS", "This master does not pin this content.");
}

const NO_CREDIT = {
  held: "The operator of this master has suspended the account.",
  "used-up": "The free storage is used up, and the account has no balance or is suspended.",
  "too-many":
    "An account without a balance may have only a few requests that are not pinned yet. Wait until some are pinned, or add credit.",
} as const;

function notFound(): Response {
  return refuse(404, "NOT_FOUND", "There is no such request.");
}

function badRequest(details: string): Response {
  return refuse(400, "BAD_REQUEST", details);
}

function unauthorized(details: string): Response {
  return refuse(401, "UNAUTHORIZED", details, { "www-authenticate": "Bearer" });
}

/** The response to a method that a path does not have. */
export function refuseMethod(methods: string): Response {
  return refuse(405, "METHOD_NOT_ALLOWED", `Only ${methods} can be used here.`, { allow: methods });
}

/** The response to a credential that can't be valid. */
export function refuseCredential({ status, why }: Extract<Credential, { kind: "refused" }>): Response {
  if (status === 401) return unauthorized(why);
  return status === 403 ? refuse(403, "FORBIDDEN", why) : badRequest(why);
}

function answer(status: number, body: unknown): Response {
  return json(status, body, CORS);
}

/** An error response in the form of the IPFS Pinning Service API, which pages of any origin may read. */
export function refuse(
  status: number,
  reason: string,
  details: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return refuseHere(status, reason, details, { ...CORS, ...headers });
}

/** An error response in the same form, for programs of this machine: no page of another origin may read it. */
export function refuseHere(
  status: number,
  reason: string,
  details: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return json(status, { error: { reason, details } }, headers);
}
