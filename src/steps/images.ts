import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host/host.ts";
import { isDatabaseElsewhere, type MasterContext } from "./master-context.ts";

interface Seen {
  readonly missing: readonly string[];
}

type ImagesChange = Change & { readonly kind: "load-images"; readonly archive: string };

/** Images from `--images ARCHIVE`, for a box that reaches no registry; without it, steps pull what they need. */
export function images({
  settings,
  imagesArchive,
  version,
  provisionWriter,
}: MasterContext): StepSpec<Seen, ImagesChange> {
  const valueOf = (key: string) => settings.get(key)?.value;
  const image = (key: string) => valueOf(key) ?? "";

  async function missing(host: HostReader): Promise<readonly string[]> {
    const service = await host.docker.image(`fula-node:${version}`);
    const wanted = [
      ...(isDatabaseElsewhere(valueOf) ? [] : [image("POSTGRES_IMAGE")]),
      ...(service === null ? [image("NODE_BASE_IMAGE")] : []),
      ...(provisionWriter ? [image("KUBO_IMAGE"), image("CLUSTER_IMAGE")] : []),
      ...(image("AUTO_UPDATE") === "true" ? [image("UPDATER_IMAGE")] : []),
    ];
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
      await host.docker.load(change.archive, report);
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
