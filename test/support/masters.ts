import { createHash } from "node:crypto";
import type { MasterRecord } from "../../src/database/masters.ts";

/** The identity of a test's master. */
export function idOf(key: string): string {
  return createHash("md5").update(`identity of ${key}`).digest("hex");
}

/** A master as it records itself. Its identity is made from `key`, which is also its name by default. */
export function masterOf(key: string, fields: Partial<MasterRecord> = {}): MasterRecord {
  return {
    pool: "pool-a",
    id: idOf(key),
    name: key,
    flags: [],
    machine: `machine of ${key}`,
    peer: null,
    ...fields,
  };
}
