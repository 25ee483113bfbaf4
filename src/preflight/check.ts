import type { Container } from "../docker/engine.ts";
import type { HostReader } from "../host/host.ts";
import type { Ownership, PortNeed } from "../model/ports.ts";

/** What a check is told: plain data, settled before the first check runs. */
export interface PreflightContext {
  readonly baseDir: string;
  readonly ports: readonly PortNeed[];
  /** What has to be free at the base directory and at Docker's root. */
  readonly minimumFreeBytes: { readonly baseDir: number; readonly dockerRoot: number };
  readonly minimumMemoryBytes: { readonly required: number; readonly recommended: number };
  /** True where an image is to be built on this machine. */
  readonly wantsBuild: boolean;
  /** Whose a container is, by its labels and its name. */
  readonly ownership: (container: Container) => Ownership;
  /** Units whose processes are the adopted writer. */
  readonly writerUnits: readonly string[];
}

/** One thing that a check found wrong. */
export interface CheckProblem {
  /** A failure stops the run, a warning is told. */
  readonly severity: "failure" | "warning";
  readonly what: string;
  readonly why?: string;
  readonly remedy: string;
}

/** One small question about the machine, asked before anything is changed. It writes nothing. */
export interface Check {
  /** What `--ignore` calls it. */
  readonly id: string;
  readonly title: string;
  /** False where nothing could work in spite of the failure. */
  readonly ignorable: boolean;
  run(host: HostReader, context: PreflightContext): Promise<readonly CheckProblem[]>;
}

/** Bytes for a person: "1.9 GiB". */
export function inGibibytes(bytes: number): string {
  return `${(Math.floor((bytes / 1024 ** 3) * 10) / 10).toFixed(1)} GiB`;
}
