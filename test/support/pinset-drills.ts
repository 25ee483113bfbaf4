import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCluster } from "../../src/cluster/client.ts";
import { openKubo } from "../../src/cluster/kubo.ts";
import type { Drill, DrillContext, DrillOutcome } from "../../src/drills/drill.ts";
import type { SnapshotDrillDeps } from "../../src/drills/snapshot-drill.ts";
import type { SweepDrillDeps } from "../../src/drills/sweep-drill.ts";
import { openBlake3 } from "../../src/ingest/blake3.ts";
import { blockCidOf } from "../../src/ingest/cid.ts";
import type { InstalledMaster } from "../../src/join/installed-node.ts";
import { clock, random } from "../../src/machine/clock.ts";
import { files } from "../../src/machine/file-writer.ts";
import { http } from "../../src/machine/http.ts";
import { takeLock } from "../../src/machine/lock.ts";
import { generateSigningKeyPem, readSigningKey, readVerifyingKey } from "../../src/machine/signing.ts";
import { openOperatorCommand } from "../../src/pinset/alert-command.ts";
import { openAlertLog } from "../../src/pinset/alerts.ts";
import { listSnapshotFiles, openSnapshotFile, openSnapshotStore } from "../../src/pinset/snapshot/store.ts";
import { openWorkspace } from "../../src/pinset/workspace.ts";
import { masterLayout } from "../../src/settings/layout.ts";

/** What both drills of the pinset need. */
export type PinsetDrillDeps = SnapshotDrillDeps & SweepDrillDeps;

/** A master's directory with its keys and settings, whose cluster and kubo are elsewhere. */
export interface DrillMaster {
  readonly base: string;
  readonly deps: PinsetDrillDeps;
  readonly master: InstalledMaster;
  readonly settings: Record<string, string>;
  /** The nodes with a registered name. */
  registered: readonly { readonly owner: string; readonly name: string; readonly announced_at: null }[];
  readonly lines: string[];
  /** Cleans up, runs the drill, cleans up: what the runner does. */
  run<Deps>(
    drill: Drill<Deps>,
    deps?: PinsetDrillDeps,
  ): Promise<DrillOutcome & { readonly cleaned: readonly string[] }>;
  /** The names of what a drill has in the directory. */
  left(): readonly string[];
  clear(): void;
}

/** Where the cluster and kubo are, and the directory; a process of its own gets it as JSON. */
export interface DrillPlace {
  readonly base: string;
  readonly clusterUrl: string;
  readonly kuboUrl: string;
}

/** The settings that every such master has. */
export function drillSettings({ clusterUrl, kuboUrl }: DrillPlace): Record<string, string> {
  return {
    CLUSTERNAME: "lab",
    CLUSTER_SECRET: "ab".repeat(32),
    MASTER_ID: "0123456789abcdef0123456789abcdef",
    IPFS_CLUSTER_API_ADDR: clusterUrl,
    IPFS_API_ADDR: `/ip4/127.0.0.1/tcp/${new URL(kuboUrl).port}`,
    POSTGRES_PASSWORD: "secret",
    SNAPSHOT_DROP_PERCENT: "10",
    REPL_MIN: "2",
  };
}

/** Waits are short: doubles answer at once. It is never near the time of a job of cron. */
const quick = {
  monotonicMs: () => clock.monotonicMs(),
  now: () => new Date(new Date(2026, 10, 27, 9, 10).getTime() + clock.monotonicMs()),
  wait: (ms: number) => clock.wait(Math.min(ms, 5)),
};

