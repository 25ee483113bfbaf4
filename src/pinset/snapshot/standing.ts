import type { VerifyingKey } from "../../machine/signing.ts";
import { age, countOf, grouped } from "../../units.ts";
import { checkLinks, readLinks, trustedKeys } from "./links.ts";
import {
  ALL_GONE,
  type ChainMemory,
  countNumbers,
  findMissing,
  judgeContinuity,
  type Numbers,
} from "./memory.ts";
import type { SnapshotFile } from "./store.ts";
import type { Sha256 } from "./verify.ts";

/** How the snapshots of a master stand, for the status screen. */
export interface SnapshotStanding {
  readonly state: "ok" | "attention" | "down";
  /** `2 h ago, 4,812 pins, chain complete`. */
  readonly sentence: string;
  /** What to do; null if there is nothing to do. */
  readonly todo: string | null;
  /** True if some are gone, or what is here is not what this master remembers. */
  readonly isLost: boolean;
}

const LIST = "fula-node snapshot list";
const LOOK = "look for the missing snapshots, then: fula-node snapshot take";
const ACCEPT = "look for the cause; if it is right: fula-node snapshot take --accept";

/**
 * Judges the snapshots by their manifests, signatures, sizes and order, and by what this master remembers. It does not
 * open the bodies, so it is cheap: `snapshot take` reads these in turn, and `snapshot list` checks everything. `files`: from listSnapshotFiles.
 */
export function judgeSnapshots(
  files: readonly SnapshotFile[],
  key: VerifyingKey,
  deps: {
    readonly memory: ChainMemory | null | "damaged";
    /** Snapshots with a body that was found to be damaged. */
    readonly damaged?: readonly string[];
    /** A run is known to have taken one. */
    readonly wasTaken?: boolean;
    readonly sha256: Sha256;
    readonly now: Date;
    /** An older snapshot is stale. */
    readonly maxAgeMs: number;
  },
): SnapshotStanding {
  const keys = trustedKeys(key, deps.memory);
  const { links, faults, newer } = readLinks(files, keys, deps.sha256);
  const order = checkLinks(links);
  const newest = links.at(-1) ?? null;
  const damaged = [
    ...faults.map(({ name }) => name),
    ...links
      .filter(
        ({ name, file, manifest }) =>
          file.bodyBytes !== manifest.body.size_bytes || deps.damaged?.includes(name) === true,
      )
      .map(({ name }) => name),
  ];
  if (newest === null) return withoutAny(damaged, deps);
  const { manifest } = newest;
  const ageMs = deps.now.getTime() - Date.parse(manifest.created_at);
  const head = `${ageMs < 0 ? "in the future" : `${age(ageMs)} ago`}, ${grouped(manifest.pins.count)} ${manifest.pins.count === 1 ? "pin" : "pins"}`;
  const attention = (what: string, todo: string, isLost = false): SnapshotStanding => ({
    state: "attention",
    sentence: `${head}, ${what}`,
    todo,
    isLost,
  });
  if (damaged.length > 0) {
    const more = damaged.length > 1 ? ` and ${damaged.length - 1} more` : "";
    return attention(`${damaged[0]}${more} damaged`, LIST);
  }
  const brokenAt = links.find(({ name }) => order.get(name)?.state === "broken");
  if (brokenAt !== undefined) return attention(`chain broken at ${brokenAt.sequence}`, LIST);
  const continuity = judgeContinuity(deps.memory, newest, {
    keyId: key.id,
    succeeds: () => true,
    wasTaken: false,
  });
  if (continuity.state === "restarted") return attention(`chain broken: ${continuity.why}`, LOOK, true);
  const accepted = links.findLastIndex(({ manifest: one }) => one.accepted === true);
  const restart = links.slice(accepted + 1).findLast(({ manifest: one }) => one.restart !== undefined);
  if (restart !== undefined) return attention(`the chain restarted at ${restart.sequence}`, ACCEPT);
  const { drop } = manifest;
  if (drop !== null)
    return attention(
      `${drop.removed ?? drop.from - drop.to} of ${drop.from} are gone`,
      "see docs/lost-pinset.md; if it is right: fula-node snapshot take --accept",
    );
  const record = deps.memory === null || deps.memory === "damaged" ? null : deps.memory.removed;
  const absent = findMissing(
    links.map(({ sequence }) => sequence),
    record ?? [],
  );
  // The number of a snapshot in a newer format can't be read.
  const missing = Math.max(0, countNumbers(absent) - newer.length);
  if (missing > 0 && record !== null)
    return attention(
      `${grouped(missing)} missing (${describeNumbers(absent)})`,
      "look for them; if that is right: fula-node snapshot take --accept",
      true,
    );
  if (ageMs > deps.maxAgeMs || ageMs < 0)
    return attention(ageMs < 0 ? "the clock was set back" : "too old", "fula-node snapshot take");
  // An earlier version removed snapshots without a record of it.
  const chain = missing > 0 ? `${grouped(missing)} of the earlier ones not here` : "chain complete";
  return { state: "ok", sentence: `${head}, ${chain}`, todo: null, isLost: false };
}

/** `number 5`, `numbers 5 to 7 and more`. */
function describeNumbers([one, ...others]: readonly Numbers[]): string {
  if (one === undefined) return "";
  const [first, last] = one;
  const more = others.length === 0 ? "" : " and more";
  return first === last ? `number ${first}${more}` : `numbers ${first} to ${last}${more}`;
}

function withoutAny(
  damaged: readonly string[],
  { memory, wasTaken }: { readonly memory: ChainMemory | null | "damaged"; readonly wasTaken?: boolean },
): SnapshotStanding {
  const { length } = damaged;
  const down = (sentence: string, todo: string, isLost: boolean): SnapshotStanding => {
    return { state: "down", sentence, todo, isLost };
  };
  if (length > 0) return down(`none of ${countOf(length, "snapshot")} is valid`, LIST, false);
  const last = memory === null || memory === "damaged" ? null : memory.last;
  if (last !== null) return down(`no snapshot; the last one was number ${last.sequence}`, LOOK, true);
  if (wasTaken === true) return down(ALL_GONE, LOOK, true);
  return { state: "attention", sentence: "no snapshot", todo: "fula-node snapshot take", isLost: false };
}
