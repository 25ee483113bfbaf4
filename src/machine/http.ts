import { OperatorError } from "../errors.ts";
import {
  AnswerTooLong,
  DeadlinePassed,
  HttpClient,
  HttpFailure,
  parseJson,
  readWhole,
  type Receive,
} from "./http-client.ts";
import { countNewlines } from "./line-scanner.ts";
import { proxyFor } from "./proxy.ts";

/** Reads over http(s): health endpoints and the REST APIs of kubo and ipfs-cluster. */
export interface HttpReader {
  /**
   * Null if there is no answer. `body` is null if the body is not JSON, or longer than `maxBytes` (default 16 MiB).
   * `method` POST is for kubo, whose read requests are POSTs.
   */
  json(
    url: string,
    options?: {
      readonly method?: "GET" | "POST";
      readonly timeoutMs?: number;
      readonly basicAuth?: string;
      /** The whole Authorization header, for a scheme that is not Basic. */
      readonly authorization?: string;
      readonly maxBytes?: number;
      /** The X-Request-Id. */
      readonly requestId?: string;
      /** True for a server on the internet: a proxy in the environment is used. */
      readonly isRemote?: boolean;
      /** PEM of a private CA that is trusted for this server too. */
      readonly ca?: string;
      /** Gets the reason, a phrase, if there is no answer. */
      readonly onNoAnswer?: (why: string) => void;
    },
  ): Promise<{ readonly status: number; readonly body: unknown } | null>;
  /** Counts the lines of a stream until it ends or the time is over. Null if there is no answer. */
  countLines(
    url: string,
    options: { readonly timeoutMs: number; readonly basicAuth?: string },
  ): Promise<{ readonly lines: number; readonly complete: boolean } | null>;
}

/** The id of a request by which `status` looks whether a service refuses who has no key: no service logs it as one of a client. */
export const PROBE_ID = "fula-node-status";

const TIMEOUT_MS = 5_000;
const MAX_BODY_BYTES = 16 * 1024 ** 2;
const LINE_END = 10;
/** Error codes for a server that is not reachable, or that disconnects. */
const NO_ANSWER_CODES: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EPIPE",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_SOCKET",
]);

/** Why there is no answer, for people. */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection is refused: nothing listens there",
  ENOTFOUND: "no such host name",
  EAI_AGAIN: "the host name can't be looked up now",
  EHOSTUNREACH: "the host is not reachable",
  ENETUNREACH: "the network is not reachable",
};

interface RequestOptions {
  readonly method?: "GET" | "POST";
  readonly timeoutMs: number;
  readonly basicAuth?: string;
  readonly authorization?: string;
  readonly requestId?: string;
  readonly isRemote?: boolean;
  readonly ca?: string;
  /** Gets the reason, a phrase, if there is no answer. */
  readonly onNoAnswer?: (why: string) => void;
}

/** A reader whose requests trust a private CA too. Use it for one server only. */
export function trusting(reader: Pick<HttpReader, "json">, ca: string | null): Pick<HttpReader, "json"> {
  return ca === null ? reader : { json: (url, options) => reader.json(url, { ...options, ca }) };
}

/** GET and POST over http(s), without following redirects. The whole exchange must end within the timeout. */
export const http: HttpReader = createHttp({});

/** The same, with the proxies of an environment (see proxyFor) for requests that are `isRemote`. */
export function createHttp(env: Readonly<Record<string, string | undefined>>): HttpReader {
  return {
    async json(url, { timeoutMs = TIMEOUT_MS, maxBytes = MAX_BODY_BYTES, ...rest } = {}) {
      try {
        const answer = await ask(url, { timeoutMs, ...rest }, env, readWhole(maxBytes));
        return answer && { status: answer.status, body: parseJson(answer.text) };
      } catch (thrown) {
        if (thrown instanceof AnswerTooLong) return { status: thrown.status, body: null };
        throw thrown;
      }
    },

    /** If the stream breaks off or the time is over, the lines so far are still counted. */
    async countLines(url, options) {
      let lines = 0;
      let open = false;
      let listed = false;
      const whole = await ask<boolean>(url, options, {}, (status) => {
        listed = status === 200;
        return {
          take(part) {
            if (!listed) return;
            lines += countNewlines(part);
            open = part.at(-1) !== LINE_END;
          },
          end: () => listed || status === 204,
        };
      });
      if (whole === true) return { lines: open ? lines + 1 : lines, complete: true };
      return listed ? { lines, complete: false } : null;
    },
  };
}

