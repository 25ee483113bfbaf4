import type { Problem } from "../errors.ts";
import { RULES } from "./rules.ts";
import type { Settings, SettingSpec } from "./settings.ts";

/**
 * The settings of a master, in the order in which `.env` lists them. Keys keep their upstream names
 * (functionland/pinning-service, functionland/fula-ota), so that an upstream `.env` serves.
 */
export const MASTER_SETTINGS: readonly SettingSpec[] = [
  { key: "CLUSTERNAME", about: "the pool's name: every node of a pool has the same", rule: RULES.name },
  { key: "CLUSTER_PEERNAME", about: "this master's label in the cluster", rule: RULES.name },
  {
    key: "CLUSTER_SECRET",
    about:
      "64 hex digits shared by the pool; left out: derived from CLUSTERNAME as upstream does, so not secret",
    rule: RULES.hex64,
    secret: true,
    immutable: true,
  },
  {
    key: "MASTER_CLUSTER_BOOTSTRAP",
    about: "an existing master's cluster address; left out: this is the pool's first",
    rule: RULES.peerMultiaddr,
  },
  {
    key: "MASTER_CLUSTER_PEERIDS",
    about: "cluster peer ids of the other masters, whose pins this one takes over",
    rule: RULES.peerIds,
  },
  { key: "POOL_API", about: "where the pool's addresses are published", rule: RULES.url },
  {
    key: "IPFS_API_ADDR",
    about: "kubo's RPC address",
    rule: RULES.apiMultiaddr,
    byDefault: "/ip4/127.0.0.1/tcp/5001",
  },
  {
    key: "IPFS_CLUSTER_API_ADDR",
    about: "ipfs-cluster's REST address",
    rule: RULES.apiMultiaddr,
    byDefault: "/ip4/127.0.0.1/tcp/9094",
  },
  {
    key: "CLUSTER_BASIC_AUTH",
    about: "user:password of the cluster's REST API, where it asks for one",
    rule: RULES.credentials,
    secret: true,
  },
  {
    key: "CLUSTER_REPLICATION_MIN",
    about: "copies a pin must have",
    rule: RULES.factor,
    byDefault: "-1",
    readBy: "ipfs-cluster",
  },
  {
    key: "CLUSTER_REPLICATION_MAX",
    about: "copies a pin may have",
    rule: RULES.factor,
    byDefault: "-1",
    readBy: "ipfs-cluster",
  },
  {
    key: "KUBO_PRIVATE_NETWORK",
    about: "true where the pool's nodes meet on private addresses; kubo dials none of these otherwise",
    rule: RULES.flag,
  },
  {
    key: "WRITER_DIR",
    about: "where a writer made here keeps its data",
    rule: RULES.path,
    byDefault: "/opt/fula-writer",
  },
  {
    key: "POSTGRES_HOST",
    about: "the database's host; another than 127.0.0.1: no Postgres is made here",
    rule: RULES.host,
    byDefault: "127.0.0.1",
  },
  { key: "POSTGRES_PORT", about: "the database's port", rule: RULES.port, byDefault: "5432" },
  { key: "POSTGRES_DB", about: "the database's name", rule: RULES.identifier, byDefault: "pinning_service" },
  { key: "POSTGRES_USER", about: "the database's owner", rule: RULES.identifier, byDefault: "pinning_user" },
  {
    key: "POSTGRES_PASSWORD",
    about: "the owner's password",
    rule: RULES.secret,
    secret: true,
    immutable: true,
    generated: { kind: "token", characters: 40 },
  },
  { key: "POSTGRES_SSL", about: "speak TLS to a database elsewhere", rule: RULES.flag, byDefault: "false" },
  {
    key: "SYSTEM_KEY",
    about: "opens the pinning API's /admin routes",
    rule: RULES.systemKey,
    secret: true,
    generated: { kind: "token", characters: 48 },
    readBy: "upstream",
  },
  {
    key: "JWT_SECRET",
    about: "signs API keys",
    rule: RULES.signingSecret,
    secret: true,
    immutable: true,
    generated: { kind: "token", characters: 64 },
  },
  {
    key: "SESSION_SECRET",
    about: "signs sessions",
    rule: RULES.signingSecret,
    secret: true,
    immutable: true,
    generated: { kind: "token", characters: 64 },
    readBy: "upstream",
  },
  {
    key: "ENCRYPTION_KEY",
    about: "encrypts e-mail addresses, wallets and API keys in the database",
    rule: RULES.hex64,
    secret: true,
    immutable: true,
    generated: { kind: "hex", bytes: 32 },
  },
  {
    key: "PINNING_API_PORT",
    about: "the pinning API's port on 127.0.0.1",
    rule: RULES.port,
    byDefault: "6000",
  },
  { key: "WEBUI_PORT", about: "the storage API's port on 127.0.0.1", rule: RULES.port, byDefault: "3001" },
  {
    key: "STORAGE_API_URL",
    about: "where storage nodes reach the storage API from outside; goes into invites",
    rule: RULES.apiUrl,
  },
  {
    key: "NODE_NAMES_PER_OWNER",
    about: "how many node names one key may hold in this pool",
    rule: RULES.count,
    byDefault: "5",
  },
  {
    key: "VAULT_ADDRESS",
    about: "the vault contract; left out: billing's crons stay off",
    rule: RULES.contract,
    readBy: "upstream",
  },
  {
    key: "BASE_RPC_URL",
    about: "RPC endpoint of the Base chain; often holds a key, so it is never shown",
    rule: RULES.url,
    secret: true,
    byDefault: "https://mainnet.base.org",
    readBy: "upstream",
  },
  {
    key: "ETHERSCAN_API_KEY",
    about: "key of the Etherscan API",
    rule: RULES.any,
    secret: true,
    readBy: "upstream",
  },
  {
    key: "BILLING_IDEMPOTENCY",
    about: "at most one deduction an hour and user, held by the database",
    rule: RULES.flag,
    byDefault: "true",
  },
  {
    key: "CRON_LEADER_LEASE",
    about: "only one master of several runs the billing crons",
    rule: RULES.flag,
    byDefault: "true",
    readBy: "upstream",
  },
  { key: "FREE_TIER_BYTES", about: "bytes that cost nothing", rule: RULES.count, byDefault: "524288000" },
  {
    key: "FULA_PER_GB_MONTH",
    about: "price of a GiB and month, in FULA",
    rule: RULES.amount,
    byDefault: "3",
  },
  {
    key: "ADMIN_EMAILS",
    about: "e-mail addresses of administrators, separated by commas",
    rule: RULES.emails,
    readBy: "upstream",
  },
  {
    key: "GOOGLE_CLIENT_ID",
    about: "client id for sign-in with Google",
    rule: RULES.any,
    readBy: "upstream",
  },
  {
    key: "FULA_BUCKET_ROOT_CAS",
    about: "the gateway moves bucket roots by compare-and-swap in the database",
    rule: RULES.flag,
    byDefault: "false",
  },
  { key: "KEEP", about: "how many snapshots are kept", rule: RULES.count, byDefault: "28" },
  {
    key: "SNAPSHOT_DROP_PERCENT",
    about: "a pinset that shrank by more than this share raises an alarm",
    rule: RULES.percent,
    byDefault: "10",
  },
  {
    key: "REPL_MIN",
    about: "copies below which the sweep raises an alarm, for pins that name no minimum",
    rule: RULES.count,
    byDefault: "2",
  },
  {
    key: "AUTO_UPDATE",
    about: "let nickfedor/watchtower renew the service containers",
    rule: RULES.flag,
    byDefault: "false",
  },
  { key: "POSTGRES_IMAGE", about: "image of Postgres", rule: RULES.image, byDefault: "postgres:16-alpine" },
  { key: "KUBO_IMAGE", about: "image of kubo", rule: RULES.image, byDefault: "ipfs/kubo:v0.42.0" },
  {
    key: "CLUSTER_IMAGE",
    about: "image of ipfs-cluster",
    rule: RULES.image,
    byDefault: "ipfs/ipfs-cluster:v1.1.6",
  },
  {
    key: "NODE_BASE_IMAGE",
    about: "image that the service image is built on",
    rule: RULES.image,
    byDefault: "node:26-trixie-slim",
  },
  {
    key: "GATEWAY_IMAGE",
    about: "image of the S3 gateway; it runs when the image is on this machine",
    rule: RULES.image,
    byDefault: "fula-gateway:latest",
  },
  {
    key: "UPDATER_IMAGE",
    about: "image of the updater",
    rule: RULES.image,
    byDefault: "nickfedor/watchtower:1.21.0",
  },
];

