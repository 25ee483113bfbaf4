import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { DUMP_FILE } from "../../src/settings/layout.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { sql } from "../support/postgres-server.ts";
import { docker } from "../support/tiny-image.ts";
import type { Bench, Measurement } from "./report.ts";
import { type Measured, measure } from "./snapshot-measure.ts";

const FEW = 100_000;
/** About 1 GB of tables. */
const MANY = 8_000_000;
const ROUNDS = 3;
const CHILD = fileURLToPath(new URL("../support/backup-child.ts", import.meta.url));

/**
 * A backup of a database of 1 GB, against pg_dump through the same compressor and encryptor into a file. The backup also packs,
 * hashes, unpacks and compares what it writes, syncs it, and reads it back.
 */
export const benches: readonly Bench[] = [{ name: "backup", onlyByName: true, run: measureBackup }];

async function measureBackup(): Promise<readonly Measurement[]> {
  const directory = mkdtempSync(join(tmpdir(), "fula-node-backup-"));
  const source = await startDumpSource("backup-bench", ["-c", "max_wal_size=4GB"]);
  const identity = await generateX25519Identity();
  const recipient = await identityToRecipient(identity);
  const image = docker("image", "inspect", "--format", "{{.Id}}", source.image);
  const run = async (mode: "backup" | "plain" | "unpack"): Promise<Measured> => {
    const { target } = source;
    process.env["BACKUP"] = JSON.stringify({ mode, target, image, directory, recipient, identity });
    const measured = await measure(process.execPath, ["--import", "tsx", CHILD]);
    for (const name of docker("ps", "--all", "--quiet", "--filter", "name=fula-backup-dump").split("\n"))
      if (name !== "") docker("rm", "--force", name);
    return measured;
  };
  try {
    await sql(source.target, "CREATE TABLE rows (n bigint, cid text, name text)");
    await addRows(source, FEW);
    const small = await run("backup");
    await addRows(source, MANY - FEW);
    const pairs: { readonly ours: Measured; readonly anchor: Measured }[] = [];
    for (let round = 0; round < ROUNDS; round += 1)
      pairs.push({ anchor: await run("plain"), ours: await run("backup") });
    const dump = `${directory}/unpacked/${DUMP_FILE}`;
    const restores: { readonly ours: number; readonly anchor: number }[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      rmSync(`${directory}/unpacked`, { recursive: true, force: true });
      const unpacked = await run("unpack");
      const anchor = await restoreInto(source, `anchor_${round}`, dump, []);
      const restored = await restoreInto(source, `ours_${round}`, dump, ["--single-transaction"]);
      restores.push({ ours: unpacked.seconds + restored, anchor });
    }
    const size = await sql<{ size: string }>(
      source.target,
      "SELECT pg_size_pretty(pg_database_size(current_database())) AS size",
    );
    return [
      {
        name: `backup create, a database of ${size[0]?.size ?? ""}`,
        what: "dumps, packs, compresses, encrypts, verifies, reads back",
        against: "pg_dump through the same compressor and encryptor",
        unit: "s",
        target: { of: "ratio", bound: "at most", value: 1.3 },
        ours: pairs.map(({ ours }) => ours.seconds),
        anchor: pairs.map(({ anchor }) => anchor.seconds),
      },
      {
        name: "its memory",
        what: "VmHWM of the process, with the loader of TypeScript",
        against: `the same with ${FEW} rows`,
        unit: "MiB",
        target: { of: "ratio", bound: "at most", value: 1.5 },
        ours: pairs.map(({ ours }) => ours.peakMiB),
        anchor: pairs.map(() => small.peakMiB),
      },
      {
        name: "restore of it",
        what: "verifies and unpacks all of it, then pg_restore in one transaction",
        against: "pg_restore of the same dump",
        unit: "s",
        target: { of: "ratio", bound: "at most", value: 2 },
        ours: restores.map(({ ours }) => ours),
        anchor: restores.map(({ anchor }) => anchor),
      },
    ];
  } finally {
    source.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function addRows({ target }: DumpSource, count: number): Promise<void> {
  await sql(
    target,
    "INSERT INTO rows SELECT n, 'bafkrei' || md5(n::text) || '4wgxsbhh5iohv4e2ei', 'file-' || n FROM generate_series(1, $1::integer) n",
    [count],
  );
}

/** Seconds of pg_restore into a new database of the server, as the step of a join does it. */
async function restoreInto(
  { container, target }: DumpSource,
  database: string,
  dump: string,
  flags: readonly string[],
): Promise<number> {
  await sql(target, `CREATE DATABASE ${database}`);
  const command = ["docker", "exec", "--interactive", container, "pg_restore", "--username=pinning_user"];
  const all = [...command, `--dbname=${database}`, "--exit-on-error", ...flags].join(" ");
  const { seconds } = await measure("sh", ["-c", `${all} <${dump}`]);
  await sql(target, `DROP DATABASE ${database}`);
  return seconds;
}
