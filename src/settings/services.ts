import * as z from "zod";
import { type LogLevel, OperatorError } from "../errors.ts";
import { multiaddrToUrl } from "./address.ts";
import {
  BASE_RPC_URL,
  billingOf,
  type BillingSettings,
  DEDUCTION_INTERVAL_MS,
  SCANNER_INTERVAL_MS,
} from "./billing.ts";
import { pemOfCertificates } from "./certificates.ts";
import { type PostgresTarget, sslModeOf } from "./postgres-target.ts";
import type { Pricing, QuotaMode } from "./quota.ts";
import { parseSize, type Rule, RULES } from "./rules.ts";
import { DEFAULT_DISK_RESERVE } from "./storage.ts";

/** How a service connects to the database, and how many connections it may open. */
export interface PoolSettings extends PostgresTarget {
  readonly maxConnections: number;
  readonly idleTimeoutMs: number;
  readonly connectTimeoutMs: number;
}

/** What every service of fula-node has. */
interface OwnSettings {
  readonly bindHost: string;
  readonly port: number;
  /** The port of its metrics, on 127.0.0.1. */
  readonly metricsPort: number;
  readonly logLevel: LogLevel;
}

/** The settings of every service of fula-node on a master. */
export interface ServiceSettings extends OwnSettings {
  readonly postgres: PoolSettings;
}

/** ipfs-cluster's REST API, and its `user:password` if it requires one. */
export interface ClusterSettings {
  readonly url: string;
  readonly basicAuth: string | null;
}

/** The settings of `serve pinning-api`. */
export interface PinningApiSettings extends ServiceSettings {
  readonly cluster: ClusterSettings;
  /** The port for requests from outside the machine. */
  readonly edgePort: number;
  /** Kubo's RPC API, without a trailing slash. */
  readonly kuboUrl: string;
  /** The key of the /admin routes. */
  readonly systemKey: string;
  /** FULA_EIP712_AUTH: tokens that a wallet signed are accepted. */
  readonly walletTokens: boolean;
  /** The secret of the trusted header; null if that header is not used. */
  readonly serviceSecret: string | null;
  readonly limits: {
    readonly freeTierBytes: number;
    /** How many requests that are not pinned yet an account without a balance may have. Null: any number. */
    readonly maxPending: number | null;
    /** After so many seconds, a pin whose content nobody has becomes failed. */
    readonly deadlineSeconds: number;
  };
  /** How large a CAR file may be. Null: none is imported. */
  readonly importMaxBytes: number | null;
  /** For how many days the balance must last, with the CAR file. 0: no such condition. */
  readonly importBalanceDays: number;
  readonly fulaPerGibMonth: number;
}

/** The settings of `serve webui`. */
export interface WebuiSettings extends ServiceSettings {
  readonly pricing: Pricing;
  /** The pool whose node names this master registers. Null: no pool, so nodes can't announce themselves here. */
  readonly pool: string | null;
  /** The identity of this master in the database. Null: it does not say there that it is alive. */
  readonly masterId: string | null;
  /** How many names one API key may register in the pool. */
  readonly namesPerOwner: number;
  /** Who may register a name. */
  readonly registration: "invite" | "open";
  /** The cluster whose pins are counted for nodes that join. */
  readonly cluster: ClusterSettings;
  /** True if a token that a wallet signed (EIP-712) opens the wallet's account. */
  readonly walletTokens: boolean;
  /** Encrypts the addresses of linked wallets: 64 hex digits. Null: no wallet can be linked. */
  readonly encryptionKey: string | null;
  /** The URL at which clients reach this service, without a trailing slash. Wallets show it when they sign. */
  readonly publicUrl: string;
  /** The billing. Null: this master runs none. */
  readonly billing: BillingSettings | null;
}

