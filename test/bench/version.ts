import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { timePairs } from "./pairs.ts";
import type { Bench } from "./report.ts";

const PROGRAM = fileURLToPath(new URL("../../bin/fula-node.js", import.meta.url));
const ROUNDS = 41;

async function node(...args: readonly string[]): Promise<void> {
  await execa(process.execPath, args, { stdin: "ignore" });
}

/** How much longer than bare node the built artifact takes to print its version. */
export const benches: readonly Bench[] = [
  {
    name: "version",
    run: async () => [
      {
        name: "--version",
        what: "node bin/fula-node.js --version",
        against: "node -e 0",
        unit: "ms",
        target: { of: "ratio", bound: "at most", value: 1.3 },
        ...(await timePairs(
          ROUNDS,
          { run: () => node(PROGRAM, "--version") },
          { run: () => node("-e", "0") },
        )),
      },
    ],
  },
];
