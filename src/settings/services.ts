import * as z from "zod";
import { OperatorError } from "../errors.ts";
import { multiaddrToUrl } from "./address.ts";
import type { PostgresTarget } from "./master.ts";
import type { Pricing, QuotaMode } from "./quota.ts";
import { type Rule, RULES } from "./rules.ts";

/** How a service reaches the database, and how many connections it may hold. */
export interface PoolSettings extends PostgresTarget {
  readonly maxConnections: number;
  readonly idleTimeoutMs: number;
  readonly connectTimeoutMs: number;
}

/** What every service of ours is started with. */
export interface ServiceSettings {
  readonly bindHost: string;
  readonly port: number;
  readonly postgres: PoolSettings;
}

/** ipfs-cluster's REST API, and `user:password` where it asks for one. */
export interface ClusterSettings {
  readonly url: string;
  readonly basicAuth: string | null;
}

/** What `serve pinning-api` is started with. */
export interface PinningApiSettings extends ServiceSettings {
  readonly cluster: ClusterSettings;
}

/** What `serve webui` is started with. */
export interface WebuiSettings extends ServiceSettings {
  readonly pricing: Pricing;
  /** The pool whose node names this master keeps; null: none, and nodes can't announce themselves here. */
  readonly pool: string | null;
  /** How many names one key may hold in it. */
  readonly namesPerOwner: number;
  /** Whose pins are counted for nodes that join. */
  readonly cluster: ClusterSettings;
}

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

/** A process environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the environment of `serve pinning-api` (keys as functionland/pinning-service has them), by the rules
 * that join-as-master checks `.env` with. Throws an OperatorError (`settings`) that lists every problem; no
 * value is in it.
 */
export function readPinningApiSettings(environment: Environment): PinningApiSettings {
  const values = parse("pinning-api", MASTER_REMEDY, environment, {
    ...master(environment),
    PORT: number(RULES.port, "6000"),
    SYSTEM_KEY: text(RULES.systemKey),
  });
  return {
    bindHost: values.BIND_HOST,
    port: values.PORT,
    postgres: poolOf(values),
    cluster: clusterOf(values),
  };
}

/** Reads the environment of `serve webui`; throws as readPinningApiSettings does. */
export function readWebuiSettings(environment: Environment): WebuiSettings {
  const values = parse("webui", MASTER_REMEDY, environment, {
    ...master(environment),
    WEBUI_PORT: number(RULES.port, "3001"),
    PINNING_SYSTEM_KEY: text(RULES.systemKey),
    FREE_TIER_BYTES: number(RULES.count, "524288000"),
    FULA_PER_GB_MONTH: number(RULES.amount, "3"),
    CLUSTERNAME: text(RULES.name).optional(),
    NODE_NAMES_PER_OWNER: number(RULES.count, "5"),
  });
  return {
    bindHost: values.BIND_HOST,
    port: values.WEBUI_PORT,
    postgres: poolOf(values),
    pricing: { freeTierBytes: values.FREE_TIER_BYTES, fulaPerGibMonth: values.FULA_PER_GB_MONTH },
    pool: values.CLUSTERNAME ?? null,
    namesPerOwner: values.NODE_NAMES_PER_OWNER,
    cluster: clusterOf(values),
  };
}

/**
 * Reads the environment of `serve ingest` (keys as functionland/fula-ota's fula-ingest has them), by the
 * rules that join-as-storage-node checks `.env` with. Unlike there, the quota mode is strict unless set
 * otherwise. Throws as readPinningApiSettings does.
 */
export function readIngestSettings(environment: Environment): IngestSettings {
  const values = parse("ingest", STORAGE_REMEDY, environment, {
    INGEST_PORT: number(RULES.port, "3601"),
    INGEST_BIND: text(RULES.host).default("0.0.0.0"),
    KUBO_API: text(RULES.apiUrl).default("http://127.0.0.1:5001"),
    STORAGE_API_URL: text(RULES.apiUrl).optional(),
    INGEST_QUOTA_MODE: text(RULES.quotaMode).default("strict"),
    INGEST_MAX_BLOCK_BYTES: number(RULES.blockBytes, DEFAULT_BLOCK_BYTES),
    INGEST_MAX_CONCURRENT: number(RULES.concurrency, "32"),
    INGEST_NO_AUTH: text(isProduction(environment) ? AUTH_IN_PRODUCTION : ANY_AUTH).default("0"),
  });
  return {
    bindHost: values.INGEST_BIND,
    port: values.INGEST_PORT,
    kuboUrl: withoutSlash(values.KUBO_API),
    storageApiUrl: values.STORAGE_API_URL === undefined ? null : withoutSlash(values.STORAGE_API_URL),
    quotaMode: values.INGEST_QUOTA_MODE === "open" ? "open" : "strict",
    maxBlockBytes: values.INGEST_MAX_BLOCK_BYTES,
    maxConcurrent: values.INGEST_MAX_CONCURRENT,
    noAuth: values.INGEST_NO_AUTH === "1",
  };
}

