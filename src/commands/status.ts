import { OperatorError, type VerbExit } from "../errors.ts";
import { reportStatus } from "../status/report-status.ts";
import type { World } from "../world.ts";

/** The flags of `status`, as commander returns them. */
export interface StatusFlags {
  readonly baseDir?: string;
  readonly verbose?: boolean;
}

/** `status`: reports how the node on this machine stands, of either kind. Changes nothing. */
export async function status(flags: StatusFlags, world: World): Promise<VerbExit> {
  if (world.host.system.uid() === 0) return await reportStatus(flags, world);
  throw new OperatorError({
    exit: "preflight",
    what: "This command needs root, because the settings contain secrets.",
    remedy: "Run it with sudo.",
  });
}
