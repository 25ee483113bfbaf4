import * as z from "zod";
import type { CreditEntry, Credits } from "../../accounts/credits.ts";
import { ADDRESS, type Challenge, type LinkedWallet } from "../../accounts/wallets.ts";
import { ANNOUNCEMENT, RELEASE, TRUST } from "../../federation/announcement-reader.ts";
import { MAX_NAME_CHARACTERS, NODE_NAME } from "../../settings/node-name.ts";
import type { StorageReport } from "../../settings/quota.ts";
import { type Answers, named, openApiDocument, type Operation, type Operations } from "./document.ts";
import { PINS } from "./pinning-routes.ts";
import { all, amount, count, DOCUMENT, HEALTH, limitOf, time } from "./schemas.ts";

const failure = named("Failure", z.object({ error: z.string().min(1), code: z.string().min(1) }));
const report = named(
  "StorageReport",
  z.object({
    currentStorageBytes: amount,
    freeTierBytes: amount,
    paidStorageBytes: amount,
    totalAvailableBytes: amount,
    balanceFula: z.number(),
    monthlyBurnRate: amount,
    isConsuming: z.boolean(),
    canUpload: z.boolean(),
    isSuspended: z.boolean(),
  }) satisfies z.ZodType<StorageReport>,
);
const credits = named(
  "Credits",
  z.object({
    balanceFula: z.number(),
    totalDepositedFula: z.number(),
    totalDeductedFula: z.number(),
    totalBonusReceivedFula: z.number(),
    suspendedAt: time.nullable(),
    lastDeductionAt: time.nullable(),
    isSuspended: z.boolean(),
    currentStorageBytes: amount,
    freeTierBytes: amount,
    hourlyBurnRate: amount,
    monthlyBurnRate: amount,
    hoursLeft: count.nullable(),
  }) satisfies z.ZodType<Credits>,
);
const entry = z.object({
  id: z.int(),
  type: z.string().nullable(),
  amountFula: z.number(),
  balanceAfterFula: z.number(),
  reference: z.string().nullable(),
  created: time,
}) satisfies z.ZodType<CreditEntry>;
const history = named("CreditHistory", z.object({ entries: z.array(entry), next: z.string().nullable() }));
const cursor = z.string().meta({ format: "history-cursor" });
const wallet = named(
  "Wallet",
  z.object({
    id: z.int(),
    address: z.string().regex(ADDRESS).nullable(),
    chainId: z.int(),
    isVerified: z.boolean(),
    connectedAt: time,
  }) satisfies z.ZodType<LinkedWallet>,
);
const challenge = named(
  "WalletChallenge",
  z.object({ message: z.string(), expiresAt: time }) satisfies z.ZodType<Challenge>,
);
const whole = z.int().min(1).max(2_147_483_647);
const wanted = named(
  "WalletWanted",
  z.strictObject({ address: z.string().regex(ADDRESS), chainId: whole.default(8_453) }),
);

const claim = named(
  "Claim",
  z.strictObject({ txHash: z.string().regex(/^0x[0-9a-fA-F]{64}$/), chainId: whole }),
);
const claimed = named(
  "Claimed",
  z.object({
    txHash: z.string(),
    chainId: z.int(),
    amountFula: z.number().describe("What the account got by this transaction, in all."),
    isNew: z.boolean().describe("False if it had been credited before."),
  }),
);

/** What a route may answer that needs an account. */
const ACCOUNT = all(failure, {
  400: "The request is not valid.",
  401: "The API key is missing, unknown, revoked or expired.",
  403: "The API key is only good for uploading blocks.",
  429: "Too many requests of this account.",
  503: "The database does not respond, or the master has no ENCRYPTION_KEY.",
});
const BODY = { 408: "The body is too slow.", 413: "The body is too long.", 415: "The body is not JSON." };
const KEY = ["token"] as const;

