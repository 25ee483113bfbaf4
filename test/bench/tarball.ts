import { stat } from "node:fs/promises";
import { packArtifact } from "../support/artifact.ts";
import type { Bench } from "./report.ts";

/** The size of the download of `npx fula-node`. */
export const benches: readonly Bench[] = [
  {
    name: "tarball",
    run: async () => [
      {
        name: "packed tarball",
        what: "npm pack",
        against: null,
        unit: "MB",
        ours: [(await stat(await packArtifact())).size / 1e6],
        anchor: [],
        target: { of: "ours", bound: "at most", value: 2.5 },
      },
    ],
  },
];
