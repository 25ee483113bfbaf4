import { randomBytes } from "node:crypto";
import { open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { OperatorError, messageOf } from "../errors.ts";
import { matchSpills, openSpill } from "./pinset-spill.ts";
import type { PinsetMatch, PinsetSpill } from "./pinset-spill.ts";
import { cidKey, joinNumberedCids, openNumberedCids } from "./numbered-cids.ts";
import type { NumberedCids } from "./numbered-cids.ts";
import { BodyWriter } from "./snapshot-body.ts";
import { readBody } from "./snapshot-reader.ts";

export type { NumberedCids } from "./numbered-cids.ts";
export type { PinsetMatch, PinsetSpill } from "./pinset-spill.ts";

/** A listing kept on the disk, so that it can be read as often as a snapshot. */
export interface PinsetSpool {
  /** Takes whole lines of pins. A promise means: wait. */
  write(lines: Buffer): void | Promise<void>;
  finish(): Promise<void>;
  read(takeLines: (lines: Buffer) => void | Promise<void>): Promise<void>;
  /** Gives the disk's room back. */
  close(): Promise<void>;
}

/** Room on a disk for work on pinsets of any size; its files have no names, so nothing is ever left behind. */
export interface PinsetWorkspace {
  openSpill(): PinsetSpill;
  matchSpills(left: PinsetSpill, right: PinsetSpill): PinsetMatch;
  openSpool(): Promise<PinsetSpool>;
  openNumberedCids(): NumberedCids;
  readonly joinNumberedCids: typeof joinNumberedCids;
  /** What a CID is known by in NumberedCids. */
  readonly cidKey: typeof cidKey;
}

/** Opens a workspace in a directory on a disk, such as /var/tmp. */
export function openWorkspace(directory: string): PinsetWorkspace {
  return {
    openSpill: () => openSpill(directory),
    matchSpills,
    openNumberedCids: () => openNumberedCids(directory),
    joinNumberedCids,
    cidKey,
    openSpool: async () => {
      const path = join(directory, `.fula-node-spool-${randomBytes(8).toString("hex")}`);
      const guarded = guard(directory);
      const writer = await guarded(BodyWriter.create(path));
      const reader = await guarded(open(path, "r"));
      await guarded(unlink(path));
      return {
        write: (lines) => {
          const pending = writer.write(lines);
          return pending === undefined ? undefined : guarded(pending);
        },
        finish: async () => void (await guarded(writer.finish())),
        read: async (takeLines) => void (await readBody(`/proc/self/fd/${reader.fd}`, "gzip", { takeLines })),
        close: async () => {
          await writer.abandon();
          await reader.close();
        },
      };
    },
  };
}

function guard(directory: string): <T>(work: Promise<T>) => Promise<T> {
  return (work) =>
    work.catch((cause: unknown) => {
      if (cause instanceof OperatorError) throw cause;
      const full = (cause as NodeJS.ErrnoException).code === "ENOSPC";
      throw new OperatorError({
        exit: "unavailable",
        what: full
          ? `The disk that holds ${directory} is full.`
          : `It was not possible to work in ${directory}: ${messageOf(cause)}.`,
        remedy: "Make room, or name another directory with TMPDIR, then run this again.",
        cause,
      });
    });
}
