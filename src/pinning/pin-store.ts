import type { PostgresPool } from "../database/postgres.ts";
import { contentOf, type ParsedCid, parseCid, spellingsOf } from "./content-id.ts";
import { type GateVerdict, mayStore } from "./credit-gate.ts";
import type { PinBody } from "./pin-body.ts";
import { replacingId } from "./pin-owner.ts";
import type { PinFilter } from "./pin-filter.ts";
import {
  ADD,
  CHECK,
  FIND,
  listStatement,
  type NewRequest,
  REMOVE,
  REPLACE,
  type Sender,
  type StatusRow,
} from "./pin-sql.ts";
import { type PinStatus, readStatus } from "./pin-status.ts";

type Database = Pick<PostgresPool, "query">;

/** What bounds a new request. */
export interface PinLimits {
  readonly freeTierBytes: number;
  /** How many requests that are not pinned yet an account without a balance may have. Null: any number. */
  readonly maxPending: number | null;
  /** After so many seconds, a pin whose content nobody has becomes failed. */
  readonly deadlineSeconds: number;
}

/** A new request, with what the service adds to it. */
export interface NewPin {
  readonly requestid: string;
  readonly pin: PinBody;
  readonly delegates: readonly string[];
}

/** Why a request was not accepted. */
export type PinRefusal =
  /** The token is not valid. */
  | { readonly kind: "unknown-sender" }
  | { readonly kind: "blocked"; readonly mode: "block" | "redirect" }
  | { readonly kind: "no-credit"; readonly verdict: Exclude<GateVerdict, "open"> }
  /** The request to replace or to delete is not active, or is another account's. */
  | { readonly kind: "not-found" };

export type PinOutcome = { readonly kind: "accepted"; readonly status: PinStatus } | PinRefusal;

/** A page of an account's requests. */
export interface PinPage {
  /** How many requests the filter finds in all. */
  readonly count: number;
  readonly results: readonly PinStatus[];
}

/** The longest that a statement of a request may take. */
const TIMEOUT_MS = 15_000;
const options = (name: string) => ({ name, timeoutMs: TIMEOUT_MS });

/** Accepts a request to pin, with its work for the queue, or says why not. One statement. */
export async function addPin(
  database: Database,
  sender: Sender,
  added: NewPin,
  limits: PinLimits,
): Promise<PinOutcome> {
  const values = [...sender, ...newRequest(added, limits)];
  const [row] = await database.query<AddedRow>(ADD, values, options("pins-add"));
  return row === undefined
    ? { kind: "unknown-sender" }
    : outcomeOf({ ...row, status: "queued", info: null }, added);
}

/** The account that may add a request now, for this content if it is known already, or why it may not. */
export async function checkPin(
  database: Database,
  sender: Sender,
  cid: ParsedCid | null,
  { freeTierBytes, maxPending }: PinLimits,
): Promise<{ readonly kind: "open"; readonly account: string } | PinRefusal> {
  const values = [...sender, cid === null ? null : contentOf(cid), freeTierBytes, maxPending];
  const [row] = await database.query<CheckedRow>(CHECK, values, options("pins-check"));
  if (row === undefined) return { kind: "unknown-sender" };
  if (row.blocked !== null) return { kind: "blocked", mode: row.blocked };
  if (row.verdict !== "open") return { kind: "no-credit", verdict: row.verdict };
  return { kind: "open", account: row.account };
}

/** The sender's requests that a filter finds, newest first. Null if the sender is not known. One statement. */
export async function listPins(
  database: Database,
  sender: Sender,
  filter: PinFilter,
): Promise<PinPage | null> {
  const { sql, values, name } = listStatement(sender, filter);
  const rows = await database.query<ListRow>(sql, values, {
    timeoutMs: TIMEOUT_MS,
    ...(name === undefined ? {} : { name }),
  });
  const [first] = rows;
  if (first === undefined) return null;
  return {
    count: first.total,
    results: first.requestid === null ? [] : rows.map((row) => readStatus(row as StatusRow)),
  };
}

/** One request of the sender. */
export async function findPin(
  database: Database,
  sender: Sender,
  requestid: string,
): Promise<{ readonly account: string; readonly status: PinStatus } | PinRefusal> {
  const [row] = await database.query<FoundRow>(FIND, [...sender, requestid], options("pins-find"));
  if (row === undefined) return { kind: "unknown-sender" };
  if (row.requestid === null) return { kind: "not-found" };
  return { account: row.account, status: readStatus(row as StatusRow) };
}