/** Upstream's is 4 MiB, but kubo 0.42 answers 500 to block/put above 2 MiB, and bitswap carries no such block. */
const DEFAULT_BLOCK_BYTES = "2097152";

/** Only tests start an ingest that asks for no token. */
const ANY_AUTH: Rule = { say: "0 or 1", holds: (value) => value === "0" || value === "1" };
const AUTH_IN_PRODUCTION: Rule = {
  say: "0 in production: without a token anybody could fill this node's disk",
  holds: (value) => value === "0",
};

const MASTER_REMEDY =
  "Run fula-node join-as-master: it checks .env, adds what is missing, and makes the container anew. By hand: put the values into .env, then docker compose up -d.";
const STORAGE_REMEDY =
  "Correct the values in .env, then run fula-node join-as-storage-node: it makes the container anew.";

function text(rule: Rule) {
  return z.string("is missing").refine((value) => rule.holds(value), `must be ${rule.say}`);
}

function number(rule: Rule, byDefault: string) {
  return text(rule).default(byDefault).transform(Number);
}

/** What both services of a master read. */
function master(environment: Environment) {
  // Without these, tokens would be signed with nothing: fine on a developer's machine only.
  const signing = text(RULES.signingSecret);
  const signingHere = isProduction(environment) ? signing : signing.optional();
  return {
    BIND_HOST: text(RULES.host).default("127.0.0.1"),
    POSTGRES_HOST: text(RULES.host).default("localhost"),
    POSTGRES_PORT: number(RULES.port, "5432"),
    POSTGRES_DB: text(RULES.identifier).default("pinning_service"),
    POSTGRES_USER: text(RULES.identifier).default("pinning_user"),
    POSTGRES_PASSWORD: text(RULES.secret),
    POSTGRES_SSL: text(RULES.flag).default("false"),
    POSTGRES_MAX_CONNECTIONS: number(RULES.count, "25"),
    POSTGRES_IDLE_TIMEOUT: number(RULES.count, "30000"),
    POSTGRES_CONNECTION_TIMEOUT: number(RULES.count, "5000"),
    JWT_SECRET: signingHere,
    SESSION_SECRET: signingHere,
    IPFS_CLUSTER_API_ADDR: text(RULES.apiMultiaddr).default("/ip4/127.0.0.1/tcp/9094"),
    CLUSTER_BASIC_AUTH: text(RULES.credentials).optional(),
  };
}

type MasterValues = z.output<z.ZodObject<ReturnType<typeof master>>>;

function parse<Shape extends z.ZodRawShape>(
  service: string,
  remedy: string,
  environment: Environment,
  shape: Shape,
): z.output<z.ZodObject<Shape>> {
  // Compose hands an optional key on as a blank one.
  const given = Object.entries(environment).filter(([, value]) => value !== undefined && value !== "");
  const parsed = z.object(shape).safeParse(Object.fromEntries(given));
  if (parsed.success) return parsed.data;
  throw new OperatorError({
    exit: "settings",
    what: `${service} does not start: its settings are incomplete or wrong.`,
    remedy,
    problems: parsed.error.issues.map(({ path, message }) => {
      const key = String(path[0]);
      return { subject: key, what: `${key} ${message}.` };
    }),
  });
}

function isProduction(environment: Environment): boolean {
  return environment["NODE_ENV"] === "production";
}

function poolOf(values: MasterValues): PoolSettings {
  return {
    host: values.POSTGRES_HOST,
    port: values.POSTGRES_PORT,
    database: values.POSTGRES_DB,
    user: values.POSTGRES_USER,
    password: values.POSTGRES_PASSWORD,
    ssl: values.POSTGRES_SSL === "true",
    maxConnections: values.POSTGRES_MAX_CONNECTIONS,
    idleTimeoutMs: values.POSTGRES_IDLE_TIMEOUT,
    connectTimeoutMs: values.POSTGRES_CONNECTION_TIMEOUT,
  };
}

function clusterOf(values: MasterValues): ClusterSettings {
  return {
    url: multiaddrToUrl(values.IPFS_CLUSTER_API_ADDR) ?? "",
    basicAuth: values.CLUSTER_BASIC_AUTH ?? null,
  };
}

function withoutSlash(url: string): string {
  return url.replace(/\/+$/, "");
}
