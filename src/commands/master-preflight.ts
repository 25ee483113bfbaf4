import { OperatorError, type Problem } from "../errors.ts";
import type { MasterLayout } from "../model/master-layout.ts";
import type { Settings } from "../model/settings.ts";
import type { World } from "./world.ts";

export async function checkMaster(options: {
  readonly world: World;
  readonly layout: MasterLayout;
  readonly settings: Settings;
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}): Promise<void> {
  if (options.problems.length > 0)
    throw new OperatorError({ exit: "settings", what: "settings", problems: options.problems });
  await Promise.resolve();
}
