import { packArtifact, PACKED } from "./artifact.ts";

/** Packs the package once for all box tests: files that run side by side must not build in the same directory. */
export default async function setup(): Promise<void> {
  process.env[PACKED] = await packArtifact();
}
