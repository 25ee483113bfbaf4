import { Hono } from "hono";
import { type HistoryCursor, MIN_ID, readCredits, readHistory } from "../accounts/credits.ts";
import { usageOf } from "../accounts/usage.ts";
import { revokeKey } from "../accounts/users.ts";
import { signerOf, textDigest } from "../accounts/wallet-signature.ts";
import { revokeWalletSession } from "../accounts/wallet-token.ts";
import {
  ADDRESS,
  createChallenge,
  linkWallet,
  listWallets,
  MAX_WALLETS,
  unlinkWallet,
} from "../accounts/wallets.ts";
import type { ClaimOutcome, ClaimWish } from "../billing/claim.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { type Pricing, reportStorage } from "../settings/quota.ts";
import { type Authenticate, type Caller, fullCaller } from "./caller.ts";
import { whileDatabaseAnswers } from "./health.ts";
import { createRateLimit } from "./rate-limit.ts";
import { type App, type Call, failure, json, readJson } from "./server.ts";

/** What the routes of accounts need. */
export interface AccountsApiOptions {
  readonly authenticate: Authenticate;
  readonly pricing: Pricing;
  /** ENCRYPTION_KEY; null: no wallet can be linked or listed. */
  readonly encryptionKey: string | null;
  /** Wallets show it when they sign. */
  readonly publicUrl: string;
  /** Looks a payment up on its chain; null: this master bills nothing. */
  readonly claims: ((wish: ClaimWish) => Promise<ClaimOutcome>) | null;
}

/** Limits for one account. An ingest node asks only `GET /api/v1/storage`, which has none. */
const READS = { burst: 60, perMinute: 60 };
const CHANGES = { burst: 10, perMinute: 10 };
/** Each claim asks a chain's node, which has limits of its own. */
const CLAIMS = { burst: 5, perMinute: 5 };
const MAX_BODY_BYTES = 4_096;
const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;
/** Base. Upstream also knows 1 (Ethereum) and 2046399126 (Skale Europa). */
const DEFAULT_CHAIN = 8_453;
const MAX_INTEGER = 2_147_483_647;
const HOURS_PER_MONTH = 720;

/**
 * What an account can read and change itself. Each route needs a full API key, or a wallet token.
 *
 * - `GET /api/v1/credits`: balance, totals, suspension, and how fast the balance is used.
 * - `GET /api/v1/credits/history?before=CURSOR&limit=N`: changes of the balance, the newest first.
 * - `POST /api/v1/credits/claim`: credits a payment to the vault that the scan has not found yet.
 * - `POST /api/v1/wallets/challenge`, then `POST /api/v1/wallets`: links a wallet by a signed message.
 * - `GET /api/v1/wallets`, `DELETE /api/v1/wallets/ID`.
 * - `DELETE /api/v1/session`: revokes the credential that the request carries.
 */
