import type { Project } from "../docker/compose-project.ts";
import type { AnyStep } from "../engine/step.ts";
import { membership } from "./storage-node/membership.ts";
import { cli } from "./cli.ts";
import { composeFile } from "./compose-file.ts";
import { docker } from "./docker.ts";
import { envFile } from "./env-file.ts";
import { images, storageImages } from "./images.ts";
import { serviceImage } from "./service-image.ts";
import { clusterFollower } from "./storage-node/cluster-follower.ts";
import { ingest } from "./storage-node/ingest.ts";
import { kubo } from "./storage-node/kubo.ts";
import { nodeName } from "./storage-node/node-name.ts";
import { guardedOnStorageNode } from "../settings/layout.ts";
import { oldImages } from "./old-images.ts";
import { owners } from "./owners.ts";
import { pool } from "./storage-node/pool.ts";
import { NO_SECRET_DATA, type StorageContext } from "../federation/storage-context.ts";

/** The install order of a storage node. */
export function storageSteps(context: StorageContext, project: Project): readonly AnyStep[] {
  return [
    docker,
    owners(guardedOnStorageNode(context.layout)),
    cli(context),
    envFile(context, NO_SECRET_DATA),
    pool(context),
    images(context, "storage-node", (host) => storageImages(host, context)),
    serviceImage(context),
    composeFile(project, context.hash),
    kubo(context, project),
    clusterFollower(context, project),
    ingest(context, project),
    oldImages(context),
    membership(context),
    nodeName(context),
  ];
}
