import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { LANES } from "./test/full/limits.ts";
import { bedEnvironment } from "./test/support/bed.ts";

export default defineConfig({
  test: {
    // Never the machine's own engine, whatever the shell says.
    env: bedEnvironment(),
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/{unit,contract,services,cli}/**/*.test.ts"],
          // Much of it waits for programs. With one less than there are processors, two of them would do one file at a time.
          maxWorkers: Math.max(2, availableParallelism() - 1),
          testTimeout: 60_000,
          hookTimeout: 120_000,
          // What has to come true ends the wait at once. The default, a second, is short where much else runs.
          expect: { poll: { timeout: 15_000 } },
        },
      },
      ...["boxes", "full"].map((name) => ({
        test: {
          name,
          include: [`test/${name}/**/*.test.ts`],
          globalSetup: ["test/support/pack.ts"],
          // Several boxes at once: a box mostly waits. A file of `full` has several by itself.
          maxWorkers: name === "full" ? 1 : 3,
          maxConcurrency: name === "full" ? LANES : 3,
          // A long run shows what it has found although it is cut off.
          disableConsoleIntercept: name === "full",
          testTimeout: 900_000,
          hookTimeout: 900_000,
        },
      })),
    ],
  },
});