export function accountsApi(
  database: Pick<PostgresPool, "query">,
  log: (line: string) => void,
  options: AccountsApiOptions,
): App {
  const { authenticate, pricing, encryptionKey, publicUrl, claims } = options;
  const nowMs = () => performance.now();
  const limits = {
    read: createRateLimit(READS, nowMs),
    change: createRateLimit(CHANGES, nowMs),
    claim: createRateLimit(CLAIMS, nowMs),
  };
  const route =
    (kind: keyof typeof limits, work: (caller: Caller, call: Call) => Promise<Response>) =>
    (call: Call): Promise<Response> =>
      whileDatabaseAnswers(log, async () => {
        const caller = await fullCaller(authenticate, call.env.incoming);
        if (caller instanceof Response) return caller;
        const seconds = limits[kind](caller.account);
        return seconds > 0 ? tooMany(seconds) : work(caller, call);
      });
  const withWallets = (
    kind: keyof typeof limits,
    work: (caller: Caller, call: Call, key: string) => Promise<Response>,
  ) =>
    route(kind, async (caller, call) =>
      encryptionKey === null
        ? failure(503, "no-encryption-key", "This master has no ENCRYPTION_KEY, so it stores no wallets.")
        : work(caller, call, encryptionKey),
    );

  const app: App = new Hono();
  app.get(
    "/api/v1/credits",
    route("read", async ({ account }) => {
      const [usage, credits] = [await usageOf(database, account), await readCredits(database, account)];
      const { currentStorageBytes, freeTierBytes, balanceFula, monthlyBurnRate, isSuspended } = reportStorage(
        usage,
        pricing,
      );
      const hourlyBurnRate = monthlyBurnRate / HOURS_PER_MONTH;
      const hoursLeft = hourlyBurnRate > 0 ? Math.max(0, Math.floor(balanceFula / hourlyBurnRate)) : null;
      return json(200, {
        balanceFula,
        ...credits,
        isSuspended,
        currentStorageBytes,
        freeTierBytes,
        hourlyBurnRate,
        monthlyBurnRate,
        hoursLeft,
      });
    }),
  );
  app.get(
    "/api/v1/credits/history",
    route("read", async ({ account }, { env }) => {
      const page = readPage(env.incoming.url ?? "");
      if (page === null)
        return failure(
          400,
          "bad-page",
          `limit must be 1 to ${MAX_PAGE}, and before must be a time such as 2026-01-31T12:00:00.123456Z, or next of the page before.`,
        );
      const found = await readHistory(database, account, { ...page, limit: page.limit + 1 });
      const entries = found.slice(0, page.limit);
      const last = found.length > page.limit ? entries.at(-1) : undefined;
      return json(200, { entries, next: last === undefined ? null : `${last.created},${last.id}` });
    }),
  );
  app.post(
    "/api/v1/credits/claim",
    route("claim", async ({ account }, { env }) => {
      if (claims === null)
        return failure(503, "no-billing", "This master takes no deposits: it has no VAULT_ADDRESS.");
      const body = await readJson(env.incoming, { maxBytes: MAX_BODY_BYTES });
      if (body instanceof Response) return body;
      const { txHash, chainId, ...more } = fieldsOf(body.json);
      const isHash = typeof txHash === "string" && /^0x[0-9a-fA-F]{64}$/.test(txHash);
      if (!isHash || !isChainId(chainId) || Object.keys(more).length > 0)
        return failure(
          400,
          "bad-claim",
          "The body must have txHash (0x and 64 hexadecimal digits) and chainId (a whole number).",
        );
      const hash = txHash.toLowerCase();
      return claimAnswer({ chainId, txHash: hash }, await claims({ account, chainId, txHash: hash }), log);
    }),
  );
  app.post(
    "/api/v1/wallets/challenge",
    withWallets("change", async ({ account }, { env }) => {
      const body = await readJson(env.incoming, { maxBytes: MAX_BODY_BYTES });
      if (body instanceof Response) return body;
      const { address, chainId = DEFAULT_CHAIN, ...more } = fieldsOf(body.json);
      if (
        typeof address !== "string" ||
        !ADDRESS.test(address) ||
        !isChainId(chainId) ||
        Object.keys(more).length > 0
      )
        return failure(
          400,
          "bad-wallet",
          "The body must have address (0x and 40 hexadecimal digits), and may have chainId (a whole number).",
        );
      const challenge = await createChallenge(
        database,
        { account, address, chainId },
        { publicUrl, now: new Date() },
      );
      return challenge === null
        ? failure(409, "too-many-wallets", `An account can have ${MAX_WALLETS} wallets. Unlink one first.`)
        : json(201, challenge);
    }),
  );
  app.post(
    "/api/v1/wallets",
    withWallets("change", async ({ account }, { env }, key) => {
      const body = await readJson(env.incoming, { maxBytes: MAX_BODY_BYTES });
      if (body instanceof Response) return body;
      const { message, signature, ...more } = fieldsOf(body.json);
      if (typeof message !== "string" || typeof signature !== "string" || Object.keys(more).length > 0)
        return failure(400, "bad-link", "The body must have message and signature, both texts.");
      const bytes = /^0x[0-9a-fA-F]{130}$/.test(signature) ? Buffer.from(signature.slice(2), "hex") : null;
      const signer = bytes === null ? null : signerOf(textDigest(message), bytes);
      if (signer === null) return failure(400, "bad-signature", BAD_SIGNATURE);
      const linked = await linkWallet(database, { account, message, signer }, key);
      if (linked.outcome === "linked") return json(linked.isNew ? 201 : 200, linked.wallet);
      const [status, error] = REFUSALS[linked.outcome];
      return failure(status, linked.outcome, error);
    }),
  );
  app.get(
    "/api/v1/wallets",
    withWallets("read", async ({ account }, _call, key) =>
      json(200, { wallets: await listWallets(database, account, key) }),
    ),
  );
  app.delete(
    "/api/v1/wallets/:id",
    route("change", async ({ account }, { req }) => {
      const given = req.param("id") ?? "";
      const id = /^[1-9][0-9]{0,9}$/.test(given) ? Number(given) : Number.POSITIVE_INFINITY;
      return id <= MAX_INTEGER && (await unlinkWallet(database, account, id))
        ? new Response(null, { status: 204 })
        : failure(404, "no-such-wallet", "The account has no wallet with that id.");
    }),
  );
  app.delete(
    "/api/v1/session",
    route("change", async ({ credential }) => {
      if (credential.kind === "wallet") await revokeWalletSession(database, credential.session);
      else await revokeKey(database, credential.hash);
      return new Response(null, { status: 204 });
    }),
  );
  return app;
}

