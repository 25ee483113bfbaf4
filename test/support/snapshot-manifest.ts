import type { Manifest } from "../../src/pinset/snapshot/manifest.ts";

/** A manifest that parses. Nothing has the body that it tells of. */
export const MANIFEST: Manifest = {
  format: "fula-node/pinset-snapshot",
  version: 1,
  name: "pinset-20261121T200001Z",
  sequence: 2,
  created_at: "2026-11-21T20:00:01.000Z",
  cluster: { id: null, name: "lab" },
  peer: { id: "12D3KooW", name: "master", version: "1.1.6" },
  pins: { count: 2, by_type: { pin: 2 } },
  digest: { algorithm: "sum-sha256-lines", value: "0".repeat(64) },
  body: { file: "b", encoding: "gzip", size_bytes: 1, plain_bytes: 2, sha256: "1".repeat(64) },
  previous: { name: "pinset-20261121T200000Z", manifest_sha256: "2".repeat(64) },
  drop: null,
  clock_went_back: false,
  tool: { name: "fula-node", version: "0.1.0" },
  key_id: "0123456789abcdef",
};