/** How to reach one database, as POSTGRES_* say; `password` never appears in an error. */
export interface PostgresTarget {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly ssl: boolean;
}

/** A setting's value by its key, as it stands. */
type Values = (key: string) => string | undefined;

const HERE = ["127.0.0.1", "localhost", "::1"];

/** True if POSTGRES_HOST names a database on another machine: none is made here then. */
export function isDatabaseElsewhere(values: Values): boolean {
  return !HERE.includes(values("POSTGRES_HOST") ?? "127.0.0.1");
}

/** How to reach the database with the values as they stand; null while there is no password. */
export function postgresTarget(values: Values): PostgresTarget | null {
  const password = values("POSTGRES_PASSWORD");
  if (password === undefined) return null;
  return {
    host: values("POSTGRES_HOST") ?? "127.0.0.1",
    port: Number(values("POSTGRES_PORT") ?? "5432"),
    database: values("POSTGRES_DB") ?? "pinning_service",
    user: values("POSTGRES_USER") ?? "pinning_user",
    password,
    ssl: values("POSTGRES_SSL") === "true",
  };
}

/** Settings of a master that are each right, but not together. A key without a value is left to others. */
export function findConflicts(settings: Settings): readonly Problem[] {
  return [...compareFactors(settings), ...comparePorts(settings)];
}

