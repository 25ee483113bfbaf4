import * as fc from "fast-check";
import { cidOf } from "./cids.ts";
import type { DoublePin } from "./cluster-double.ts";

const PEERS = [
  "12D3KooWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
  "12D3KooWBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB",
];

const factors = fc.oneof(
  fc.constant({
    replication_factor_min: -1,
    replication_factor_max: -1,
    allocations: [] as readonly string[],
  }),
  fc.record({
    replication_factor_min: fc.integer({ min: 1, max: 3 }),
    replication_factor_max: fc.integer({ min: 3, max: 9 }),
    allocations: fc.subarray(PEERS),
  }),
);

const fields = fc.record({
  name: fc.string({ unit: "grapheme", maxLength: 40 }),
  metadata: fc.oneof(
    fc.constant(null),
    fc.dictionary(
      fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 }),
      fc.string({ unit: "grapheme", maxLength: 40 }),
      {
        maxKeys: 5,
      },
    ),
  ),
  mode: fc.constantFrom("recursive", "direct"),
  expire_at: fc.oneof(
    fc.constant("0001-01-01T00:00:00Z"),
    fc
      .date({
        min: new Date("2030-01-01T00:00:00Z"),
        max: new Date("2090-01-01T00:00:00Z"),
        noInvalidDate: true,
      })
      .map((date) => `${date.toISOString().slice(0, 19)}Z`),
  ),
  origins: fc.oneof(
    fc.constant([]),
    fc
      .subarray(PEERS, { minLength: 1 })
      .map((peers) => peers.map((peer) => `/ip4/192.0.2.7/tcp/4001/p2p/${peer}`)),
  ),
});

/** Any pin that a cluster can have and the REST API can return, with all options. */
export const anyPin: fc.Arbitrary<DoublePin> = fc
  .record({ number: fc.nat(1_000_000), fields, factors })
  .map(({ number, fields: own, factors: copies }) => ({
    cid: cidOf(`any ${number}`),
    ...own,
    ...copies,
    max_depth: own.mode === "direct" ? 0 : -1,
  }));
