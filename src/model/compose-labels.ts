import { canonicalJson, type ComposeMap, mapAt } from "./compose-document.ts";
import { OWNER_LABEL } from "./master-layout.ts";

/** The label that names the step which made a thing. */
export const STEP_LABEL = "land.fx.fula-node.step";

/** The label with the hash of what a thing was made from: a container with another one is drifted. */
export const SPEC_LABEL = "land.fx.fula-node.spec";

/** Lower-case hex sha256 of a text; randomness-free, but not for the model to compute. */
export type Hash = (text: string) => string;

/**
 * Marks a service, volume or network as ours. Its fragment names the step. The hash covers the whole
 * definition, so a volume's never changes from version to version: Compose 2.3x offers to recreate a
 * volume, and to lose its data, when its labels change.
 */
export function withLabels(
  name: string,
  definition: ComposeMap,
  hash: Hash,
  content: readonly string[] = [],
): ComposeMap {
  const labels = mapAt(definition, "labels");
  if (typeof labels[STEP_LABEL] !== "string") throw new TypeError(`${name} names no step in its labels`);
  const spec = hash([canonicalJson(definition), ...content].join("\n"));
  return {
    ...definition,
    labels: { [OWNER_LABEL.key]: OWNER_LABEL.value, ...labels, [SPEC_LABEL]: spec },
  };
}
