import { guardedOfProject, type Project } from "../docker/compose-project.ts";
import type { AnyStep } from "../engine/step.ts";
import type { MasterContext } from "../settings/context.ts";
import { guardedOnMaster } from "../settings/layout.ts";
import { cli } from "./cli.ts";
import { composeFile } from "./compose-file.ts";
import { cron } from "./cron.ts";
import { docker } from "./docker.ts";
import { envFile } from "./env-file.ts";
import { images, masterImages } from "./images.ts";
import { edge } from "./master/edge.ts";
import { edgeFiles } from "./master/edge-files.ts";
import { edgeKnown } from "./master/edge-known.ts";
import { backupCron, drillCron, snapshotCron, sweepCron } from "./master/cron-entry.ts";
import { firstSnapshot } from "./master/first-snapshot.ts";
import { flags } from "./master/flags.ts";
import { migrations } from "./master/migrations.ts";
import { guardDatabase, postgres } from "./master/postgres.ts";
import { postgresTls } from "./master/postgres-tls.ts";
import { restoredDatabase } from "./master/restored-database.ts";
import { restoredFiles } from "./master/restored-files.ts";
import { restoredPins } from "./master/restored-pins.ts";
import { services } from "./master/services.ts";
import { signingKey } from "./master/signing-key.ts";
import { writer } from "./master/writer.ts";
import { oldImages } from "./old-images.ts";
import { owners } from "./owners.ts";
import { serviceImage } from "./service-image.ts";

/** The install order of a master. */
export function masterSteps(
  context: MasterContext,
  projects: { readonly master: Project; readonly writer: Project },
): readonly AnyStep[] {
  return [
    docker,
    owners([...guardedOnMaster(context.layout), ...guardedOfProject(projects.writer)]),
    cli(context),
    envFile(context, guardDatabase(context)),
    images(context, "master", (host) => masterImages(host, context, projects.writer)),
    writer(context, projects.writer),
    serviceImage(context),
    composeFile(projects.master, context.hash),
    postgresTls(context),
    postgres(context, projects.master),
    ...(context.isRestoring ? [restoredDatabase(context)] : []),
    migrations(context),
    // Before anything is told of the pinset, or takes a snapshot of it.
    ...(context.isRestoring ? [restoredPins(context)] : []),
    flags(context),
    services(context, projects.master),
    oldImages(context),
    edgeFiles(context),
    edge(context, projects.master),
    edgeKnown(context),
    signingKey(context),
    cron,
    snapshotCron(context),
    sweepCron(context),
    drillCron(context),
    backupCron(context),
    firstSnapshot(context),
    ...(context.isRestoring ? [restoredFiles(context)] : []),
  ];
}
