import { packArtifact, PACKED } from "./artifact.ts";
import { bedEnvironment } from "./bed.ts";
import { Box, requireBoxes } from "./box.ts";

/**
 * Packs the package once for all box tests: files that run side by side must not build in the same directory. Removes
 * the boxes of runs that were killed.
 */
export default async function setup(): Promise<void> {
  Object.assign(process.env, bedEnvironment());
  if ((await requireBoxes()) !== undefined) return;
  await Box.destroyAll();
  process.env[PACKED] = await packArtifact();
}
