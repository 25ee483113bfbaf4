import type { Box } from "./box.ts";
import { psql } from "./master-box.ts";
import { until } from "./migrations.ts";
import { upstreamStatements } from "./upstream-database.ts";

/** The directory of upstream's checkout: its compose file is not below the base directory. */
const CHECKOUT = "/root/pinning-service";
const COMPOSE = `docker compose --env-file /opt/fula-master/.env -f ${CHECKOUT}/docker/master/docker-compose.master.yml`;

/** The keys that upstream's installer writes to `.env`, without quotes (pinning-service, update-scripts/join-as-master.sh). */
export const UPSTREAM_ENV: Readonly<Record<string, string>> = {
  POSTGRES_PASSWORD: "Upstream-Password-1",
  SYSTEM_KEY: "upstream-system-key",
  JWT_SECRET: "11".repeat(32),
  SESSION_SECRET: "22".repeat(32),
  POSTGRES_DB: "pinning_service",
  POSTGRES_USER: "pinning_user",
  BILLING_IDEMPOTENCY: "true",
  CRON_LEADER_LEASE: "true",
  VAULT_ADDRESS: "",
  WEBUI_PORT: "3001",
  PINNING_API_PORT: "6000",
  IPFS_CLUSTER_API_ADDR: "/ip4/127.0.0.1/tcp/9094",
  IPFS_API_ADDR: "/ip4/127.0.0.1/tcp/5001",
};

/** The images of upstream's services, which its installer builds on the machine. */
export const UPSTREAM_IMAGES = {
  api: "fula-pinning-api:master",
  webui: "fula-pinning-webui:master",
} as const;

/** The steps whose things upstream creates in another way than we do, in the order of the run. */
export const UPSTREAM_THINGS = [
  "compose-file",
  "postgres",
  "services",
  "snapshot-cron",
  "sweep-cron",
] as const;

/**
 * Changes a box, whose writer runs, into what the bash installer leaves at its migration 018: `.env`, a
 * compose project with the database in a named volume, the marker of its migrations, cron files, a signing
 * key and one signed snapshot. Its service images are stand-ins: by default they only listen on the ports of the real ones.
 */
export async function installUpstreamMaster(box: Box, services = LISTENING): Promise<void> {
  const compose = composeFile(services);
  const env = Object.entries(UPSTREAM_ENV).map(([key, value]) => `${key}=${value}\n`);
  await box.writeFile("/opt/fula-master/.env", `# saved by the installer\n${env.join("")}`, 0o600);
  await box.run("docker tag node:26-trixie-slim containrrr/watchtower:latest");
  for (const tag of [UPSTREAM_IMAGES.api, UPSTREAM_IMAGES.webui])
    await box.run(`docker image inspect ${tag} >/dev/null 2>&1 || docker tag node:26-trixie-slim ${tag}`);
  await box.writeFile(`${CHECKOUT}/docker/master/docker-compose.master.yml`, compose);
  // Operators copy the file to the base directory, for `docker compose ps` there.
  await box.writeFile("/opt/fula-master/docker-compose.yml", compose);
  await box.run(`${COMPOSE} up -d postgres`);
  await until(
    "upstream's database answers",
    async () => (await box.exec("docker exec postgres-pinning pg_isready -h 127.0.0.1")).exitCode === 0,
    60_000,
  );
  await fillDatabase(box);
  await box.writeFile("/opt/fula-master/.migrations-applied", "2026-06-20T10:00:00Z\n");
  await box.run(`${COMPOSE} up -d`);
  await installCrons(box);
  await takeSnapshot(box);
}

/** Every table of schema public with a digest of its rows, one per line. */
export async function digestTables(box: Box, tables: readonly string[]): Promise<readonly string[]> {
  const digests = tables.map(
    (name) =>
      `SELECT '${name} ' || count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '-') FROM ${name} t;`,
  );
  return (await psql(box, digests.join("\n"))).split("\n");
}

/** The names of the tables in schema public. */
export async function tablesOf(box: Box): Promise<readonly string[]> {
  const list = await psql(
    box,
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename;",
  );
  return list.split("\n");
}

