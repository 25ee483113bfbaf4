import * as z from "zod";
import { OperatorError } from "../errors.ts";
import type { QuotaMode } from "./quota.ts";
import type { Environment } from "./services.ts";

/** What `serve ingest` is started with. */
export interface IngestSettings {
  readonly bindHost: string;
  readonly port: number;
  /** Kubo's RPC API, without a slash at the end. */
  readonly kuboUrl: string;
  /** The master's storage API, without a slash at the end; null: there is none to ask. */
  readonly storageApiUrl: string | null;
  readonly quotaMode: QuotaMode;
  readonly maxBlockBytes: number;
  /** How many blocks are worked on at once; memory for bodies is at most this many times maxBlockBytes. */
  readonly maxConcurrent: number;
  /** True only outside production: no token is asked for and no quota checked. */
  readonly noAuth: boolean;
}

/** Upstream's is 4 MiB, but kubo 0.42 answers 500 to block/put above 2 MiB, and bitswap carries no such block. */
const DEFAULT_BLOCK_BYTES = 2_097_152;
const MOST_BLOCK_BYTES = 67_108_864;
const DEFAULT_CONCURRENT = 32;
const MOST_CONCURRENT = 1_024;

/**
 * Reads the environment of `serve ingest` (keys as functionland/fula-ota's fula-ingest has them; a size or
 * count that is not positive stands for its default, there as here). Unlike there, the quota mode is strict unless
 * said otherwise, and a word that is neither mode is refused. Throws an OperatorError (`settings`) that
 * lists every problem.
 */
export function readIngestSettings(environment: Environment): IngestSettings {
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ""),
  );
  const parsed = shapeFor(given["NODE_ENV"] === "production").safeParse(given);
  if (!parsed.success) throw refuse(parsed.error);
  const values = parsed.data;
  return {
    bindHost: values.INGEST_BIND,
    port: values.INGEST_PORT,
    kuboUrl: values.KUBO_API,
    storageApiUrl: values.STORAGE_API_URL ?? null,
    quotaMode: values.INGEST_QUOTA_MODE,
    maxBlockBytes: values.INGEST_MAX_BLOCK_BYTES,
    maxConcurrent: values.INGEST_MAX_CONCURRENT,
    noAuth: values.INGEST_NO_AUTH === "1",
  };
}

/** Credentials in an address would end in logs and in the list of processes. */
const url = z
  .string()
  .refine((text) => {
    const parsed = URL.canParse(text) ? new URL(text) : null;
    if (parsed === null || !["http:", "https:"].includes(parsed.protocol)) return false;
    return [parsed.username, parsed.password, parsed.search, parsed.hash].every((part) => part === "");
  }, "must be an http(s) URL without credentials, query or fragment")
  .transform((text) => text.replace(/\/+$/, ""));

const positive = (byDefault: number, most: number) =>
  z
    .string()
    .default(String(byDefault))
    .refine(
      (text) => /^-?[0-9]{1,15}$/.test(text) && Number(text) <= most,
      `must be a whole number up to ${most}`,
    )
    .transform((text) => (Number(text) > 0 ? Number(text) : byDefault));

const PRODUCTION_AUTH = z.literal("0", "must not be set in production: anybody could fill this node's disk");
const ANY_AUTH = z.enum(["0", "1"], "must be 0 or 1");

function shapeFor(production: boolean) {
  return z.object({
    INGEST_PORT: z
      .string()
      .default("3601")
      .refine((text) => /^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65_535, "must be a TCP port")
      .transform(Number),
    INGEST_BIND: z.string().default("0.0.0.0"),
    KUBO_API: z.string().default("http://127.0.0.1:5001").pipe(url),
    STORAGE_API_URL: url.optional(),
    INGEST_QUOTA_MODE: z.enum(["strict", "open"], "must be strict or open").default("strict"),
    INGEST_MAX_BLOCK_BYTES: positive(DEFAULT_BLOCK_BYTES, MOST_BLOCK_BYTES),
    INGEST_MAX_CONCURRENT: positive(DEFAULT_CONCURRENT, MOST_CONCURRENT),
    INGEST_NO_AUTH: (production ? PRODUCTION_AUTH : ANY_AUTH).default("0"),
  });
}

function refuse({ issues }: z.ZodError): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: "ingest does not start: its settings are incomplete or wrong.",
    remedy:
      "Correct the values in .env, then run fula-node join-as-storage-node: it makes the container anew.",
    problems: issues.map(({ path, message }) => ({
      subject: String(path[0]),
      what: `${String(path[0])} ${message}.`,
    })),
  });
}