/** The adapters of such a master. All are real but the database, which has the registered names only. */
export function drillDeps(
  { base }: Pick<DrillPlace, "base">,
  readRegistered: () => DrillMaster["registered"],
  isQuick = true,
): PinsetDrillDeps {
  const query = (_target: unknown, sql: string): Promise<unknown[]> =>
    Promise.resolve(sql.includes("node_names") ? [...readRegistered()] : []);
  const host = { files, clock: isQuick ? quick : clock, random, http, postgres: { query } };
  return {
    host: host as unknown as PinsetDrillDeps["host"],
    environment: { TMPDIR: join(base, "tmp") },
    version: "0.1.0",
    pid: process.pid,
    hash: (text) => createHash("sha256").update(text).digest("hex"),
    openCluster,
    openBlake3: () => openBlake3(),
    openKubo: async (...given) => openKubo(...given),
    openWorkspace: async () => openWorkspace(join(base, "tmp")),
    openSnapshots: async (directory) => openSnapshotStore(directory),
    openSnapshotFile,
    listSnapshotFiles,
    openChannels: async ({ log, command, pool }) => ({
      log: openAlertLog(log),
      command:
        command === undefined
          ? null
          : openOperatorCommand(command, {
              files,
              environment: { PATH: process.env["PATH"] ?? "" },
            }),
      source: { host: "box", pool },
    }),
    readSigningKey,
    readVerifyingKey,
    takeLock: (name, holder) => takeLock(name, holder, join(base, "locks")),
  };
}

/** Creates one in a temporary directory. */
export function startDrillMaster(
  place: Omit<DrillPlace, "base">,
  options: { readonly isQuick?: boolean } = {},
): DrillMaster {
  const base = mkdtempSync(join(tmpdir(), "fula-drill-test-"));
  mkdirSync(join(base, "tmp"));
  const layout = masterLayout(base);
  writeFileSync(layout.signingKey, generateSigningKeyPem(), { mode: 0o600 });
  const settings = drillSettings({ base, ...place });
  const master: InstalledMaster = { layout, values: (key) => settings[key] };
  const lines: string[] = [];
  const report = (line: string): void => void lines.push(line);
  const made: DrillMaster = {
    base,
    master,
    settings,
    registered: [],
    lines,
    deps: drillDeps({ base }, () => made.registered, options.isQuick),
    async run(drill, deps = made.deps) {
      const context: DrillContext = { master, report, stop: new AbortController().signal };
      const given = deps as never;
      await drill.cleanUp(given, context);
      const outcome = await drill.run(given, context);
      return { ...outcome, cleaned: await drill.cleanUp(given, context) };
    },
    left: () => readdirSync(base).filter((name) => name.startsWith("fula-drill-")),
    clear: () => {
      if (existsSync(base)) rmSync(base, { recursive: true, force: true });
    },
  };
  return made;
}

/** A kubo with blocks in memory. What the cluster has pinned can't be removed. */
export interface KuboDouble {
  readonly url: string;
  readonly blocks: Set<string>;
  /** False: it does not answer. */
  answers: boolean;
  stop(): Promise<void>;
}

/** Starts one on a free port of the loopback. */
export async function startKuboDouble(isPinned: (cid: string) => boolean): Promise<KuboDouble> {
  const blake3 = await openBlake3();
  const blocks = new Set<string>();
  const reply = (response: ServerResponse, status: number, body: unknown): void =>
    void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    if (!double.answers) return void request.socket.destroy();
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://kubo");
    const cid = searchParams.get("arg") ?? "";
    if (pathname === "/api/v0/block/put") {
      const body = Buffer.concat(parts);
      const bytes = body.subarray(body.indexOf("\r\n\r\n") + 4, body.lastIndexOf("\r\n--"));
      const key = blockCidOf(blake3.hash(bytes)).text;
      blocks.add(key);
      return reply(response, 200, { Key: key, Size: bytes.length });
    }
    if (pathname !== "/api/v0/block/rm")
      return reply(response, 500, { Message: "not pinned or pinned indirectly" });
    if (isPinned(cid)) return reply(response, 200, { Hash: cid, Error: "pinned: recursive" });
    if (!blocks.delete(cid)) return reply(response, 200, { Hash: cid, Error: `ipld: could not find ${cid}` });
    return reply(response, 200, { Hash: cid });
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const double: KuboDouble = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    blocks,
    answers: true,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return double;
}