const BAD_SIGNATURE =
  "The signature must be 0x and 130 hexadecimal digits: r, s and v of a wallet with a key. Contract wallets are not supported.";

const REFUSALS = {
  unknown: [409, "This message is not open for this account: it was used, or was not created here."],
  expired: [409, "This message has expired. Request another one."],
  "other-wallet": [403, "This message was signed by another wallet than the one that it names."],
  elsewhere: [409, "This wallet belongs to another account. Unlink it there first."],
} as const;

function isChainId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= MAX_INTEGER;
}

/** In seconds: when an answer that may change is worth another request. */
const AGAIN_LATER = { "retry-after": "60" };

function claimAnswer(
  payment: { readonly chainId: number; readonly txHash: string },
  claimed: ClaimOutcome,
  log: (line: string) => void,
): Response {
  const { outcome } = claimed;
  if (outcome === "credited")
    return json(200, { ...payment, amountFula: Number(claimed.fula), isNew: claimed.isNew });
  if (outcome === "unconfirmed")
    return failure(
      409,
      outcome,
      `The chain has to add ${claimed.missing} more block(s) first.`,
      {},
      AGAIN_LATER,
    );
  if (outcome === "no-chain") {
    log(`claim: the node of chain ${payment.chainId} gives no usable answer: ${claimed.why}`);
    return failure(503, outcome, "The chain does not answer now. Try again later.", {}, AGAIN_LATER);
  }
  const [status, error] = CLAIM_REFUSALS[outcome];
  return failure(status, outcome, error);
}

const CLAIM_REFUSALS = {
  "unknown-chain": [400, "This master takes no deposits on that chain."],
  "no-transaction": [404, "The chain has no such transaction yet."],
  reverted: [409, "That transaction failed on the chain, so it has paid nothing."],
  "no-transfer": [404, "That transaction pays no FULA to the vault."],
  "too-small": [409, "That payment is below the minimum of 0.001 FULA."],
  "other-wallet": [403, "No wallet of this account has paid it. Link the wallet that has, then claim again."],
  "settled-elsewhere": [409, "Another program has settled that payment before. Ask the operator."],
  "not-credited": [503, "The payment could not be credited. The operator has it in a list: ask for it."],
} as const;

/** The fields of a JSON object; none for any other value. */
function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? { ...(value as Readonly<Record<string, unknown>>) }
    : {};
}

/** Reads `limit` and `before`. Null if one of them is wrong or given twice. */
function readPage(url: string): { readonly before: HistoryCursor | null; readonly limit: number } | null {
  const query = new URLSearchParams(url.split("?", 2)[1] ?? "");
  if (query.getAll("limit").length > 1 || query.getAll("before").length > 1) return null;
  const given = query.get("limit") ?? String(DEFAULT_PAGE);
  const limit = Number(given);
  if (!/^[1-9][0-9]{0,3}$/.test(given) || limit > MAX_PAGE) return null;
  const text = query.get("before");
  if (text === null) return { before: null, limit };
  const before = readCursor(text);
  return before === null ? null : { before, limit };
}

/** A time alone means: before that instant. */
function readCursor(text: string): HistoryCursor | null {
  const [, created = "", seconds = "", id = String(MIN_ID)] =
    /^((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,6})?Z)(?:,(-?[1-9]\d{0,9}))?$/.exec(text) ?? [];
  const at = new Date(`${seconds}Z`);
  // February 30 is March 2 for Date; Postgres has no year 0.
  const isDate =
    !Number.isNaN(at.getTime()) && at.toISOString().startsWith(seconds) && at.getUTCFullYear() > 0;
  return isDate && Number(id) <= MAX_INTEGER && Number(id) >= MIN_ID ? { created, id: Number(id) } : null;
}

function tooMany(seconds: number): Response {
  const error = `Too many requests of this account. Try again in ${seconds} s.`;
  return failure(429, "too-many", error, {}, { "retry-after": String(seconds) });
}
