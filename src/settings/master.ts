import { BILLING_SETTINGS } from "./billing.ts";
import { EDGE_SETTINGS } from "./edge.ts";
import { POSTGRES_SETTINGS } from "./postgres-target.ts";
import { RULES } from "./rules.ts";
import type { SettingSpec } from "./settings.ts";
import { LOG_LEVEL } from "./storage.ts";

/**
 * The settings of a master, in the order of `.env`. The keys have their upstream names
 * (functionland/pinning-service, functionland/fula-ota), so that an upstream `.env` works here.
 */
export const MASTER_SETTINGS: readonly SettingSpec[] = [
  { key: "CLUSTERNAME", about: "the name of the pool, the same on every node of the pool", rule: RULES.name },
  { key: "CLUSTER_PEERNAME", about: "the name of this master in the cluster", rule: RULES.name, bound: true },
  {
    key: "MASTER_ID",
    about: "the identity of this master in the database; generated once, and unique to this machine",
    rule: RULES.masterId,
    generated: { kind: "hex", bytes: 16 },
  },
  {
    key: "CLUSTER_SECRET",
    about:
      "64 hex digits, the same on every node of the pool; if not set, derived from CLUSTERNAME as upstream does, and so not secret",
    rule: RULES.hex64,
    bound: true,
    secret: true,
    immutable: true,
  },
  {
    key: "MASTER_CLUSTER_BOOTSTRAP",
    about: "the cluster address of an existing master; not set on the first master of a pool",
    rule: RULES.peerMultiaddr,
  },
  {
    key: "MASTER_CLUSTER_PEERIDS",
    about: "cluster peer ids of the other masters; this master accepts their pins",
    rule: RULES.peerIds,
  },
  { key: "POOL_API", about: "URL of the pool API, which publishes the masters of the pool", rule: RULES.url },
  {
    key: "IPFS_API_ADDR",
    about: "address of kubo's RPC API",
    rule: RULES.apiMultiaddr,
    byDefault: "/ip4/127.0.0.1/tcp/5001",
  },
  {
    key: "IPFS_CLUSTER_API_ADDR",
    about: "address of ipfs-cluster's REST API",
    rule: RULES.apiMultiaddr,
    byDefault: "/ip4/127.0.0.1/tcp/9094",
  },
  {
    key: "CLUSTER_BASIC_AUTH",
    about:
      "user:password of ipfs-cluster's REST API; generated for a writer that fula-node creates, unless the gateway's image is on the machine, because it can't send one",
    rule: RULES.credentials,
    secret: true,
  },
  {
    key: "CLUSTER_REPLICATION_MIN",
    about: "minimum number of copies of a pin",
    rule: RULES.factor,
    byDefault: "-1",
    readBy: "ipfs-cluster",
  },
  {
    key: "CLUSTER_REPLICATION_MAX",
    about: "maximum number of copies of a pin",
    rule: RULES.factor,
    byDefault: "-1",
    readBy: "ipfs-cluster",
  },
  {
    key: "KUBO_PRIVATE_NETWORK",
    about:
      "set to true if the pool's nodes connect over private addresses; otherwise kubo does not dial them",
    rule: RULES.flag,
  },
  {
    key: "WRITER_DIR",
    about: "data directory of a writer that fula-node creates",
    rule: RULES.path,
    bound: true,
    byDefault: "/opt/fula-writer",
  },
  ...POSTGRES_SETTINGS,
  {
    key: "SYSTEM_KEY",
    about: "key for the /admin routes of the pinning API",
    rule: RULES.systemKey,
    secret: true,
    generated: { kind: "token", characters: 48 },
  },
  {
    key: "FULA_PIN_SERVICE_SECRET",
    about:
      "with it, services on this machine may use the pinning API for any account (header X-Fula-Service-Auth); if not set, or disabled, that header is refused",
    rule: RULES.any,
    secret: true,
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
    about: "port of the pinning API on 127.0.0.1",
    rule: RULES.port,
    byDefault: "6000",
  },
  {
    key: "PINNING_EDGE_PORT",
    about: "port of the pinning API on 127.0.0.1 for the proxy that serves other machines",
    rule: RULES.port,
    byDefault: "6001",
  },
  { key: "WEBUI_PORT", about: "port of the storage API on 127.0.0.1", rule: RULES.port, byDefault: "3001" },
  {
    key: "PINNING_METRICS_PORT",
    about: "port of the pinning API's metrics for Prometheus on 127.0.0.1",
    rule: RULES.port,
    byDefault: "16000",
  },
  {
    key: "WEBUI_METRICS_PORT",
    about: "port of the storage API's metrics for Prometheus on 127.0.0.1",
    rule: RULES.port,
    byDefault: "13001",
  },
  LOG_LEVEL,
  {
    key: "STORAGE_API_URL",
    about: "public URL of the storage API, for storage nodes; included in invites",
    rule: RULES.apiUrl,
  },
  ...EDGE_SETTINGS,
  {
    key: "NODE_NAMES_PER_OWNER",
    about: "maximum number of node names that one API key may register in this pool",
    rule: RULES.count,
    byDefault: "5",
  },
  {
    key: "NODE_REGISTRATION",
    about:
      "who may register a node's name with this master: invite (nodes with an invite of this master) or open (anybody)",
    rule: RULES.registration,
    byDefault: "invite",
  },
  ...BILLING_SETTINGS,
  {
    key: "ETHERSCAN_API_KEY",
    about: "key for the Etherscan API",
    rule: RULES.any,
    secret: true,
    readBy: "upstream",
  },
  {
    key: "FREE_TIER_BYTES",
    about: "bytes that an account can store for free: 0 to 9007199254740991",
    rule: RULES.bytes,
    byDefault: "524288000",
  },
  {
    key: "CREDIT_GATE",
    about: "closed: without a balance, at most FREE_PENDING_PINS unfinished pins; open: any number",
    rule: RULES.creditGate,
    byDefault: "closed",
  },
  {
    key: "FREE_PENDING_PINS",
    about: "how many unfinished pins, of unknown size, an account without a balance may have",
    rule: RULES.count,
    byDefault: "10",
  },
  {
    key: "PIN_DEADLINE_MINUTES",
    about: "after so many minutes, a pin whose content no peer provides becomes failed",
    rule: RULES.count,
    byDefault: "1440",
  },
  {
    key: "DAG_IMPORT_ENABLED",
    about: "the pinning API accepts CAR files, whose blocks go to the master's kubo",
    rule: RULES.flag,
    byDefault: "false",
  },
  {
    key: "DAG_IMPORT_MAX_BYTES",
    about: "how many bytes a CAR file may have",
    rule: RULES.count,
    byDefault: "838860800",
  },
  {
    key: "DAG_IMPORT_MIN_BALANCE_DAYS",
    about: "for how many days a balance must last with the CAR file; 0: no such condition",
    rule: RULES.days,
    byDefault: "0",
  },
  {
    key: "FULA_PER_GB_MONTH",
    about: "price in FULA per GiB and month",
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
    about: "the gateway updates bucket roots by compare-and-swap in the database",
    rule: RULES.flag,
    byDefault: "false",
  },
  {
    key: "FULA_EIP712_AUTH",
    about:
      "accept tokens that a wallet signed (EIP-712): anybody with a wallet then has an account here, with its own free tier",
    rule: RULES.flag,
    byDefault: "false",
  },
  {
    key: "KEEP",
    about: "the newest snapshots that always stay; older ones are thinned out",
    rule: RULES.count,
    byDefault: "28",
  },
  {
    key: "SNAPSHOT_DROP_PERCENT",
    about: "raise an alarm if more than this percentage of the pins of the largest snapshot is gone",
    rule: RULES.percent,
    byDefault: "10",
  },
  {
    key: "REPL_MIN",
    about:
      "the sweep raises an alarm for every pin with fewer copies than this, also if its own minimum is lower",
    rule: RULES.count,
    byDefault: "2",
  },
  {
    key: "ALERT_COMMAND",
    about:
      "absolute path of a program that is run with each alarm, as JSON on its standard input; only root may be able to change it",
    rule: RULES.program,
  },
  {
    key: "BACKUP_DIR",
    about:
      "directory for a backup every night, on another disk or machine; only with BACKUP_RECIPIENT. Without both, none is made",
    rule: RULES.path,
  },
  {
    key: "BACKUP_RECIPIENT",
    about:
      "recipient of age that backups are encrypted for, or several with commas between. The secret key stays off this machine",
    rule: {
      requirement: "a recipient of age (age1...), or several with commas between them",
      holds: (value) => /^age1[a-z0-9]{20,2500}(?:,age1[a-z0-9]{20,2500})*$/.test(value),
    },
  },
  {
    key: "BACKUP_KEEP",
    about: "how many good backups stay in BACKUP_DIR; older ones are removed",
    rule: RULES.count,
    byDefault: "14",
  },
  {
    key: "AUTO_UPDATE",
    about:
      "let nickfedor/watchtower update service containers whose images fula-node does not build; refused if there are none",
    rule: RULES.flag,
    byDefault: "false",
  },
  {
    key: "PINNING_API_IMAGE",
    about:
      "image of the pinning API; without it, or with `fula-node`, the service that fula-node builds; adopting a service sets it to the image that runs",
    rule: RULES.image,
  },
  {
    key: "WEBUI_IMAGE",
    about: "image of the storage API, in the same way",
    rule: RULES.image,
  },
  {
    key: "POSTGRES_IMAGE",
    about: "image of Postgres",
    rule: RULES.image,
    bound: true,
    byDefault: "postgres:16-alpine",
  },
  { key: "KUBO_IMAGE", about: "image of kubo", rule: RULES.image, byDefault: "ipfs/kubo:v0.42.0" },
  {
    key: "CLUSTER_IMAGE",
    about: "image of ipfs-cluster",
    rule: RULES.image,
    byDefault: "ipfs/ipfs-cluster:v1.1.6",
  },
  {
    key: "NODE_BASE_IMAGE",
    about: "base image of the service image",
    rule: RULES.image,
    byDefault: "node:26-trixie-slim",
  },
  {
    key: "GATEWAY_IMAGE",
    about: "image of the S3 gateway; the gateway runs only if this image is on the machine",
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

/** Where backups go every night, and for whom; null if they are not set up. */
export function backupsOf(
  values: (key: string) => string | undefined,
): { readonly directory: string; readonly recipient: string } | null {
  const [directory, recipient] = [values("BACKUP_DIR"), values("BACKUP_RECIPIENT")];
  return directory === undefined || recipient === undefined ? null : { directory, recipient };
}
