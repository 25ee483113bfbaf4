import { packArtifact, PACKED } from "./artifact.ts";
import { bedEnvironment } from "./bed.ts";
import { Box, requireBoxes } from "./box.ts";

/**
 * Packs the package once for all box tests, since test files that run at the same time must not build in one directory.
 * Removes the boxes of killed runs.
 */
export default async function setup(): Promise<void> {
  Object.assign(process.env, bedEnvironment());
  if ((await requireBoxes()) !== undefined) return;
  await Box.destroyAll();
  process.env[PACKED] = await packArtifact();
}
