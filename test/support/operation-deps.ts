import { mkdtempSync, rmSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Clock } from "../../src/machine/clock.ts";
import type { Files } from "../../src/machine/file-writer.ts";
import { generateSigningKeyPem, parseSigningKey, type SigningKey } from "../../src/machine/signing.ts";
import { type AlarmChannels, openAlertLog } from "../../src/pinset/alerts.ts";
import { openSnapshotStore, type SnapshotStore } from "../../src/pinset/snapshot/store.ts";
import type { TakeOptions } from "../../src/pinset/snapshot/take.ts";
import { openWorkspace, type PinsetWorkspace } from "../../src/pinset/workspace.ts";

/** A clock that tests set. `wait` moves it forward at once. */
export class SetClock implements Clock {
  #now: number;
  #elapsedMs = 0;
  constructor(start = "2026-11-21T20:00:00Z") {
    this.#now = Date.parse(start);
  }
  now(): Date {
    return new Date(this.#now);
  }
  monotonicMs(): number {
    return this.#elapsedMs;
  }
  move(ms: number): void {
    this.#now += ms;
    this.#elapsedMs += ms;
  }
  async wait(durationMs: number): Promise<void> {
    this.move(durationMs);
  }
}

/** What an operation over pins needs, in its own directory. */
export interface OperationDeps {
  readonly base: string;
  readonly store: SnapshotStore;
  readonly key: SigningKey;
  readonly clock: SetClock;
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  /** The alert log, without a command. */
  readonly channels: AlarmChannels;
  readonly workspace: PinsetWorkspace;
  readonly memory: TakeOptions["memory"];
  readonly lines: string[];
  readonly report: (line: string) => void;
  heartbeat(name: string): { files: Pick<Files, "readText" | "writeAtomic">; clock: Clock; path: string };
  alertLines(): Promise<readonly string[]>;
  clear(): void;
}

/** Creates the dependencies in a temporary directory; `clear` removes the directory. */
export function operationDeps(): OperationDeps {
  const base = mkdtempSync(join(tmpdir(), "fula-operation-"));
  const keyPath = join(base, "snapshot-ed25519.pem");
  const clock = new SetClock();
  const lines: string[] = [];
  const files = {
    readText: (path: string): Promise<string | null> =>
      readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT") return null;
        throw cause;
      }),
    writeAtomic: async (path: string, text: string): Promise<void> => {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
    },
  };
  const alerts = openAlertLog(join(base, "replication-alerts.log"));
  return {
    base,
    store: openSnapshotStore(join(base, "snapshots")),
    key: parseSigningKey(generateSigningKeyPem(), keyPath),
    clock,
    files,
    channels: { log: alerts, command: null, source: { host: "box", pool: "lab" } },
    workspace: openWorkspace(base),
    memory: { files, path: join(base, "state", "snapshot-chain.json") },
    lines,
    report: (line) => void lines.push(line),
    heartbeat: (name) => ({ files, clock, path: join(base, "heartbeats", `${name}.json`) }),
    alertLines: async () =>
      ((await files.readText(alerts.path)) ?? "").split("\n").filter((line) => line !== ""),
    clear: () => rmSync(base, { recursive: true, force: true }),
  };
}
