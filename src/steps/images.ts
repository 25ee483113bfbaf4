import { isWriterManaged, lookAtServiceImage, type Project } from "../docker/compose-project.ts";
import { decideUpdater } from "../docker/compose-project.ts";
import type { Change, Finding, Report, StepSpec } from "../engine/step.ts";
import { findFault, refuseArchive } from "../docker/images/judge-archive.ts";
import { imagesOfKind } from "../docker/images/wanted-images.ts";
import { customServices } from "../docker/kept-service.ts";
import { findMissingImages, writeImages } from "../docker/whole-images.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { nameOfKind } from "../machine/file-reader.ts";
import type { MasterContext, NodeContext } from "../settings/context.ts";
import { isDatabaseElsewhere } from "../settings/postgres-target.ts";

interface Seen {
  readonly missing: readonly string[];
}

type ImagesChange = Change & { readonly kind: "load-images"; readonly archive: string };

/**
 * Images from `--images ARCHIVE`, for a box that cannot reach a registry. Without it, steps pull what they need.
 * `wantedImages` gives the images that this kind of node needs but does not build.
 */
export function images(
  context: NodeContext,
  kind: "master" | "storage-node",
  wantedImages: (host: HostReader) => Promise<readonly string[]>,
): StepSpec<Seen, ImagesChange> {
  const { imagesArchive } = context;
  async function findMissing(host: HostReader): Promise<readonly string[]> {
    return findMissingImages(host, context, await wantedImages(host));
  }

  /** Throws if the archive does not have what is missing, for this machine's architecture. */
  async function check(host: HostReader, archive: string, missing: readonly string[]): Promise<void> {
    const [contents, engine] = await Promise.all([host.docker.readArchive(archive), host.docker.version()]);
    const architecture = engine?.architecture ?? null;
    const fault = findFault(contents, { references: missing, architecture });
    if (fault === null) return;
    const arch = fault.kind === "architecture" && architecture !== null ? ` --arch ${architecture}` : "";
    throw refuseArchive(archive, fault, {
      architecture,
      remedy: `On a machine that reaches a registry, run: fula-node images save FILE --for ${kind}${arch}${others(fault.references)}.`,
    });
  }

  /** For `images save` on another machine: what it does not take by the default settings. */
  function others(references: readonly string[]): string {
    const settings = context.specs.flatMap(({ key, byDefault: value }) =>
      value === undefined ? [] : [[key, { value, origin: "default" }] as const],
    );
    const defaults = imagesOfKind(kind, new Map(settings));
    const added = references.filter((reference) => !defaults.includes(reference));
    return added.map((reference) => ` --image ${reference}`).join("");
  }

  return {
    id: "images",
    title: "images from an archive",
    touches: "Loads the archive given by `--images` into the engine.",

    async probe(host): Promise<Finding<Seen>> {
      if (imagesArchive === null)
        return {
          state: "ours",
          seen: { missing: [] },
          evidence: { archive: "not given, so each step pulls the images that it needs" },
        };
      const seen = { missing: await findMissing(host) };
      // A link leads to the file, as it does for what reads it.
      const real = await host.files.realPath(imagesArchive);
      const stat = real === null ? null : await host.files.stat(real);
      const evidence = { archive: imagesArchive, "not on this machine": seen.missing.join(", ") || "none" };
      if (stat === null || stat.kind !== "file") {
        throw new OperatorError({
          exit: "usage",
          what:
            stat === null
              ? `The file ${imagesArchive} does not exist.`
              : `${imagesArchive} is a ${nameOfKind(stat.kind)}, not a file.`,
          remedy: `Make it on a machine that reaches a registry: fula-node images save FILE --for ${kind}`,
        });
      }
      if (seen.missing.length > 0) await check(host, imagesArchive, seen.missing);
      return { state: seen.missing.length === 0 ? "ours" : "absent", seen, evidence };
    },

    plan({ seen }) {
      if (seen.missing.length === 0 || imagesArchive === null) return [];
      return [{ kind: "load-images", summary: `load images from ${imagesArchive}`, archive: imagesArchive }];
    },

    async apply(change, host, report) {
      await writeImages(host, context, await findMissing(host), async (cut) => {
        await load(host, change.archive, report);
        if (cut.length === 0) return;
        report(
          `the power was cut while ${change.archive} was loaded, so it is loaded once more from the beginning`,
        );
        for (const reference of cut) await host.docker.removeImage(reference);
        await load(host, change.archive, report);
      });
      const missing = await findMissing(host);
      if (missing.length === 0) return;
      throw new OperatorError({
        exit: "unavailable",
        what: `${change.archive} does not contain ${missing.join(", ")}.`,
        remedy: `On a machine that reaches a registry, run: fula-node images save FILE --for ${kind}${others(missing)}. Or run without --images to pull them.`,
      });
    },

    async verify(host) {
      const missing = imagesArchive === null ? [] : await findMissing(host);
      if (missing.length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `These images are missing on this machine: ${missing.join(", ")}.`,
        remedy: "Run again.",
      });
    },
  };
}

/**
 * The images that a master pulls or loads. Those of the writer only if it is fula-node's or will be. The base image
 * only while the service image must be built.
 */
export async function masterImages(
  host: HostReader,
  context: MasterContext,
  writer: Project,
): Promise<readonly string[]> {
  const valueOf = (key: string) => context.settings.get(key)?.value;
  const image = (key: string) => valueOf(key) ?? "";
  const hasWriter = context.provisionWriter || (await isWriterManaged(host, writer, context.hash));
  return [
    ...(isDatabaseElsewhere(valueOf) ? [] : [image("POSTGRES_IMAGE")]),
    ...(await baseImage(host, context)),
    ...customServices(context.settings).map((service) => service.image),
    ...(hasWriter ? [image("KUBO_IMAGE"), image("CLUSTER_IMAGE")] : []),
    ...((await decideUpdater(host, context.settings)).runs ? [image("UPDATER_IMAGE")] : []),
    ...(context.settings.has("PUBLIC_HOST") ? [image("EDGE_IMAGE")] : []),
  ];
}

/** The images that a storage node pulls or loads. The base image only while the service image must be built. */
export async function storageImages(host: HostReader, context: NodeContext): Promise<readonly string[]> {
  const image = (key: string) => context.settings.get(key)?.value ?? "";
  return [image("KUBO_IMAGE"), image("CLUSTER_IMAGE"), ...(await baseImage(host, context))];
}

async function baseImage(host: HostReader, context: NodeContext): Promise<readonly string[]> {
  const { settings, version } = context;
  const base = settings.get("NODE_BASE_IMAGE")?.value ?? "";
  const service = await lookAtServiceImage(host, context, { tag: `fula-node:${version}`, base });
  return service.image === null || service.differences.length > 0 ? [base] : [];
}

/** Loads the archive. If Docker refuses it, the remedy is a new archive. */
async function load(host: Host, archive: string, report: Report): Promise<void> {
  try {
    await host.docker.load(archive, report);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.remedy !== undefined) throw thrown;
    throw new OperatorError({
      exit: thrown.exit,
      what: thrown.what,
      ...(thrown.why === undefined ? {} : { why: thrown.why }),
      remedy: `Check the free disk space. If there is enough, make ${archive} again (fula-node images save), then run again.`,
      cause: thrown,
    });
  }
}
