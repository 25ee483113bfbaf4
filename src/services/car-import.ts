import { Busboy, type BusboyFileStream, type BusboyHeaders, type BusboyInstance } from "@fastify/busboy";
import type { IncomingMessage } from "node:http";
import { feeSql, tariffOf } from "../billing/fee.ts";
import { findMissing, KuboRefusal, openKuboImport } from "../cluster/kubo-car.ts";
import { readSpace } from "../cluster/kubo-space.ts";
import { type Log, messageOf } from "../errors.ts";
import type { Blake3 } from "../ingest/blake3.ts";
import { type Claim, Space } from "../ingest/space.ts";
import type { HttpReader } from "../machine/http.ts";
import { HttpFailure } from "../machine/http-client.ts";
import { CarProblem, hashSha2, openCar } from "../pinning/car.ts";
import { LIMITS, readPinBody } from "../pinning/pin-body.ts";
import type { Sender } from "../pinning/pin-sql.ts";
import { newRequestId } from "../pinning/pin-owner.ts";
import { addPin, checkPin } from "../pinning/pin-store.ts";
import type { Pricing } from "../settings/quota.ts";
import { countOf } from "../units.ts";
import { outcomeReply, type PinsDeps, type PinsHandler, refusalReply, refuse } from "./pins-routes.ts";

/** What an import needs. */
export interface CarImportDeps extends Pick<PinsDeps, "pool" | "delegates" | "limits"> {
  readonly http: HttpReader;
  readonly log: Log;
  readonly kuboUrl: string;
  readonly maxBytes: number;
  /** For how many days the account's balance must last, with the CAR. 0 days: no such condition. */
  readonly minBalance: Pricing & { readonly days: number };
  /** How long the client, or kubo, may send or take nothing. */
  readonly idleMs?: number;
}

/** Imports at once: in all, and of one account. */
const MOST = 4;
const MOST_OF_ONE = 2;
/** As kubo and Bitswap take them. */
const MAX_BLOCK_BYTES = 2_097_152;
const MAX_BLOCKS = 250_000;
const IDLE_MS = 60_000;
/** What is around the file in the body. */
const MULTIPART_BYTES = 65_536;
/** How long it is looked whether the master's kubo has the whole DAG. */
const COMPLETE_TIMEOUT_MS = 60_000;
const CONNECT_TIMEOUT_MS = 5_000;
const RETRY_SECONDS = 10;
const BLAKE3 = 0x1e;
/** What kubo says of a block that is not what its codec says. Of anything else, the CAR is not the cause. */
const BAD_BLOCK =
  /decod|unmarshal|protobuf|cbor|dag-?pb|malformed|invalid|varint|unexpected EOF|content integrity/i;

const LINGER_MS = 2_000;
/** An import leaves so much of the disk under kubo free: others write there too. */
const DISK_RESERVE_BYTES = 1_000_000_000;

/** How long such a request may take in all. */
export const IMPORT_TIMEOUT_MS = 3_600_000;

/**
 * `POST /pins/import/car`: a form with a CAR in the part `file`, and a `name` for the pin. Its blocks are checked here, go to
 * the master's kubo as they arrive, and are pinned nowhere; then its root becomes a request as in `POST /pins`. Who may not
 * pin, and content that is blocked, is refused before any block is stored. A CAR that is not right leaves no request: the
 * blocks before the fault stay in kubo without a pin, until kubo removes what nobody pins.
 */