/** Deletes one request of the sender. If another active request of the sender has the content, it gets the size. */
export async function removePin(
  database: Database,
  sender: Sender,
  requestid: string,
  { deadlineSeconds }: Pick<PinLimits, "deadlineSeconds">,
): Promise<{ readonly kind: "deleted" } | PinRefusal> {
  const found = await findPin(database, sender, requestid);
  if ("kind" in found) return found;
  const values = [found.account, requestid, spellings(found.status.pin.cid), deadlineSeconds];
  const gone = await database.query(REMOVE, values, options("pins-remove"));
  return { kind: gone.length > 0 ? "deleted" : "not-found" };
}

/** Replaces one request of the sender by a new one. Of two replacements of one request at once, one is accepted. */
export async function replacePin(
  database: Database,
  [tokenHash, account]: Sender,
  requestid: string,
  added: NewPin,
  limits: PinLimits,
): Promise<PinOutcome> {
  const found = await findPin(database, [tokenHash, account], requestid);
  if ("kind" in found) return found;
  const { cid } = found.status.pin;
  // A failed one is tried anew, whatever the cluster has by now.
  const takesOver = cid === added.pin.cid.text && found.status.status !== "failed";
  const replacing = takesOver ? replacingId(added.requestid, requestid) : added.requestid;
  const request = { ...added, requestid: replacing };
  const old = [requestid, spellings(cid)];
  const values = [tokenHash, found.account, ...newRequest(request, limits), ...old];
  const [row] = await database.query<ReplacedRow>(REPLACE, values, options("pins-replace"));
  return row?.found === true ? outcomeOf(row, request) : { kind: "not-found" };
}

interface CheckedRow extends Record<string, unknown> {
  readonly account: string;
  readonly blocked: "block" | "redirect" | null;
  readonly verdict: GateVerdict;
}

interface AddedRow extends Record<string, unknown> {
  readonly blocked: "block" | "redirect" | null;
  readonly verdict: GateVerdict | null;
  readonly created: string | null;
}

interface ReplacedRow extends AddedRow {
  readonly found: boolean;
  readonly status: string | null;
  readonly info: string | null;
}

type OrNull<Row> = { readonly [Key in keyof Row]: Row[Key] | null };

interface ListRow extends OrNull<StatusRow> {
  readonly total: number;
}

interface FoundRow extends OrNull<StatusRow> {
  readonly account: string;
}

function outcomeOf(
  row: AddedRow & { readonly status: string | null; readonly info: string | null },
  { requestid, pin, delegates }: NewPin,
): PinOutcome {
  const { blocked, verdict, created, status, info } = row;
  if (blocked !== null) return { kind: "blocked", mode: blocked };
  if (verdict !== null && verdict !== "open") return { kind: "no-credit", verdict };
  if (created === null || status === null)
    throw new Error("the statement of a new request returned no request");
  const { cid, name, origins, meta } = pin;
  return {
    kind: "accepted",
    status: readStatus({
      requestid,
      status,
      created,
      cid: cid.text,
      name,
      origins: JSON.stringify(origins),
      meta,
      delegates: JSON.stringify(delegates),
      info,
    }),
  };
}

/** True if the account may store more now. The queue asks it again before it sends a pin. */
export async function mayStoreMore(
  database: Pick<PostgresPool, "query">,
  account: string,
  freeTierBytes: number,
): Promise<boolean> {
  const [row] = await database.query<{ open: boolean }>(MAY_STORE, [account, freeTierBytes], {
    name: "may-store-more",
  });
  return row?.open === true;
}

const MAY_STORE = `SELECT ${mayStore("$1::text", "$2::bigint")} AS open`;

function newRequest({ requestid, pin, delegates }: NewPin, limits: PinLimits): NewRequest {
  const { cid, name, origins, meta } = pin;
  return [
    requestid,
    cid.text,
    name,
    name.toLowerCase(),
    JSON.stringify(origins),
    meta,
    JSON.stringify(delegates),
    contentOf(cid),
    limits.freeTierBytes,
    limits.maxPending,
    limits.deadlineSeconds,
  ];
}

/** The spellings of a stored CID. A text that is not a CID, which another program stored, has only itself. */
function spellings(cid: string): readonly string[] {
  const parsed = parseCid(cid);
  return parsed === null ? [cid] : [...new Set([...spellingsOf(parsed), cid])];
}
