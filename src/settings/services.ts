import * as z from "zod";
import { OperatorError, type Problem } from "../errors.ts";
import { multiaddrToUrl } from "./multiaddr.ts";
import type { Pricing } from "./pricing.ts";
import { RULES } from "./rules.ts";

/** How a service reaches the database, and how many connections it may hold. */
export interface PoolSettings {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly ssl: boolean;
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

/** A process environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the environment of `serve pinning-api` (keys as functionland/pinning-service has them).
 * Throws an OperatorError (`settings`) that lists every problem; no secret's value is in it.
 */
export function readPinningApiSettings(environment: Environment): PinningApiSettings {
  const values = parse("pinning-api", environment, {
    PORT: port("6000"),
    ...CLUSTER,
    SYSTEM_KEY: systemKey,
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
  const values = parse("webui", environment, {
    WEBUI_PORT: port("3001"),
    PINNING_SYSTEM_KEY: systemKey,
    FREE_TIER_BYTES: count("524288000"),
    FULA_PER_GB_MONTH: amount("3"),
    CLUSTERNAME: poolName.optional(),
    NODE_NAMES_PER_OWNER: count("5"),
    ...CLUSTER,
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

const port = (byDefault: string) =>
  z
    .string()
    .default(byDefault)
    .refine((text) => /^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65_535, "must be a TCP port")
    .transform(Number);

const count = (byDefault: string) =>
  z
    .string()
    .default(byDefault)
    .refine((text) => /^[1-9][0-9]{0,8}$/.test(text), "must be a whole number from 1 to 999999999")
    .transform(Number);

const amount = (byDefault: string) =>
  z
    .string()
    .default(byDefault)
    .refine((text) => RULES.amount.holds(text), `must be ${RULES.amount.say}`)
    .transform(Number);

const poolName = z.string().refine((text) => RULES.name.holds(text), `must be ${RULES.name.say}`);

/** The Go service took an unset key for the word `disabled`, and then let that word in. */
const systemKey = z
  .string("is missing")
  .refine((key) => key.toLowerCase() !== "disabled", "must not be the word `disabled`")
  .refine((key) => key.length >= 12, "must have at least 12 characters");

const clusterUrl = z
  .string()
  .default("/ip4/127.0.0.1/tcp/9094")
  .transform((address, context) => {
    const url = multiaddrToUrl(address);
    if (url !== null) return url;
    context.addIssue({ code: "custom", message: "must be a multiaddr such as /ip4/127.0.0.1/tcp/9094" });
    return z.NEVER;
  });

const CLUSTER = {
  IPFS_CLUSTER_API_ADDR: clusterUrl,
  CLUSTER_BASIC_AUTH: z.string().optional(),
};

const COMMON = {
  BIND_HOST: z.string().default("127.0.0.1"),
  POSTGRES_HOST: z.string().default("localhost"),
  POSTGRES_PORT: port("5432"),
  POSTGRES_DB: z.string().default("pinning_service"),
  POSTGRES_USER: z.string().default("pinning_user"),
  POSTGRES_PASSWORD: z.string("is missing"),
  POSTGRES_SSL: z.string().default("false"),
  POSTGRES_MAX_CONNECTIONS: count("25"),
  POSTGRES_IDLE_TIMEOUT: count("30000"),
  POSTGRES_CONNECTION_TIMEOUT: count("5000"),
};

/** Without these, tokens would be signed with nothing: fine on a developer's machine only. */
const SIGNING = ["JWT_SECRET", "SESSION_SECRET"] as const;

function parse<Shape extends z.ZodRawShape>(service: string, environment: Environment, shape: Shape) {
  // Compose hands an optional key on as a blank one.
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ""),
  );
  const secret =
    given["NODE_ENV"] === "production" ? z.string("is missing in production") : z.string().optional();
  const signing = Object.fromEntries(SIGNING.map((key) => [key, secret]));
  const parsed = z.object({ ...COMMON, ...signing, ...shape }).safeParse(given);
  if (parsed.success) return parsed.data as z.output<z.ZodObject<typeof COMMON & Shape>>;
  throw refuse(
    service,
    parsed.error.issues.map(({ path, message }) => {
      const key = String(path[0]);
      return { subject: key, what: `${key} ${message}.` };
    }),
  );
}

function refuse(service: string, problems: readonly Problem[]): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `${service} does not start: its settings are incomplete or wrong.`,
    remedy:
      "Run fula-node join-as-master: it checks .env, adds what is missing, and makes the container anew. By hand: put the values into .env, then docker compose up -d.",
    problems,
  });
}

function poolOf(values: z.output<z.ZodObject<typeof COMMON>>): PoolSettings {
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

function clusterOf(values: z.output<z.ZodObject<typeof CLUSTER>>): ClusterSettings {
  return { url: values.IPFS_CLUSTER_API_ADDR, basicAuth: values.CLUSTER_BASIC_AUTH ?? null };
}