const ACCOUNTS: Operations = {
  "GET /api/v1/storage": {
    id: "getStorage",
    summary: "How much the account stores, and whether it may upload",
    description: "With an API key that is only good for uploading the answer has only `canUpload`.",
    credentials: KEY,
    answers: {
      200: ["The usage.", named("Storage", z.union([report, z.object({ canUpload: z.boolean() })]))],
      ...all(failure, {
        400: "Two Authorization headers.",
        401: "The API key is missing, unknown, revoked or expired.",
        503: "The database does not respond.",
      }),
    },
  },
  "GET /api/v1/credits": {
    id: "getCredits",
    summary: "The balance, and how fast it is used",
    credentials: KEY,
    answers: { 200: ["The credits.", credits], ...ACCOUNT },
  },
  "GET /api/v1/credits/history": {
    id: "getCreditHistory",
    summary: "Changes of the balance, the newest first",
    credentials: KEY,
    query: {
      before: cursor.describe("A time in UTC, or `next` of the page before."),
      limit: limitOf(100, 1_000),
    },
    answers: { 200: ["A page.", history], ...ACCOUNT },
  },
  "POST /api/v1/credits/claim": {
    id: "claimCredit",
    summary: "Credit a payment to the vault that was not found yet",
    description:
      "The chain decides: of the request, only the transaction's hash is used. Every account gets what its own linked wallets have paid.",
    credentials: KEY,
    body: claim,
    answers: {
      200: ["The payment is credited.", claimed],
      ...ACCOUNT,
      ...all(failure, {
        ...BODY,
        403: "The API key is only good for uploading blocks, or no wallet of the account has paid.",
        404: "The chain has no such transaction, or it pays nothing to the vault.",
        409: "The payment is not confirmed yet, failed, is too small, or was settled by another program.",
        503: "The database or the chain does not respond, or the master takes no deposits.",
      }),
    },
  },
  "GET /api/v1/wallets": {
    id: "getWallets",
    summary: "The wallets of the account",
    credentials: KEY,
    answers: {
      200: ["The wallets.", named("Wallets", z.object({ wallets: z.array(wallet) }))],
      ...ACCOUNT,
    },
  },
  "POST /api/v1/wallets/challenge": {
    id: "createWalletChallenge",
    summary: "Get the message that a wallet signs to be linked",
    credentials: KEY,
    body: wanted,
    answers: {
      201: ["Sign the message within ten minutes.", challenge],
      ...ACCOUNT,
      ...all(failure, { ...BODY, 409: "The account has too many wallets." }),
    },
  },
  "POST /api/v1/wallets": {
    id: "linkWallet",
    summary: "Link a wallet by the signed message",
    credentials: KEY,
    body: named("WalletLink", z.strictObject({ message: z.string(), signature: z.string() })),
    answers: {
      200: ["It was linked before.", wallet],
      201: ["It is linked.", wallet],
      ...ACCOUNT,
      ...all(failure, {
        ...BODY,
        403: "The key is only good for uploading, or another wallet signed.",
        409: "The message is not open, or the wallet belongs to another account.",
      }),
    },
  },
  "DELETE /api/v1/wallets/{id}": {
    id: "unlinkWallet",
    summary: "Unlink a wallet",
    credentials: KEY,
    path: { id: whole },
    answers: {
      204: ["It is unlinked."],
      ...ACCOUNT,
      ...all(failure, { 404: "The account has no such wallet." }),
    },
  },
  "DELETE /api/v1/session": {
    id: "revokeSession",
    summary: "Revoke the credential that the request carries",
    credentials: KEY,
    answers: { 204: ["It is revoked."], ...ACCOUNT },
  },
};

const nodeFailure = named(
  "NodeFailure",
  z.object({
    ...failure.shape,
    problems: z.array(z.string()).exactOptional(),
    suggestions: z.array(z.string()).exactOptional(),
    quota: count.exactOptional(),
    masterTime: time.exactOptional(),
    registration: z.enum(["invite", "open"]).exactOptional(),
    pool: z.string().exactOptional(),
    refusal: z.object({ code: z.string(), error: z.string() }).nullable().exactOptional(),
  }),
);
const pool = z.string();
const node = {
  name: z.string(),
  peerId: z.string(),
  addresses: z.array(z.string()),
  reservedAt: time,
  time,
  signature: z.string(),
};
const nodes = z.object({ pool, nodes: z.array(z.object(node)), next: z.string().nullable() });
const name = z.string().max(MAX_NAME_CHARACTERS).regex(NODE_NAME);
const announced = named(
  "Announced",
  z.object({
    outcome: z.enum(["Reserved", "AlreadyOwned"]),
    reservation: z.string(),
    pool,
    name: z.string(),
    peerId: z.string(),
  }),
);
const NO_POOL = { 503: "The database does not respond, or the master has no pool." };
const SIGNED: Answers = all(nodeFailure, {
  ...BODY,
  ...NO_POOL,
  400: "The message is not valid.",
  401: "The signature is not valid.",
  403: "No invite lets this key have the name, or it has too many names.",
  409: "The name is taken, or the message is too old or for another pool.",
  429: "Too many messages from this address.",
});

