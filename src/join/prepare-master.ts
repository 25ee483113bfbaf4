import type { AnyStep } from "../engine/step.ts";
import type { MasterLayout } from "../settings/master-layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import type { MasterContext } from "../settings/node-context.ts";
import { MASTER_RECOVERABLE, withClusterSecret } from "../settings/secrets.ts";
import type { Settings } from "../settings/settings.ts";
import { masterSteps } from "../steps/master.ts";
import type { World } from "../world.ts";
import { findDatabaseVolume, renderProjects } from "./master-projects.ts";

/** Turns settings into the steps of a master. Looks at the box, and changes nothing. */
export async function prepareMaster(
  world: World,
  wishes: {
    readonly layout: MasterLayout;
    readonly settings: Settings;
    readonly provisionWriter: boolean;
    readonly imagesArchive: string | null;
  },
): Promise<{ readonly steps: readonly AnyStep[]; readonly context: MasterContext }> {
  const { host, version, packageDir, nodePath, hash } = world;
  const volume = await findDatabaseVolume(host, wishes.layout);
  const context: MasterContext = {
    ...wishes,
    specs: MASTER_SETTINGS,
    recoverable: MASTER_RECOVERABLE,
    settings: withClusterSecret(wishes.settings, hash),
    version,
    packageDir,
    nodePath,
    postgresVolume: volume.volume,
    hash,
  };
  const projects = await renderProjects({ host, ...context, volume });
  return { steps: masterSteps(context, projects), context };
}