export function createCarImport(deps: CarImportDeps): PinsHandler {
  const { pool, limits, maxBytes, minBalance } = deps;
  const running = new Map<string, number>();
  const space = new Space({
    // Only the disk counts: KUBO_STORAGE_MAX is not a limit of the master's own kubo.
    read: async () => {
      const reading = await readSpace(deps.http, deps.kuboUrl);
      return reading === null ? null : { ...reading, limitBytes: Number.MAX_SAFE_INTEGER };
    },
    reserveBytes: DISK_RESERVE_BYTES,
    now: () => performance.now(),
  });
  let blake3: Promise<Blake3> | null = null;
  async function answer(incoming: IncomingMessage, sender: Sender): Promise<Response> {
    const sizeBytes = Number(incoming.headers["content-length"] ?? maxBytes);
    if (sizeBytes > maxBytes + MULTIPART_BYTES)
      return refuse(413, "PAYLOAD_TOO_LARGE", `The CAR has more than ${maxBytes} bytes.`);
    if (!/^multipart\/form-data *;/i.test(incoming.headers["content-type"] ?? ""))
      return refuse(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be multipart/form-data.");
    const checked = await checkPin(pool, sender, null, limits);
    if (checked.kind !== "open") return refusalReply(checked);
    const { account } = checked;
    const mine = running.get(account) ?? 0;
    const all = [...running.values()].reduce((sum, one) => sum + one, 0);
    if (all >= MOST || mine >= MOST_OF_ONE) {
      const wait = { "retry-after": String(RETRY_SECONDS) };
      return refuse(429, "TOO_MANY_REQUESTS", "Too many CAR files are being imported.", wait);
    }
    running.set(account, mine + 1);
    let claim: Claim | null = null;
    try {
      if (!(await lasts(pool, account, sizeBytes, minBalance)))
        return refuse(
          402,
          "INSUFFICIENT_CREDITS",
          `The balance must last ${countOf(minBalance.days, "day")} with this CAR.`,
        );
      const claimed = await space.claim(sizeBytes);
      if (claimed.kind === "full")
        return refuse(507, "INSUFFICIENT_STORAGE", "The master has no space for this CAR now.");
      if (claimed.kind === "unknown") return notStored();
      claim = claimed.claim;
      blake3 ??= import("../ingest/blake3.ts").then(({ openBlake3 }) => openBlake3());
      return await importCar(incoming, sender, { ...deps, blake3: await blake3 });
    } finally {
      // How much of it kubo has stored is not known.
      claim?.settle(sizeBytes);
      const left = (running.get(account) ?? 1) - 1;
      if (left > 0) running.set(account, left);
      else running.delete(account);
    }
  }
  return async ({ env: { incoming } }, sender) => {
    try {
      return await answer(incoming, sender);
    } finally {
      discardRest(incoming);
    }
  };
}

async function importCar(
  incoming: IncomingMessage,
  sender: Sender,
  deps: CarImportDeps & { readonly blake3: Blake3 },
): Promise<Response> {
  const { pool, limits, http, log, kuboUrl, maxBytes, blake3, idleMs = IDLE_MS } = deps;
  const parser = openParser(incoming);
  if (parser === null) return refuse(400, "BAD_REQUEST", "The Content-Type has no valid boundary.");
  const upload = openUpload(incoming, parser, maxBytes + MULTIPART_BYTES, idleMs);
  const kubo = openKuboImport(kuboUrl, CONNECT_TIMEOUT_MS);
  upload.onFailure((reason) => kubo.abort(reason));
  try {
    const carLimits = { maxBytes, maxBlockBytes: MAX_BLOCK_BYTES, maxBlocks: MAX_BLOCKS };
    const { root, frames } = await openCar(await upload.file, carLimits, (code, bytes) =>
      code === BLAKE3 ? blake3.hash(bytes) : hashSha2(code, bytes),
    );
    const checked = await checkPin(pool, sender, root, limits);
    if (checked.kind !== "open") return outcomeReply(checked, { cid: root });
    await kubo.send(upload.watched(frames));
    const pin = readPinBody({ cid: root.text, name: await upload.name() });
    if ("problem" in pin) throw new CarProblem(pin.problem);
    const whole = await findMissing(http, kuboUrl, root.text, COMPLETE_TIMEOUT_MS);
    if (whole !== null && whole.missing !== null)
      throw new CarProblem(`The CAR is not complete: it has no block ${whole.missing}.`);
    const added = { requestid: newRequestId(), pin: pin.value, delegates: await deps.delegates() };
    return outcomeReply(await addPin(pool, sender, added, limits), pin.value);
  } catch (thrown) {
    return refuseFault(upload.failure() ?? thrown, log);
  } finally {
    upload.end();
  }
}

/** The client, or kubo, did nothing for too long. */
class Stalled extends Error {
  readonly by: "client" | "kubo";

  constructor(by: "client" | "kubo") {
    super(`the ${by} did nothing for too long`);
    this.by = by;
  }
}

/** Throws what is not a fault of the upload or of kubo. */
function refuseFault(fault: unknown, log: Log): Response {
  if (fault instanceof CarProblem)
    return fault.status === 413
      ? refuse(413, "PAYLOAD_TOO_LARGE", fault.message)
      : refuse(400, "BAD_REQUEST", fault.message);
  if (fault instanceof Stalled && fault.by === "client")
    return refuse(408, "REQUEST_TIMEOUT", "The CAR did not arrive in time.");
  if (fault instanceof KuboRefusal && BAD_BLOCK.test(fault.message))
    return refuse(400, "BAD_REQUEST", "A block of the CAR is not what the codec of its CID says.");
  if (!(fault instanceof Stalled || fault instanceof KuboRefusal || fault instanceof HttpFailure))
    throw fault;
  log(`a CAR could not be stored in kubo: ${messageOf(fault)}`, "warn");
  return notStored();
}

function notStored(): Response {
  const wait = { "retry-after": String(RETRY_SECONDS) };
  return refuse(503, "SERVICE_UNAVAILABLE", "The master's kubo did not store the CAR. Try again.", wait);
}

/** True if the balance pays for so many days of what the account stores, and of `moreBytes`. */
async function lasts(
  pool: Pick<PinsDeps["pool"], "query">,
  account: string,
  moreBytes: number,
  { days, ...pricing }: CarImportDeps["minBalance"],
): Promise<boolean> {
  if (days === 0) return true;
  const { freeBytes, unitsPerGibMonth } = tariffOf(pricing);
  const values = [freeBytes, unitsPerGibMonth, account, moreBytes, days * 24];
  const [row] = await pool.query<{ lasts: boolean }>(LASTS, values, { name: "import-lasts" });
  return row?.lasts === true;
}

const STORED = "((SELECT coalesce(sum(u.bytes), 0) FROM account_usage u WHERE u.account = $3) + $4::bigint)";
const LASTS = `
  SELECT coalesce((SELECT a.balance FROM account_credits a WHERE a.account = $3), 0)
    >= ${feeSql(STORED, { free: "$1", price: "$2" })} * $5::bigint AS lasts`;

/** A form that is being read. */
interface Upload {
  /** The CAR, as it arrives. */
  readonly file: Promise<BusboyFileStream>;
  /** The name for the pin, once the form has ended. */
  name(): Promise<string>;
  /** What kubo takes of the file. */
  watched(frames: AsyncIterable<Buffer>): AsyncIterable<Buffer>;
  onFailure(act: (reason: Error) => void): void;
  /** Why the form is not whole; null while it can still be. */
  failure(): Error | null;
  end(): void;
}

function openUpload(
  incoming: IncomingMessage,
  parser: BusboyInstance,
  maxBytes: number,
  idleMs: number,
): Upload {
  const failed: { reason: Error | null; readonly acts: ((reason: Error) => void)[] } = {
    reason: null,
    acts: [],
  };
  let waitsFor: "client" | "kubo" = "client";
  let received = 0;
  let name = "";
  const fail = (reason: Error): void => {
    if (failed.reason !== null) return;
    failed.reason = reason;
    for (const act of failed.acts) act(reason);
  };
  const notWhole = (): void => fail(new CarProblem("The body is not a whole form (multipart/form-data)."));
  const timer = setTimeout(() => fail(new Stalled(waitsFor)), idleMs);
  const count = (part: Buffer): void => {
    timer.refresh();
    received += part.length;
    if (received > maxBytes) fail(new CarProblem("The form is too large.", 413));
  };
  const leave = (): void => {
    if (!incoming.complete) fail(new CarProblem("The client disconnected before the form was complete."));
  };
  const file = new Promise<BusboyFileStream>((resolve, reject) => {
    failed.acts.push(reject);
    parser.once("file", (_field, stream) => {
      failed.acts.push((reason) => void stream.destroy(reason));
      stream.on("error", notWhole);
      resolve(stream);
    });
    parser.once("finish", () => reject(new CarProblem("The form has no part `file`.")));
  });
  const finished = new Promise<void>((resolve, reject) => {
    failed.acts.push(reject);
    parser.once("finish", resolve);
  });
  // Each is waited for later, or not at all if the other one fails.
  file.catch(() => {});
  finished.catch(() => {});
  parser.on("field", (field, value, _isNameCut, isCut) => {
    if (field !== "name") fail(new CarProblem("The form may only have the parts `file` and `name`."));
    if (isCut) fail(new CarProblem(`name must have at most ${LIMITS.name} characters.`));
    name = value;
  });
  for (const event of ["partsLimit", "filesLimit", "fieldsLimit"] as const)
    parser.on(event, () => fail(new CarProblem("The form has a part more than once.")));
  parser.on("error", notWhole);
  incoming.on("data", count).on("close", leave).pipe(parser);
  return {
    file,
    async name() {
      waitsFor = "client";
      timer.refresh();
      await finished;
      clearTimeout(timer);
      return name;
    },
    async *watched(frames) {
      for await (const frame of frames) {
        waitsFor = "kubo";
        yield frame;
        waitsFor = "client";
        timer.refresh();
      }
      waitsFor = "kubo";
    },
    onFailure: (act) => void failed.acts.push(act),
    failure: () => failed.reason,
    end() {
      clearTimeout(timer);
      incoming.off("data", count).off("close", leave).unpipe(parser);
    },
  };
}

function openParser(incoming: IncomingMessage): BusboyInstance | null {
  try {
    return new Busboy({
      headers: incoming.headers as BusboyHeaders,
      // Whatever the part says of itself: a client may give it no file name.
      isPartAFile: (field) => field === "file",
      limits: {
        files: 1,
        fields: 1,
        parts: 3,
        fieldSize: LIMITS.name * 4,
        headerPairs: 20,
        headerSize: 8_192,
      },
    });
  } catch {
    return null;
  }
}

/**
 * For a body that is not read to its end. Closed at once, the connection would be reset, and a client that is still sending
 * would not see the answer.
 */
function discardRest(incoming: IncomingMessage): void {
  if (incoming.complete) return;
  const end = setTimeout(() => incoming.socket.destroy(), LINGER_MS);
  incoming.once("close", () => clearTimeout(end)).once("end", () => clearTimeout(end));
  incoming.resume();
}