const NODES: Operations = {
  "GET /api/v1/nodes": {
    id: "getNodes",
    summary: "The nodes of the pool",
    credentials: KEY,
    query: { after: name.describe("Begin after this name."), limit: limitOf(100, 1_000) },
    answers: {
      200: ["A page.", named("Nodes", nodes)],
      ...all(failure, {
        ...NO_POOL,
        400: "The query is not valid.",
        401: "The API key is missing, unknown, revoked or expired.",
        403: "The API key is only good for uploading blocks.",
      }),
    },
  },
  "POST /api/v1/nodes": {
    id: "announceNode",
    summary: "Announce a node",
    description: "Its own key signs the message, which is its credential.",
    credentials: ["invite"],
    body: named("Announcement", ANNOUNCEMENT),
    answers: {
      200: ["The key had the name.", announced],
      201: ["The key has the name now.", announced],
      ...SIGNED,
      ...all(nodeFailure, {
        500: "The data of this name is inconsistent. The operator of the master must repair it.",
      }),
    },
  },
  "GET /api/v1/nodes/{name}": {
    id: "getNode",
    summary: "One node of the pool",
    description:
      "With `pool`, the answer about a free name says whether an announcement would be refused, and the owner of a name learns whether its invite is unused, and which masters it last said to trust.",
    credentials: ["invite"],
    path: { name },
    query: { pool, peer: z.string().describe("The peer id that would announce it.") },
    answers: {
      200: [
        "The node.",
        named(
          "Node",
          z.object({
            pool,
            ...node,
            trusts: z.array(z.string()).nullable().exactOptional(),
            invite: z.literal("unused").exactOptional(),
          }),
        ),
      ],
      ...all(nodeFailure, {
        ...NO_POOL,
        404: "No node has that name.",
        409: "This master manages the names of another pool.",
      }),
    },
  },
  "DELETE /api/v1/nodes/{name}": {
    id: "releaseNode",
    summary: "Release the name of a node",
    description: "The key of the node signs the message, which is its credential.",
    credentials: [],
    path: { name },
    body: named("Release", RELEASE),
    answers: {
      200: [
        "The name is free.",
        named("Released", z.object({ outcome: z.literal("Released"), pool, name: z.string() })),
      ],
      ...SIGNED,
    },
  },
  "POST /api/v1/nodes/{name}/trust": {
    id: "stateTrust",
    summary: "Say which masters a node trusts",
    description:
      "The peer ids of their ipfs-clusters. The key of the node signs the message, which is its credential.",
    credentials: [],
    path: { name },
    body: named("TrustStatement", TRUST),
    answers: {
      200: [
        "It is recorded.",
        named("TrustStated", z.object({ outcome: z.literal("Recorded"), pool, name: z.string() })),
      ],
      ...SIGNED,
      ...all(nodeFailure, { 403: "The name does not belong to this key." }),
    },
  },
  "GET /api/v1/pool": {
    id: "getPool",
    summary: "The pool, and how many pins its master has",
    credentials: [],
    answers: {
      200: ["The pool.", named("Pool", z.object({ pool, peerId: z.string(), pins: count, countedAt: time }))],
      ...all(failure, { 503: "The pins can't be counted now, or the master has no pool." }),
    },
  },
};

const short = named("StorageHealth", z.object({ status: z.enum(["ok", "degraded"]), timestamp: time }));
const CLIENTS: Operations = { "GET /api/v1/openapi.json": { id: "getDocument", ...DOCUMENT } };

/** What the storage API serves to programs of its machine: `GET /openapi.json`. */
export function storageDocument(version: string): object {
  return openApiDocument(
    { title: "Storage API of a Fula master", description: "Accounts, and the nodes of the pool.", version },
    {
      ...ACCOUNTS,
      ...NODES,
      ...HEALTH,
      "GET /api/health": {
        id: "getApiHealth",
        summary: "How the service stands, as upstream's service says it",
        credentials: [],
        answers: { 200: ["Everything works.", short], 503: ["A check fails.", short] },
      },
      ...CLIENTS,
      "GET /openapi.json": { id: "getOwnDocument", ...DOCUMENT },
    },
  );
}

/** What the edge serves to everybody, of both services: `GET /api/v1/openapi.json`. */
export function clientsDocument(version: string): object {
  const pins = Object.entries(PINS).map(([key, operation]): [string, Operation] => [
    key,
    { ...operation, credentials: KEY },
  ]);
  return openApiDocument(
    {
      title: "Fula master",
      description: "The IPFS Pinning Service API 1.0, accounts, and the nodes of the pool.",
      version,
    },
    { ...Object.fromEntries(pins), ...ACCOUNTS, ...NODES, ...CLIENTS },
  );
}
