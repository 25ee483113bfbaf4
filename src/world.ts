import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { openCluster } from "./cluster/client.ts";
import type { World } from "./commands/world.ts";
import { openPostgresPool } from "./database/pool.ts";
import { OperatorError } from "./errors.ts";
import { openNodesClient, parseNodeIdentity } from "./federation/announcer.ts";
import { createHost } from "./host/create-host.ts";
import { takeLock } from "./machine/lock.ts";
import { parseVerifyingKey, readSigningKey, readVerifyingKey } from "./machine/signing.ts";
import { openAlertLog } from "./pinset/alerts.ts";
import { listSnapshotFiles, openSnapshotFile, openSnapshotStore } from "./pinset/snapshot/store.ts";
import { openWorkspace } from "./pinset/workspace.ts";
import { createJson } from "./ui/json.ts";
import { createLines } from "./ui/lines.ts";
import type { Reporter } from "./ui/reporter.ts";

/** Puts the real world together: the only place where verbs meet this process. */
export async function createWorld(
  process: NodeJS.Process,
  version: string,
  options: { readonly json: boolean; readonly stop: AbortSignal },
): Promise<World> {
  const { json, stop } = options;
  const packageDir = dirname(dirname(fileURLToPath(import.meta.url)));
  const live = process.stdin.isTTY && process.stdout.isTTY && !json;
  return {
    host: createHost({ env: process.env, migrationsDir: `${packageDir}/migrations`, toolVersion: version }),
    reporter: await createReporter(process, json, live),
    questions: live ? (await import("./ui/ask.ts")).createQuestions(process.stdin, process.stdout) : null,
    environment: process.env,
    version,
    packageDir,
    nodePath: process.execPath,
    hostname: hostname(),
    pid: process.pid,
    hash: (text) => createHash("sha256").update(text).digest("hex"),
    takeLock,
    openCluster,
    openSnapshots: openSnapshotStore,
    openSnapshotFile,
    listSnapshotFiles,
    openWorkspace: () => openWorkspace(process.env["TMPDIR"] ?? "/var/tmp"),
    openAlerts: (path) => openAlertLog(path),
    readSigningKey,
    parseNodeIdentity,
    openNodesClient: (url) => openNodesClient(url),
    parseVerifyingKey,
    readStdin: () => readAll(process.stdin),
    readVerifyingKey,
    openPool: openPostgresPool,
    openIngestHands: async (target) => (await import("./ingest/hands.ts")).openIngestHands(target),
    stop,
  };
}

async function createReporter(process: NodeJS.Process, json: boolean, live: boolean): Promise<Reporter> {
  const streams = {
    out: (line: string) => void process.stdout.write(`${line}\n`),
    err: (line: string) => void process.stderr.write(`${line}\n`),
  };
  if (json) return createJson(streams);
  return live
    ? (await import("./ui/terminal.ts")).createTerminal(streams, Date.now)
    : createLines(streams, Date.now);
}

const MAX_STDIN_BYTES = 1024 ** 2;

async function readAll(stream: NodeJS.ReadStream): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_STDIN_BYTES) {
      throw new OperatorError({
        exit: "usage",
        what: "Standard input is larger than 1 MiB.",
        remedy: "Give the token alone.",
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
