// Run in a box (`node -`): prints what end-state.ts compares, as one line of JSON. It only reads.
"use strict";
const { createHash } = require("node:crypto");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");

/** Everything that a run may write to. */
const ROOTS = [
  "/opt",
  "/etc",
  "/usr/local",
  "/var/spool/cron",
  "/root",
  "/home",
  "/srv",
  "/run/fula-node",
  "/var/lib/docker/volumes",
];
/** The engine of the boxes writes these, and they differ from box to box. */
const OF_THE_BOX = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"];
/** Data of kubo, ipfs-cluster and Postgres: what is deeper is theirs alone, and changes all the time. */
const DATA = /^(?:\/opt\/[^/]+\/(?:kubo|ipfs-cluster)|\/var\/lib\/docker\/volumes\/[^/]+\/_data)(?:\/|$)/;
/** Of their data, the files that say who a node is and how it is set up. */
const IDENTITIES =
  /\/(?:config|datastore_spec|version|identity\.json|service\.json|PG_VERSION|pg_hba\.conf)$/;
/** Text is compared as text there. Elsewhere a hash is enough. */
const TEXTS = /^\/(?:opt\/(?!.*\/cli\/)|etc\/cron|var\/spool\/cron|run\/|srv\/)/;
const LONGEST_TEXT = 100_000;

/** The inodes of the files that some process has locked. */
const locked = new Set(
  fs
    .readFileSync("/proc/locks", "utf8")
    .split("\n")
    .map((line) => Number(/ [0-9a-f]+:[0-9a-f]+:(\d+) /.exec(line)?.[1])),
);

const files = [];
for (const root of ROOTS) walk(root);
process.stdout.write(
  JSON.stringify({ files, docker: docker(), units: units(), tables: crontabs(), database: database() }),
);

function walk(path) {
  if (OF_THE_BOX.includes(path)) return;
  let stat;
  try {
    stat = fs.lstatSync(path);
  } catch {
    return;
  }
  const entry = { path, mode: (stat.mode & 0o7777).toString(8), owner: `${stat.uid}:${stat.gid}` };
  if (stat.isSymbolicLink()) {
    files.push({ ...entry, kind: "link", content: fs.readlinkSync(path) });
  } else if (stat.isDirectory()) {
    files.push({ ...entry, kind: "directory" });
    if (isDeep(path)) return;
    for (const name of fs.readdirSync(path).toSorted((one, two) => (one < two ? -1 : 1)))
      walk(`${path}/${name}`);
  } else if (stat.isFile()) {
    // A lock is the kernel's, and ends with its process. Its file alone means nothing, and a boot removes it.
    if (/^\/run\/fula-node\/\w+\.lock$/.test(path) && !locked.has(stat.ino)) return;
    files.push({ ...entry, kind: "file", ...contentOf(path, stat.size) });
  } else {
    files.push({ ...entry, kind: "special" });
  }
}

/** True for a directory in the data of a program. */
function isDeep(path) {
  const found = DATA.exec(path);
  return found !== null && path.length > found[0].length && found[0].endsWith("/");
}

function contentOf(path, size) {
  if (DATA.test(path) && !IDENTITIES.test(path)) return { content: "(data)" };
  if (/^\/var\/lib\/docker\/volumes\/[^/]+$/.test(path)) return { content: "(data)" };
  const bytes = fs.readFileSync(path);
  const isText = (TEXTS.test(path) || DATA.test(path)) && size <= LONGEST_TEXT && !bytes.includes(0);
  if (isText && Buffer.from(bytes.toString("utf8")).equals(bytes)) return { text: bytes.toString("utf8") };
  return { content: createHash("sha256").update(bytes).digest("hex") };
}

function run(program, args) {
  return execFileSync(program, args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 28,
  }).trim();
}

/** The same, null if it fails: the program is not there, or nothing answers. */
function attempt(program, args) {
  try {
    return run(program, args);
  } catch {
    return null;
  }
}

function docker() {
  if (attempt("docker", ["version"]) === null) return null;
  const inspect = (kind, ids) =>
    ids.length === 0 ? [] : JSON.parse(run("docker", [kind, "inspect", ...ids]));
  const list = (...args) => run("docker", args).split("\n").filter(Boolean);
  return {
    containers: inspect("container", list("ps", "--all", "--quiet", "--no-trunc")),
    volumes: inspect("volume", list("volume", "ls", "--quiet")),
    networks: inspect("network", list("network", "ls", "--quiet", "--no-trunc")),
    images: inspect("image", [...new Set(list("image", "ls", "--quiet", "--no-trunc"))]).map(withTree),
  };
}

/** An image that was built here, with a hash over the files of its last two layers: the layers' own hashes cover times, too. */
function withTree(image) {
  if (!image.RepoTags.some((tag) => tag.startsWith("fula-node:"))) return image;
  const { UpperDir, LowerDir } = image.GraphDriver.Data;
  const lines = [UpperDir, LowerDir.split(":")[0]].flatMap((root) =>
    fs
      .readdirSync(root, { recursive: true })
      .toSorted((one, two) => (one < two ? -1 : 1))
      .map((name) => {
        const stat = fs.lstatSync(`${root}/${name}`);
        const bytes = stat.isFile() ? fs.readFileSync(`${root}/${name}`) : "";
        const hash = createHash("sha256").update(bytes).digest("hex");
        return `${name} ${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${hash}`;
      }),
  );
  return { ...image, Tree: createHash("sha256").update(lines.join("\n")).digest("hex") };
}

/** What systemd starts with the machine, and how the units that a join starts stand. */
function units() {
  const enabled =
    attempt("systemctl", ["list-unit-files", "--state=enabled", "--no-legend", "--plain"]) ?? "";
  const names = enabled.split("\n").flatMap((line) => line.split(/\s+/)[0] || []);
  const active = ["docker.service", "cron.service"].filter(
    (unit) => attempt("systemctl", ["is-active", unit]) === "active",
  );
  return [...names.map((name) => `enabled ${name}`), ...active.map((name) => `active ${name}`)].toSorted();
}

/** The cron table of root, which is no file for everybody: cron may keep it elsewhere. */
function crontabs() {
  return attempt("crontab", ["-l"]) ?? "";
}

function database() {
  const inPostgres = ["exec", "postgres-pinning"];
  const AS_OWNER = ["-U", "pinning_user", "-d", "pinning_service"];
  const psql = (sql) => {
    const query = `SELECT coalesce(json_agg(to_jsonb(found)), '[]') FROM (${sql}) AS found`;
    return JSON.parse(run("docker", [...inPostgres, "psql", ...AS_OWNER, "-qtAXc", query]));
  };
  const dump = attempt("docker", [...inPostgres, "pg_dump", ...AS_OWNER, "--schema-only"]);
  if (dump === null) return null;
  const tables = psql("SELECT schemaname || '.' || relname AS name FROM pg_stat_user_tables ORDER BY 1").map(
    ({ name }) => name,
  );
  const counts = tables.map((name) => `SELECT '${name}' AS name, count(*) AS rows FROM ${name}`);
  const hasLedger = tables.includes("fula_node.migrations");
  return {
    dump,
    rows: counts.length === 0 ? [] : psql(counts.join(" UNION ALL ")),
    ledger: hasLedger
      ? psql("SELECT version, name, sha256, origin, state, error FROM fula_node.migrations ORDER BY version")
      : [],
    invalid: psql("SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid ORDER BY 1"),
    roles: psql(
      "SELECT rolname, rolsuper, rolcanlogin, rolcreatedb FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1",
    ),
    system: psql("SELECT system_identifier::text AS id FROM pg_control_system()")[0].id,
  };
}