/** Uses a new connection. Null if there is no complete answer. */
async function ask<T>(
  url: string,
  {
    method = "GET",
    timeoutMs,
    basicAuth,
    authorization: given,
    requestId,
    isRemote = false,
    ca,
    onNoAnswer = () => {},
  }: RequestOptions,
  env: Readonly<Record<string, string | undefined>>,
  receive: Receive<T>,
): Promise<T | null> {
  const { origin, pathname, search, username, password } = parseUrl(url);
  const auth = basicAuth ?? (username === "" ? null : decodeURIComponent(`${username}:${password}`));
  const authorization = given ?? (auth && `Basic ${Buffer.from(auth).toString("base64")}`);
  const headers = {
    accept: "application/json",
    ...(authorization && { authorization }),
    ...(requestId !== undefined && { "x-request-id": requestId }),
  };
  const proxy = isRemote ? proxyFor(url, env) : null;
  const client = new HttpClient({
    url: origin,
    connections: 1,
    connectTimeoutMs: timeoutMs,
    fresh: true,
    proxy,
    ca,
  });
  let answered = false;
  const begin: Receive<T> = (status) => {
    answered = true;
    return receive(status);
  };
  try {
    return await client.exchange({ method, path: pathname + search, headers }, begin, timeoutMs);
  } catch (thrown) {
    if (!(thrown instanceof HttpFailure) || thrown instanceof AnswerTooLong) throw thrown;
    if (answered || thrown instanceof DeadlinePassed || NO_ANSWER_CODES.has(thrown.code)) {
      const isLate = thrown instanceof DeadlinePassed;
      onNoAnswer(
        isLate ? `no answer within ${timeoutMs / 1000} s` : (REASONS[thrown.code] ?? thrown.message),
      );
      return null;
    }
    const tlsFault = tlsFaultIn(thrown);
    if (tlsFault !== null)
      throw new OperatorError({
        exit: "unavailable",
        what: `TLS with ${origin} failed: ${tlsFault}.`,
        ...(isRemote
          ? {
              why: "The address, the CA or the certificate of the master may have changed.",
              remedy: remedyOfTls(tlsFault),
            }
          : {}),
        cause: thrown,
      });
    throw new OperatorError({
      exit: "unavailable",
      what: `The request to ${origin} failed.`,
      why: thrown.message,
      cause: thrown,
    });
  } finally {
    client.close();
  }
}

/** What to do where a master's certificate is not trusted. */
const NEW_INVITE =
  "Ask its operator for a new invite, then run join-as-storage-node --invite @FILE --fingerprint FINGERPRINT --accept-pool-change.";

/** What to do about a TLS fault of a master, as tlsFaultIn names it: a new invite makes no certificate valid. */
export function remedyOfTls(fault: string): string {
  return /expired|not yet valid/i.test(fault)
    ? "Check the clock of this machine (timedatectl). If it is right, ask the master's operator to renew the certificate (fula-node status on the master)."
    : NEW_INVITE;
}

/** The TLS fault behind an error of a request, in a few words; null for another error. */
export function tlsFaultBehind(thrown: unknown): string | null {
  const failure = thrown instanceof OperatorError ? thrown.cause : thrown;
  return failure instanceof HttpFailure ? tlsFaultIn(failure) : null;
}

/** Why a TLS connection failed, in a few words; null for another failure. */
export function tlsFaultIn({ code, message }: HttpFailure): string | null {
  const [, words] = /:SSL routines:[^:]*:([^:]+)/.exec(message) ?? [];
  if (words !== undefined) return words.trim();
  return /^(?:ERR_SSL_|ERR_TLS_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code)
    ? message.replace(/[.\s]+$/, "").slice(0, 200)
    : null;
}

function parseUrl(url: string): URL {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target !== null && (target.protocol === "http:" || target.protocol === "https:")) return target;
  throw new OperatorError({
    exit: "settings",
    what: "An address is not an http(s) URL.",
    why: `It is ${url.replace(/\/\/[^/]*@/, "//<redacted>@")}.`,
  });
}