async function fillDatabase(box: Box): Promise<void> {
  await psql(box, (await upstreamStatements(18)).map((statement) => `${statement};`).join("\n"));
}

async function installCrons(box: Box): Promise<void> {
  const entries = [
    [
      "fula-pinset-snapshot",
      "0 */6 * * *",
      "OUT_DIR=/opt/fula-master/snapshots KEEP=28",
      "pinset-snapshot.sh",
    ],
    ["fula-replication-sweep", "*/30 * * * *", "REPL_MIN=2", "replication-sweep.sh"],
  ] as const;
  for (const [file, when, env, script] of entries) {
    const line = `${when} root ${env} ${CHECKOUT}/update-scripts/${script} >> /var/log/${file}.log 2>&1`;
    await box.writeFile(`/etc/cron.d/${file}`, `# set up by the installer\n${line}\n`);
  }
}

async function takeSnapshot(box: Box): Promise<void> {
  await box.run(
    "cd /opt/fula-master && mkdir -p snapshots && openssl genpkey -algorithm ed25519 -out snapshot-ed25519.pem" +
      " && openssl pkey -in snapshot-ed25519.pem -pubout -out snapshot-ed25519.pub.pem && chmod 600 snapshot-ed25519.pem" +
      " && docker exec ipfs_cluster ipfs-cluster-ctl --enc=json pin ls > snapshots/pinset-20260620T120000Z.json" +
      " && openssl pkeyutl -sign -inkey snapshot-ed25519.pem -rawin -in snapshots/pinset-20260620T120000Z.json" +
      " -out snapshots/pinset-20260620T120000Z.json.sig",
  );
}

/** As upstream's services: no /health, and a route that works: POST /pins?name=X adds a pin, GET /pins lists them. */
const LISTENS = (port: string) => {
  const script = [
    "const pins = [];",
    "require('node:http').createServer((request, answer) => {",
    "  const { pathname, searchParams } = new URL(request.url, 'http://x');",
    "  if (pathname !== '/pins') { answer.statusCode = 401; return answer.end('{}'); }",
    "  if (request.method === 'POST') pins.push(searchParams.get('name'));",
    "  answer.end(JSON.stringify({ pins, admins: process.env.ADMIN_EMAILS ?? null }));",
    `}).listen(${port}, '127.0.0.1');`,
  ].join(" ");
  return JSON.stringify(["node", "-e", script]);
};

/** Adds a pin through one of upstream's services. */
export async function addPin(box: Box, port: number, name: string): Promise<void> {
  await box.run(`curl -sf -X POST "http://127.0.0.1:${port}/pins?name=${name}"`);
}

/** What one of upstream's services lists. */
export async function listPins(box: Box, port: number): Promise<unknown> {
  return JSON.parse((await box.run(`curl -sf http://127.0.0.1:${port}/pins`)).stdout) as unknown;
}

const LISTENING = `  pinning-api:
    image: ${UPSTREAM_IMAGES.api}
    container_name: fula-pinning-api
    network_mode: host
    command: ${LISTENS("6000")}
    restart: unless-stopped
  webui:
    image: ${UPSTREAM_IMAGES.webui}
    container_name: fula-pinning-webui
    network_mode: host
    environment:
      JWT_SECRET: \${JWT_SECRET:?}
      SESSION_SECRET: \${SESSION_SECRET:?}
      ADMIN_EMAILS: a@example.org
    command: ${LISTENS("3001")}
    restart: unless-stopped
`;

const composeFile = (services: string): string => `name: fula-master
services:
  postgres:
    image: postgres:16-alpine
    container_name: postgres-pinning
    environment:
      POSTGRES_DB: \${POSTGRES_DB:-pinning_service}
      POSTGRES_USER: \${POSTGRES_USER:-pinning_user}
      POSTGRES_PASSWORD: \${POSTGRES_PASSWORD:?}
    volumes: ["pgdata:/var/lib/postgresql/data"]
    ports: ["127.0.0.1:5432:5432"]
    restart: unless-stopped
${services}  watchtower:
    image: containrrr/watchtower:latest
    container_name: fula-master-updater
    command: ["node", "-e", "setInterval(() => {}, 1000)"]
    restart: unless-stopped
volumes:
  pgdata:
`;