/** The settings of `serve ingest`. */
export interface IngestSettings extends OwnSettings {
  /** Kubo's RPC API, without a trailing slash. */
  readonly kuboUrl: string;
  /** The master's storage API, without a trailing slash; null if there is none. */
  readonly storageApiUrl: string | null;
  /** PEM of the private CA that is trusted for it; null if there is none. */
  readonly storageApiCa: string | null;
  readonly quotaMode: QuotaMode;
  readonly maxBlockBytes: number;
  /** How much of the disk uploads leave free. */
  readonly reserveBytes: number;
  /** How many blocks are processed at once. Their bodies need at most this number times maxBlockBytes of memory. */
  readonly maxConcurrent: number;
  /** True only outside production: no token is required, and no quota is checked. */
  readonly noAuth: boolean;
}

/** A process environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the environment of `serve pinning-api` (the keys of functionland/pinning-service), with the rules that
 * join-as-master uses to check `.env`. Throws an OperatorError (`settings`) that lists every problem and
 * contains no value.
 */
export function readPinningApiSettings(environment: Environment): PinningApiSettings {
  const values = parse("pinning-api", MASTER_REMEDY, environment, {
    ...master(environment),
    PORT: number(RULES.port, "6000"),
    PINNING_EDGE_PORT: number(RULES.port, "6001"),
    PINNING_METRICS_PORT: number(RULES.port, "16000"),
    SYSTEM_KEY: text(RULES.systemKey),
    IPFS_API_ADDR: text(RULES.apiMultiaddr).default("/ip4/127.0.0.1/tcp/5001"),
    FULA_PIN_SERVICE_SECRET: text(RULES.any).optional(),
    FULA_EIP712_AUTH: text(RULES.flag).default("false"),
    FREE_TIER_BYTES: number(RULES.bytes, "524288000"),
    CREDIT_GATE: text(RULES.creditGate).default("closed"),
    FREE_PENDING_PINS: number(RULES.count, "10"),
    PIN_DEADLINE_MINUTES: number(RULES.count, "1440"),
    DAG_IMPORT_ENABLED: text(RULES.flag).default("false"),
    DAG_IMPORT_MAX_BYTES: number(RULES.count, "838860800"),
    DAG_IMPORT_MIN_BALANCE_DAYS: number(RULES.days, "0"),
    FULA_PER_GB_MONTH: number(RULES.amount, "3"),
  });
  const secret = values.FULA_PIN_SERVICE_SECRET ?? "";
  return {
    bindHost: values.BIND_HOST,
    port: values.PORT,
    metricsPort: values.PINNING_METRICS_PORT,
    logLevel: values.LOG_LEVEL,
    edgePort: values.PINNING_EDGE_PORT,
    postgres: poolOf(values),
    cluster: clusterOf(values),
    kuboUrl: multiaddrToUrl(values.IPFS_API_ADDR) ?? "",
    systemKey: values.SYSTEM_KEY,
    walletTokens: values.FULA_EIP712_AUTH === "true",
    serviceSecret: /^\s*(?:disabled)?\s*$/i.test(secret) ? null : secret,
    limits: {
      freeTierBytes: values.FREE_TIER_BYTES,
      maxPending: values.CREDIT_GATE === "open" ? null : values.FREE_PENDING_PINS,
      deadlineSeconds: values.PIN_DEADLINE_MINUTES * 60,
    },
    importMaxBytes: values.DAG_IMPORT_ENABLED === "true" ? values.DAG_IMPORT_MAX_BYTES : null,
    importBalanceDays: values.DAG_IMPORT_MIN_BALANCE_DAYS,
    fulaPerGibMonth: values.FULA_PER_GB_MONTH,
  };
}

