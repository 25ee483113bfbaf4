import { OperatorError } from "../errors.ts";

/** What a line of `/allocations` says that a snapshot and a sweep need; the line itself stays the record. */
export interface PinFacts {
  readonly cid: string;
  readonly type: string;
  readonly direct: boolean;
  /** -1: on every peer. 0: the line does not say. */
  readonly replicationMin: number;
  /** Ids of the cluster peers that ought to hold it; empty where it is everywhere. */
  readonly allocations: readonly string[];
}

/**
 * Reads one line of `/allocations` or of a snapshot's body. Unknown fields and types are no error.
 * Throws an OperatorError (unavailable) where the line is no pin.
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

/** The lines of a block, blank ones left out; every character is one byte (latin1), unless `utf8` is asked for. */
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
    throw notAPin(line, "it is no JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw notAPin(line, "it is no object");
  return value as Record<string, unknown>;
}

function notAPin(line: string, why: string, cause?: unknown): OperatorError {
  const start = line.length > 80 ? `${line.slice(0, 80)}…` : line;
  return new OperatorError({
    exit: "unavailable",
    what: `A line of the pinset can't be read: ${why}: ${start}`,
    why: "A list with one unreadable line is not complete.",
    cause,
  });
}
