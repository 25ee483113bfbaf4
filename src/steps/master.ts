import type { AnyStep } from "../engine/step.ts";
import { cli } from "./cli.ts";
import { composeFile } from "./compose-file.ts";
import type { Project } from "../docker/compose-services.ts";
import { cron } from "./cron.ts";
import { docker } from "./docker.ts";
import { envFile } from "./env-file.ts";
import { firstSnapshot } from "./first-snapshot.ts";
import { flags } from "./flags.ts";
import { guardDatabase } from "./live-data.ts";
import { images } from "./images.ts";
import type { MasterContext } from "../settings/master-context.ts";
import { masterImages } from "./master-images.ts";
import { migrations } from "./migrations.ts";
import { postgres } from "./postgres.ts";
import { serviceImage } from "./service-image.ts";
import { services } from "./services.ts";
import { signingKey } from "./signing-key.ts";
import { snapshotCron } from "./snapshot-cron.ts";
import { sweepCron } from "./sweep-cron.ts";
import { writer } from "./writer.ts";

/** The install order of a master. */
export function masterSteps(
  context: MasterContext,
  projects: { readonly master: Project; readonly writer: Project },
): readonly AnyStep[] {
  return [
    docker,
    cli(context),
    envFile(context, guardDatabase(context)),
    images(context, (host) => masterImages(host, context)),
    writer(context, projects.writer),
    serviceImage(context),
    composeFile(projects.master, context.hash),
    postgres(context, projects.master),
    migrations(context),
    flags(context),
    services(context, projects.master),
    signingKey(context),
    cron,
    snapshotCron(context),
    sweepCron(context),
    firstSnapshot(context),
  ];
}
