import { benches as backup } from "./backup.ts";
import { benches as bucketRoots } from "./bucket-roots.ts";
import { benches as deduction } from "./deduction.ts";
import { benches as dumpRestore } from "./dump-restore.ts";
import { benches as ingest } from "./ingest.ts";
import { benches as join } from "./join.ts";
import { benches as migrations } from "./migrations.ts";
import { benches as noop } from "./noop.ts";
import { benches as page } from "./page.ts";
import { benches as pinsMemory } from "./pins/memory.ts";
import { benches as pins } from "./pins/pins.ts";
import { benches as restore } from "./restore.ts";
import { benches as snapshot } from "./snapshot.ts";
import { benches as status } from "./status.ts";
import { benches as tarball } from "./tarball.ts";
import { benches as version } from "./version.ts";
import type { Bench } from "./report.ts";

/** Every bench, in the order in which they run. */
export const BENCHES: readonly Bench[] = [
  ...version,
  ...tarball,
  ...migrations,
  ...noop,
  ...status,
  ...join,
  ...snapshot,
  ...restore,
  ...ingest,
  ...pins,
  ...pinsMemory,
  ...deduction,
  ...dumpRestore,
  ...backup,
  ...bucketRoots,
  ...page,
];