/** The rules by which ipfs-cluster 1.1 starts at all (its cluster_config.go, isReplicationFactorValid). */
function compareFactors(settings: Settings): readonly Problem[] {
  const least = settings.get("CLUSTER_REPLICATION_MIN");
  const most = settings.get("CLUSTER_REPLICATION_MAX");
  if (least === undefined || most === undefined) return [];
  const subject = "CLUSTER_REPLICATION_MIN";
  const remedy = "Give both, the minimum not above the maximum; or -1 for both: a copy on every node.";
  if ((least.value === "-1") !== (most.value === "-1")) {
    const what = `${subject} is ${least.value} and CLUSTER_REPLICATION_MAX is ${most.value}: -1 goes for both or for none.`;
    return [{ subject, what, remedy }];
  }
  if (Number(least.value) <= Number(most.value)) return [];
  const what = `${subject} (${least.value}) is above CLUSTER_REPLICATION_MAX (${most.value}).`;
  return [{ subject, what, remedy }];
}

const PORTS = ["POSTGRES_PORT", "PINNING_API_PORT", "WEBUI_PORT"] as const;

function comparePorts(settings: Settings): readonly Problem[] {
  const isElsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
  const keys = PORTS.filter((key) => !(key === "POSTGRES_PORT" && isElsewhere));
  return keys.flatMap((key, index) => {
    const port = settings.get(key)?.value;
    const other = keys.slice(0, index).find((earlier) => settings.get(earlier)?.value === port);
    if (port === undefined || other === undefined) return [];
    const what = `${key} and ${other} are both ${port}.`;
    return [{ subject: key, what, remedy: "Give each a port of its own." }];
  });
}