/** Reads the environment of `serve webui`. Throws as readPinningApiSettings does. */
export function readWebuiSettings(environment: Environment): WebuiSettings {
  const values = parse("webui", MASTER_REMEDY, environment, {
    ...master(environment),
    WEBUI_PORT: number(RULES.port, "3001"),
    WEBUI_METRICS_PORT: number(RULES.port, "13001"),
    PINNING_SYSTEM_KEY: text(RULES.systemKey),
    FREE_TIER_BYTES: number(RULES.bytes, "524288000"),
    FULA_PER_GB_MONTH: number(RULES.amount, "3"),
    CLUSTERNAME: text(RULES.name).optional(),
    MASTER_ID: text(RULES.masterId).optional(),
    NODE_NAMES_PER_OWNER: number(RULES.count, "5"),
    NODE_REGISTRATION: text(RULES.registration).default("invite"),
    FULA_EIP712_AUTH: text(RULES.flag).default("false"),
    ENCRYPTION_KEY: text(RULES.hex64).optional(),
    STORAGE_API_URL: text(RULES.apiUrl).optional(),
    PUBLIC_HOST: text(RULES.host).optional(),
    VAULT_ADDRESS: text(RULES.contract).optional(),
    CRON_LEADER_LEASE: text(RULES.flag).default("false"),
    BILLING_IDEMPOTENCY: text(RULES.flag).default("false"),
    DEDUCTION_INTERVAL_MS: text(RULES.interval).default(DEDUCTION_INTERVAL_MS),
    SCANNER_INTERVAL_MS: text(RULES.interval).default(SCANNER_INTERVAL_MS),
    BASE_RPC_URL: text(RULES.url).default(BASE_RPC_URL),
    ETHEREUM_RPC_URL: text(RULES.url).optional(),
    SKALE_RPC_URL: text(RULES.url).optional(),
    RPC_PROXY_URL: text(RULES.url).optional(),
    REFERRAL_BONUSES_ENABLED: text(RULES.flag).default("true"),
  });
  const edge = values.PUBLIC_HOST;
  const own = `http://${values.BIND_HOST.includes(":") ? `[${values.BIND_HOST}]` : values.BIND_HOST}:${values.WEBUI_PORT}`;
  return {
    bindHost: values.BIND_HOST,
    port: values.WEBUI_PORT,
    metricsPort: values.WEBUI_METRICS_PORT,
    logLevel: values.LOG_LEVEL,
    postgres: poolOf(values),
    pricing: { freeTierBytes: values.FREE_TIER_BYTES, fulaPerGibMonth: values.FULA_PER_GB_MONTH },
    pool: values.CLUSTERNAME ?? null,
    masterId: values.MASTER_ID ?? null,
    namesPerOwner: values.NODE_NAMES_PER_OWNER,
    registration: values.NODE_REGISTRATION === "open" ? "open" : "invite",
    cluster: clusterOf(values),
    walletTokens: values.FULA_EIP712_AUTH === "true",
    encryptionKey: values.ENCRYPTION_KEY ?? null,
    publicUrl: withoutSlash(values.STORAGE_API_URL ?? (edge === undefined ? own : `https://${edge}`)),
    billing: isProduction(environment)
      ? billingOf((key) => (key in values ? String(values[key as keyof typeof values]) : undefined))
      : null,
  };
}

/**
 * Reads the environment of `serve ingest` (the keys of fula-ingest in functionland/fula-ota), with the rules
 * that join-as-storage-node uses to check `.env`. Unlike upstream, the default quota mode is strict. Throws as
 * readPinningApiSettings does.
 */
