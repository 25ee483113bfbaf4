import type { StatusRow } from "./pin-sql.ts";

/** A request as its sender sees it (IPFS Pinning Service API 1.0, schema PinStatus). */
export interface PinStatus {
  readonly requestid: string;
  readonly status: string;
  readonly created: string;
  readonly pin: {
    readonly cid: string;
    readonly name?: string;
    readonly origins: readonly string[];
    readonly meta: Readonly<Record<string, unknown>>;
  };
  readonly delegates: readonly string[];
  readonly info: Readonly<Record<string, unknown>>;
}

/**
 * Reads a row. Its lists and objects are JSON in text columns, which other programs write too: what is not JSON of the right
 * kind counts as empty, so that one such row does not make a whole list fail.
 */
export function readStatus(row: StatusRow): PinStatus {
  const { requestid, status, created, cid, name } = row;
  return {
    requestid,
    status,
    created,
    pin: {
      cid,
      ...(name === null || name === "" ? {} : { name }),
      origins: readList(row.origins),
      meta: readObject(row.meta),
    },
    delegates: readList(row.delegates),
    info: readObject(row.info),
  };
}

function readList(text: string | null): readonly string[] {
  if (text === null || text === "[]") return [];
  const value = parse(text);
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}

function readObject(text: string | null): Readonly<Record<string, unknown>> {
  if (text === null || text === "{}") return {};
  const value = parse(text);
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
