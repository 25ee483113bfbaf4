import { OperatorError } from "../errors.ts";

/** The status of a pin that the pinset has, that kubo does not have, and that nothing fetches (ipfs-cluster, api/types.go). */
export const UNPINNED = "unexpectedly_unpinned";

/** The fields of a line of `/allocations` that a snapshot and a sweep need. What is stored is the line itself. */
export interface PinFacts {
  readonly cid: string;
  readonly type: string;
  readonly direct: boolean;
  /** -1: on every peer. 0: the line has no value. */
  readonly replicationMin: number;
  /** Ids of the cluster peers that must have a copy; empty if all peers must have one. */
  readonly allocations: readonly string[];
}

/**
 * Reads one line of `/allocations` or of a snapshot's body. Unknown fields and types are allowed.
 * Throws an OperatorError (unavailable) if the line is not a pin.
 */
export function readPinLine(line: string): PinFacts {
  const pin = parseLine(line);
  const cid = pin["cid"];
  const type = pin["type"];
  const replicationMin = pin["replication_factor_min"];
  const allocations = pin["allocations"];
  if (typeof cid !== "string" || cid === "") throw notAPin(line, "it has no CID");
  return {
    cid,
    type: typeof type === "string" ? type : "",
    direct: pin["mode"] === "direct" || pin["max_depth"] === 0,
    replicationMin: typeof replicationMin === "number" ? replicationMin : 0,
    allocations: Array.isArray(allocations) ? allocations.map(String) : [],
  };
}

/** The lines of a block, without empty ones. By default every character is one byte (latin1). */
export function* linesOf(block: Buffer, encoding: "latin1" | "utf8" = "latin1"): Generator<string> {
  for (const line of block.toString(encoding).split("\n")) {
    if (line !== "") yield line;
  }
}

function parseLine(line: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw notAPin(line, "it is not JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw notAPin(line, "it is not an object");
  return value as Record<string, unknown>;
}

function notAPin(line: string, why: string, cause?: unknown): OperatorError {
  const start = line.length > 80 ? `${line.slice(0, 80)}…` : line;
  return new OperatorError({
    exit: "unavailable",
    what: `A line of the pinset cannot be read: ${why}: ${start}`,
    why: "A list with an unreadable line is not complete.",
    cause,
  });
}

/**
 * Everything of a pin that a REST call can restore, in one normal form: missing, null and empty mean the same.
 * The cluster itself sets what is not here (exact allocations, timestamp, reference).
 */
export interface PinOptions {
  readonly name: string;
  readonly mode: "recursive" | "direct";
  /** The number of copies; -1: everywhere, 0: no value. */
  readonly replicationMin: number;
  readonly replicationMax: number;
  readonly shardSize: number;
  /** By key, in any order. The cluster supports only strings; another value in a file cannot be sent. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly origins: readonly string[];
  /** RFC 3339, or null if the pin does not expire. */
  readonly expireAt: string | null;
}

/** A pin with all its fields, read from a line. */
export interface WholePin {
  readonly cid: string;
  /** `pin`, or one of the types that the cluster itself creates. */
  readonly type: string;
  readonly options: PinOptions;
  /** The peers that had a copy: a preference for the next allocation. */
  readonly allocations: readonly string[];
}

/** The fields of a pin that this tool knows. Other fields are kept in a snapshot, but no call can restore them. */
const KNOWN_FIELDS = new Set([
  ..."cid name mode type metadata origins allocations reference timestamp".split(" "),
  ..."replication_factor_min replication_factor_max shard_size expire_at max_depth".split(" "),
  ..."user_allocations pin_update".split(" "),
]);

/** Go's zero time means: no expiry. */
const NEVER = /^0001-01-01T00:00:00/;

/** Reads all fields of a pin from the JSON value of its line (api/types.go, Pin); null if it has no CID. */
export function readWholePin(value: unknown): WholePin | null {
  const pin = fieldsOf(value);
  const cid = readCid(pin["cid"]);
  if (cid === null) return null;
  const expireAt = text(pin["expire_at"]);
  return {
    cid,
    type: text(pin["type"]) === "" ? "pin" : text(pin["type"]),
    allocations: strings(pin["allocations"]),
    options: {
      name: text(pin["name"]),
      mode: isDirect(pin) ? "direct" : "recursive",
      replicationMin: number(pin["replication_factor_min"]),
      replicationMax: number(pin["replication_factor_max"]),
      shardSize: number(pin["shard_size"]),
      metadata: fieldsOf(pin["metadata"]),
      origins: strings(pin["origins"]),
      expireAt: expireAt === "" || NEVER.test(expireAt) ? null : expireAt,
    },
  };
}

/** The names of fields in a pin's JSON value that this tool does not know. */
export function unknownFields(value: unknown): readonly string[] {
  return Object.keys(fieldsOf(value)).filter((field) => !KNOWN_FIELDS.has(field));
}

/** A pin's CID in the API's format; old versions wrote `{"/": "bafy..."}`. */
function readCid(value: unknown): string | null {
  const cid = typeof value === "object" && value !== null ? fieldsOf(value)["/"] : value;
  return typeof cid === "string" && cid !== "" ? cid : null;
}

/** All options as one text: two pins have the same text if their options are the same. */
export function optionsKey(options: PinOptions): string {
  const { name, mode, replicationMin, replicationMax, shardSize, metadata, origins, expireAt } = options;
  const keys = Object.keys(metadata);
  if (keys.length > 1) keys.sort();
  return JSON.stringify([
    name,
    mode,
    replicationMin,
    replicationMax,
    shardSize,
    keys.flatMap((key) => [key, metadata[key]]),
    origins.toSorted(),
    expireAt === null ? 0 : Date.parse(expireAt),
  ]);
}

/** The differences between two pins, for people: `name: "a" -> "b"`. Values of metadata are not shown. */
export function describeDifferences(before: PinOptions, after: PinOptions): readonly string[] {
  const changes: string[] = [];
  const compare = (what: string, a: string, b: string): void => {
    if (a !== b) changes.push(`${what}: ${a} -> ${b}`);
  };
  compare("name", JSON.stringify(before.name), JSON.stringify(after.name));
  compare("mode", before.mode, after.mode);
  compare("copies", copies(before), copies(after));
  compare("shard size", String(before.shardSize), String(after.shardSize));
  compare("expires", before.expireAt ?? "never", after.expireAt ?? "never");
  compare("origins", before.origins.toSorted().join(" "), after.origins.toSorted().join(" "));
  const keys = new Set([...Object.keys(before.metadata), ...Object.keys(after.metadata)]);
  const changed = [...keys].filter((key) => before.metadata[key] !== after.metadata[key]);
  if (changed.length > 0) changes.push(`metadata: ${changed.sort().join(", ")}`);
  return changes;
}

function copies({ replicationMin, replicationMax }: PinOptions): string {
  return replicationMin === -1 ? "everywhere" : `${replicationMin} to ${replicationMax}`;
}

function isDirect(pin: Readonly<Record<string, unknown>>): boolean {
  return pin["mode"] === "direct" || pin["max_depth"] === 0;
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