export function readIngestSettings(environment: Environment): IngestSettings {
  const values = parse("ingest", STORAGE_REMEDY, environment, {
    INGEST_PORT: number(RULES.port, "3601"),
    INGEST_METRICS_PORT: number(RULES.port, "13601"),
    LOG_LEVEL: logLevel(),
    INGEST_BIND: text(RULES.bindAddress).default("::"),
    KUBO_API: text(RULES.apiUrl).default("http://127.0.0.1:5001"),
    STORAGE_API_URL: text(RULES.apiUrl).optional(),
    STORAGE_API_CA: text(RULES.certificates).optional(),
    INGEST_QUOTA_MODE: text(RULES.quotaMode).default("strict"),
    INGEST_MAX_BLOCK_BYTES: number(RULES.blockBytes, DEFAULT_BLOCK_BYTES),
    INGEST_MAX_CONCURRENT: number(RULES.concurrency, "32"),
    DISK_RESERVE: text(RULES.storageSize).default(DEFAULT_DISK_RESERVE),
    INGEST_NO_AUTH: text(isProduction(environment) ? AUTH_IN_PRODUCTION : ANY_AUTH).default("0"),
  });
  return {
    bindHost: values.INGEST_BIND,
    port: values.INGEST_PORT,
    metricsPort: values.INGEST_METRICS_PORT,
    logLevel: values.LOG_LEVEL,
    kuboUrl: withoutSlash(values.KUBO_API),
    storageApiUrl: values.STORAGE_API_URL === undefined ? null : withoutSlash(values.STORAGE_API_URL),
    storageApiCa: values.STORAGE_API_CA === undefined ? null : pemOfCertificates(values.STORAGE_API_CA),
    quotaMode: values.INGEST_QUOTA_MODE === "open" ? "open" : "strict",
    maxBlockBytes: values.INGEST_MAX_BLOCK_BYTES,
    maxConcurrent: values.INGEST_MAX_CONCURRENT,
    reserveBytes: parseSize(values.DISK_RESERVE) ?? 0,
    noAuth: values.INGEST_NO_AUTH === "1",
  };
}

/** Upstream's limit is 4 MiB. But kubo 0.42 answers block/put with 500 above 2 MiB, and bitswap does not transfer larger blocks. */
const DEFAULT_BLOCK_BYTES = "2097152";

/** Only tests start an ingest that requires no token. */
const ANY_AUTH: Rule = { requirement: "0 or 1", holds: (value) => value === "0" || value === "1" };
const AUTH_IN_PRODUCTION: Rule = {
  requirement: "0 in production: without tokens, anyone could fill this node's disk",
  holds: (value) => value === "0",
};

const MASTER_REMEDY =
  "Run fula-node join-as-master: it checks .env, adds missing settings and recreates the container. Or manually: correct the values in .env, then run docker compose up -d.";
const STORAGE_REMEDY =
  "Correct the values in .env, then run fula-node join-as-storage-node: it recreates the container.";

function text(rule: Rule) {
  return z.string("is missing").refine((value) => rule.holds(value), `must be ${rule.requirement}`);
}

function number(rule: Rule, byDefault: string) {
  return text(rule).default(byDefault).transform(Number);
}

function logLevel() {
  return text(RULES.logLevel)
    .default("info")
    .transform((value) => value as LogLevel);
}

/** The keys that both services of a master read. */
function master(environment: Environment) {
  // Without these, tokens would have no signing secret. That is acceptable only on a developer's machine.
  const signing = text(RULES.signingSecret);
  const signingHere = isProduction(environment) ? signing : signing.optional();
  return {
    BIND_HOST: text(RULES.host).default("127.0.0.1"),
    LOG_LEVEL: logLevel(),
    POSTGRES_HOST: text(RULES.host).default("localhost"),
    POSTGRES_PORT: number(RULES.port, "5432"),
    POSTGRES_DB: text(RULES.identifier).default("pinning_service"),
    POSTGRES_USER: text(RULES.identifier).default("pinning_user"),
    POSTGRES_PASSWORD: text(RULES.secret),
    POSTGRES_SSL: text(RULES.sslMode).default("false"),
    // Set beside POSTGRES_SSL=true, for which upstream's images encrypt; they know no other mode (compose-render.ts).
    POSTGRES_SSL_MODE: text(RULES.sslMode).optional(),
    POSTGRES_SSL_CA: text(RULES.path).optional(),
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
  // Compose passes an optional key without a value as an empty string.
  const given = Object.entries(environment).filter(([, value]) => value !== undefined && value !== "");
  const parsed = z.object(shape).safeParse(Object.fromEntries(given));
  if (parsed.success) return parsed.data;
  throw new OperatorError({
    exit: "settings",
    what: `${service} can't start: its settings are incomplete or invalid.`,
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
    ssl: sslModeOf(values.POSTGRES_SSL_MODE ?? values.POSTGRES_SSL),
    ...(values.POSTGRES_SSL_CA === undefined ? {} : { sslCa: values.POSTGRES_SSL_CA }),
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
