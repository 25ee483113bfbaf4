import type { Change, Finding, Report, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { isDatabaseElsewhere } from "../settings/master.ts";
import type { MasterContext, NodeContext } from "../settings/context.ts";

interface Seen {
  readonly missing: readonly string[];
}

type ImagesChange = Change & { readonly kind: "load-images"; readonly archive: string };

/**
 * Images from `--images ARCHIVE`, for a box that reaches no registry; without it, steps pull what they need.
 * `wantedImages` tells what this kind of node needs from elsewhere.
 */
export function images(
  { imagesArchive }: NodeContext,
  wantedImages: (host: HostReader) => Promise<readonly string[]>,
): StepSpec<Seen, ImagesChange> {
  async function missing(host: HostReader): Promise<readonly string[]> {
    const wanted = await wantedImages(host);
    const present = await Promise.all(wanted.map((reference) => host.docker.image(reference)));
    return wanted.filter((_, index) => present[index] === null);
  }

  return {
    id: "images",
    title: "images from an archive",
    touches: "Loads the archive that `--images` names into the engine.",

    async probe(host): Promise<Finding<Seen>> {
      if (imagesArchive === null)
        return {
          state: "ours",
          seen: { missing: [] },
          evidence: { archive: "none given: images are pulled where they are needed" },
        };
      const seen = { missing: await missing(host) };
      const stat = await host.files.stat(imagesArchive);
      const evidence = { archive: imagesArchive, "not on this machine": seen.missing.join(", ") || "none" };
      if (stat === null || stat.kind !== "file") {
        throw new OperatorError({
          exit: "usage",
          what: `There is no file ${imagesArchive}.`,
          remedy: "Make it with `docker save IMAGE... -o FILE` where a registry is reached.",
        });
      }
      return { state: seen.missing.length === 0 ? "ours" : "absent", seen, evidence };
    },

    plan({ seen }) {
      if (seen.missing.length === 0 || imagesArchive === null) return [];
      return [{ kind: "load-images", summary: `load images from ${imagesArchive}`, archive: imagesArchive }];
    },

    async apply(change, host, report) {
      await load(host, change.archive, report);
      const lacking = await missing(host);
      if (lacking.length === 0) return;
      throw new OperatorError({
        exit: "unavailable",
        what: `${change.archive} does not hold ${lacking.join(", ")}.`,
        remedy: `Make it again where a registry is reached: docker save ${lacking.join(" ")} -o FILE, or run without --images to pull.`,
      });
    },

    async verify(host) {
      const lacking = imagesArchive === null ? [] : await missing(host);
      if (lacking.length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `Not on this machine: ${lacking.join(", ")}.`,
        remedy: "Run again.",
      });
    },
  };
}

/** The images that a master needs from elsewhere; the base only while the service image is still to be built. */
export async function masterImages(host: HostReader, context: MasterContext): Promise<readonly string[]> {
  const valueOf = (key: string) => context.settings.get(key)?.value;
  const image = (key: string) => valueOf(key) ?? "";
  return [
    ...(isDatabaseElsewhere(valueOf) ? [] : [image("POSTGRES_IMAGE")]),
    ...(await baseImage(host, context)),
    ...(context.provisionWriter ? [image("KUBO_IMAGE"), image("CLUSTER_IMAGE")] : []),
    ...(image("AUTO_UPDATE") === "true" ? [image("UPDATER_IMAGE")] : []),
  ];
}

/** The images that a storage node needs from elsewhere; the base only while the service image is still to be built. */
export async function storageImages(host: HostReader, context: NodeContext): Promise<readonly string[]> {
  const image = (key: string) => context.settings.get(key)?.value ?? "";
  return [image("KUBO_IMAGE"), image("CLUSTER_IMAGE"), ...(await baseImage(host, context))];
}

async function baseImage(host: HostReader, { settings, version }: NodeContext): Promise<readonly string[]> {
  const service = await host.docker.image(`fula-node:${version}`);
  return service === null ? [settings.get("NODE_BASE_IMAGE")?.value ?? ""] : [];
}

/** Loads the archive; whatever Docker has against it, the way out is another archive. */
async function load(host: Host, archive: string, report: Report): Promise<void> {
  try {
    await host.docker.load(archive, report);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.remedy !== undefined) throw thrown;
    throw new OperatorError({
      exit: thrown.exit,
      what: thrown.what,
      ...(thrown.why === undefined ? {} : { why: thrown.why }),
      remedy: `If there is room on the disk, ${archive} is damaged, or not what \`docker save\` wrote: make it again, then run again.`,
      cause: thrown,
    });
  }
}
