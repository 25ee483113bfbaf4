import type { PostgresPool } from "../database/postgres.ts";
import { databaseErrorOf } from "../database/session.ts";
import { contentOf, type ParsedCid, parseCid, spellingsOf } from "./content-id.ts";
import { type GateVerdict, mayStore } from "./credit-gate.ts";
import type { PinBody } from "./pin-body.ts";
import { replacingId } from "./pin-owner.ts";
import type { PinFilter } from "./pin-filter.ts";
import {
  ADD,
  ADD_SEVERAL,
  CHECK,
  FIND,
  listStatement,
  type NewRequest,
  type RequestColumns,
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

/** A request that waits for its statement. */
export interface AskedPin {
  readonly sender: Sender;
  readonly added: NewPin;
}

/**
 * Accepts several requests in one statement, which costs little more than one request does: those that need no look at what
 * their account stores. Null for each of the others, and for all if PostgreSQL refuses the values of one: addPin says more.
 */
export async function addPins(
  database: Database,
  asked: readonly AskedPin[],
  { deadlineSeconds }: Pick<PinLimits, "deadlineSeconds">,
): Promise<readonly (PinOutcome | null)[]> {
  const senders = new Map(asked.map(({ sender }) => [JSON.stringify(sender), sender]));
  const places = new Map([...senders.keys()].map((key, index) => [key, index + 1]));
  const requests = asked.map(({ added }) => requestColumns(added));
  const values = [
    [...senders.values()].map(([tokenHash]) => tokenHash),
    [...senders.values()].map(([, account]) => account),
    asked.map(({ sender }) => places.get(JSON.stringify(sender))),
    ...([0, 1, 2, 3, 4, 5, 6] as const).map((column) => requests.map((request) => request[column])),
    asked.map(({ added }) => contentOf(added.pin.cid)),
    asked.map((_, nth) => nth),
    deadlineSeconds,
  ];
  const rows = await database
    .query<{ requestid: string; created: string }>(ADD_SEVERAL, values, options("pins-add-several"))
    .catch((thrown: unknown) => {
      if (/^2[123]/.test(databaseErrorOf(thrown)?.code ?? "")) return [];
      throw thrown;
    });
  const created = new Map(rows.map((row) => [row.requestid, row.created]));
  return asked.map(({ added }) => {
    const at = created.get(added.requestid);
    if (at === undefined) return null;
    return outcomeOf({ blocked: null, verdict: "open", created: at, status: "queued", info: null }, added);
  });
}

/** Accepts a request to pin, or says why not. */
export type AcceptPin = (sender: Sender, added: NewPin) => Promise<PinOutcome>;

interface Waiting extends AskedPin {
  readonly resolve: (outcome: PinOutcome | Promise<PinOutcome>) => void;
  readonly reject: (thrown: unknown) => void;
}

/** How many statements for new requests run at once, and how many requests one of them takes. */
const MOST_STATEMENTS = 2;
const MOST_REQUESTS = 64;
/** A statement that takes longer, perhaps because it waits for a lock, holds up no other request. */
const LONG_MS = 25;

/**
 * Accepts requests as they come. What arrives while statements run shares the next one, with one commit for all. Each
 * request is answered once that commit is on the disk. A request that comes alone has its statement at once.
 */
export function createPinIntake(database: Database, limits: PinLimits): AcceptPin {
  const waiting: Waiting[] = [];
  let running = 0;
  let isDue = false;

  const alone = ({ sender, added }: AskedPin) => addPin(database, sender, added, limits);

  async function take(asked: readonly Waiting[]): Promise<void> {
    const [first] = asked;
    if (first === undefined) return;
    if (asked.length === 1) {
      await alone(first).then(first.resolve, first.reject);
      return;
    }
    try {
      const outcomes = await addPins(database, asked, limits);
      asked.forEach((one, index) => one.resolve(outcomes[index] ?? alone(one)));
    } catch (thrown) {
      for (const one of asked) one.reject(thrown);
    }
  }

  function begin(): void {
    isDue = false;
    while (running < MOST_STATEMENTS && waiting.length > 0) {
      running += 1;
      let isCounted = true;
      const ended = (): void => {
        if (!isCounted) return;
        isCounted = false;
        clearTimeout(long);
        running -= 1;
        begin();
      };
      const long = setTimeout(ended, LONG_MS);
      void take(waiting.splice(0, MOST_REQUESTS)).then(ended);
    }
  }

  return (sender, added) =>
    new Promise((resolve, reject) => {
      waiting.push({ sender, added, resolve, reject });
      // After all requests that have arrived by now.
      if (!isDue) setImmediate(begin);
      isDue = true;
    });
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

function newRequest(added: NewPin, limits: PinLimits): NewRequest {
  return [
    ...requestColumns(added),
    contentOf(added.pin.cid),
    limits.freeTierBytes,
    limits.maxPending,
    limits.deadlineSeconds,
  ];
}

function requestColumns({ requestid, pin, delegates }: NewPin): RequestColumns {
  const { cid, name, origins, meta } = pin;
  return [
    requestid,
    cid.text,
    name,
    name.toLowerCase(),
    JSON.stringify(origins),
    meta,
    JSON.stringify(delegates),
  ];
}

/** The spellings of a stored CID. A text that is not a CID, which another program stored, has only itself. */
function spellings(cid: string): readonly string[] {
  const parsed = parseCid(cid);
  return parsed === null ? [cid] : [...new Set([...spellingsOf(parsed), cid])];
}
