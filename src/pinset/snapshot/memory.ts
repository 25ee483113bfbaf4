import * as z from "zod";

/** The last snapshot of a chain. */
export interface ChainEnd {
  readonly name: string;
  readonly sequence: number;
  /** Of the bytes of its manifest. */
  readonly manifestSha256: string;
  /** The key that signed it. */
  readonly keyId: string;
}

/** A key that signed snapshots before another key replaced it. */
export interface RetiredKey {
  readonly keyId: string;
  readonly publicPem: string;
  /** The key that replaced it. */
  readonly successorId: string;
  /** The signature of the retired key over endorsementOf(the successor's public key), as hex. */
  readonly endorsement: string;
}

/** Numbers of snapshots, the first and the last one. */
export type Numbers = readonly [first: number, last: number];

/** What a master remembers of its snapshots outside of their directory. */
export interface ChainMemory {
  /** Null before the first snapshot. */
  readonly last: ChainEnd | null;
  readonly retiredKeys: readonly RetiredKey[];
  /**
   * The numbers that retention removed, or that the operator accepted as gone, in order. Any other number that is not
   * here is missing. Null: not recorded, because an earlier version wrote the file.
   */
  readonly removed: readonly Numbers[] | null;
}

const schema = z.object({
  version: z.literal(1),
  last: z
    .object({
      name: z.string(),
      sequence: z.number().int().nonnegative(),
      manifest_sha256: z.string().regex(/^[0-9a-f]{64}$/),
      key_id: z.string(),
    })
    .nullable(),
  retired_keys: z.array(
    z.object({
      key_id: z.string(),
      public_pem: z.string(),
      successor_id: z.string(),
      endorsement: z.string().regex(/^[0-9a-f]{128}$/),
    }),
  ),
  removed: z.array(z.tuple([z.number().int().positive(), z.number().int().positive()])).nullish(),
});

/** Reads the file. Null if there is none yet, `damaged` if it is not such a file. */
export function parseMemory(text: string | null): ChainMemory | null | "damaged" {
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "damaged";
  }
  const read = schema.safeParse(value);
  if (!read.success) return "damaged";
  const { last, retired_keys: retired, removed = null } = read.data;
  return {
    last:
      last === null
        ? null
        : {
            name: last.name,
            sequence: last.sequence,
            manifestSha256: last.manifest_sha256,
            keyId: last.key_id,
          },
    retiredKeys: retired.map((key) => ({
      keyId: key.key_id,
      publicPem: key.public_pem,
      successorId: key.successor_id,
      endorsement: key.endorsement,
    })),
    removed,
  };
}

/** The text of the file. */
export function serialiseMemory({ last, retiredKeys, removed }: ChainMemory): string {
  const file: z.infer<typeof schema> = {
    version: 1,
    last:
      last === null
        ? null
        : {
            name: last.name,
            sequence: last.sequence,
            manifest_sha256: last.manifestSha256,
            key_id: last.keyId,
          },
    retired_keys: retiredKeys.map((key) => ({
      key_id: key.keyId,
      public_pem: key.publicPem,
      successor_id: key.successorId,
      endorsement: key.endorsement,
    })),
    ...(removed === null ? {} : { removed: removed.map(([from, to]): [number, number] => [from, to]) }),
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** The text that a key signs to name the key that replaces it. */
export function endorsementOf(successorPublicPem: string): string {
  return `fula-node: this key is replaced as the snapshot key by\n${successorPublicPem.trim()}\n`;
}

/** The memory after a key was replaced. Save it before the new key signs anything. */
export function retireKey(memory: ChainMemory, retired: RetiredKey): ChainMemory {
  const others = memory.retiredKeys.filter(({ keyId }) => keyId !== retired.keyId);
  return { ...memory, retiredKeys: [...others, retired] };
}

/** Why a chain restarts although nothing of the last one is left. */
export const ALL_GONE = "no snapshot is left, and the record of them is gone";

/** How the snapshots on the disk relate to what is remembered. `why` is half a sentence. */
export type Continuity =
  | { readonly state: "first" | "continues" }
  | { readonly state: "restarted"; readonly expected: number | null; readonly why: string };

/**
 * Decides if the next snapshot continues the chain. `newest`: the newest snapshot with a valid signature, null if there
 * is none. `keyId`: the key that signs the next one. `succeeds`: whether a key is proven to have replaced another one.
 * `wasTaken`: whether a run is known to have taken one, from elsewhere than from this memory.
 */
export function judgeContinuity(
  memory: ChainMemory | null | "damaged",
  newest: ChainEnd | null,
  keys: {
    readonly keyId: string;
    readonly succeeds: (earlier: string, later: string) => boolean;
    readonly wasTaken: boolean;
  },
): Continuity {
  if (memory === "damaged")
    return {
      state: "restarted",
      expected: null,
      why: "the record of the last snapshot is damaged",
    };
  const last = memory?.last ?? null;
  if (last === null && newest === null && keys.wasTaken)
    return { state: "restarted", expected: null, why: ALL_GONE };
  if (last === null) return { state: newest === null ? "first" : "continues" };
  const restarted = (why: string): Continuity => ({ state: "restarted", expected: last.sequence, why });
  if (last.keyId !== keys.keyId && !keys.succeeds(last.keyId, keys.keyId))
    return restarted(`the key ${last.keyId} was replaced by ${keys.keyId} without naming it`);
  if (newest === null) return restarted(`no snapshot is left; the last one was number ${last.sequence}`);
  if (newest.sequence < last.sequence)
    return restarted(`number ${last.sequence} is missing; the newest one is number ${newest.sequence}`);
  if (newest.sequence === last.sequence && newest.manifestSha256 !== last.manifestSha256)
    return restarted(`number ${last.sequence} is another snapshot than the one that was taken here`);
  return { state: "continues" };
}

/** The snapshot that the next one follows: the newest one, or the remembered one if that has a higher number. */
export function endOf(memory: ChainMemory | null | "damaged", newest: ChainEnd | null): ChainEnd | null {
  const last = memory === null || memory === "damaged" ? null : memory.last;
  if (last === null || newest === null) return newest ?? last;
  return newest.sequence > last.sequence ? newest : last;
}

/** The numbers from 1 to the highest of `present` that are neither present nor in `removed`. */
export function findMissing(present: readonly number[], removed: readonly Numbers[]): readonly Numbers[] {
  const known = joinNumbers([...present.map((number): Numbers => [number, number]), ...removed]);
  const end = Math.max(0, ...present);
  const missing: Numbers[] = [];
  let next = 1;
  for (const [first, last] of known) {
    if (first > next) missing.push([next, Math.min(first - 1, end)]);
    next = Math.max(next, last + 1);
  }
  return missing.filter(([first, last]) => first <= last);
}

/** The same numbers in as few ranges as possible, in order. */
export function joinNumbers(some: readonly Numbers[]): readonly Numbers[] {
  const joined: Numbers[] = [];
  for (const [first, last] of some.toSorted((a, b) => a[0] - b[0])) {
    const before = joined.at(-1);
    if (before !== undefined && first <= before[1] + 1)
      joined[joined.length - 1] = [before[0], Math.max(before[1], last)];
    else joined.push([first, last]);
  }
  return joined;
}

/** How many numbers these are. */
export function countNumbers(some: readonly Numbers[]): number {
  return some.reduce((sum, [first, last]) => sum + last - first + 1, 0);
}
