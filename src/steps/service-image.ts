import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { OWNER_LABEL } from "../settings/layout.ts";
import { BASE_LABEL, lookAtServiceImage, PACKAGE_LABEL } from "../docker/compose-project.ts";
import { pullImage, wholeImage, writeImages } from "../docker/whole-images.ts";
import type { NodeContext } from "../settings/context.ts";

interface Seen {
  readonly baseMissing: boolean;
  /** True if the image is there and as it must be. */
  readonly isBuilt: boolean;
  readonly packageHash: string;
}

type ImageChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & { readonly kind: "build-image"; readonly tag: string; readonly package: string });

/** The image that pinning-api and webui run, built from the installed package. */
export function serviceImage(context: NodeContext): StepSpec<Seen, ImageChange> {
  const { settings, version, layout, imagesArchive } = context;
  const tag = `fula-node:${version}`;
  const base = settings.get("NODE_BASE_IMAGE")?.value ?? "";
  return {
    id: "service-image",
    title: `image ${tag}`,
    touches: "Builds the image `fula-node:VERSION` from the installed package.",

    async probe(host): Promise<Finding<Seen>> {
      const [{ image, packageHash, differences }, baseImage] = await Promise.all([
        lookAtServiceImage(host, context, { tag, base }),
        wholeImage(host, context, base),
      ]);
      const built = image?.labels[PACKAGE_LABEL];
      const evidence = {
        [tag]: image === null ? "absent" : `${image.id}, package ${built ?? "unknown"}`,
        package: packageHash ?? "unreadable",
      };
      // The archive provides the base image (the step images).
      const seen = {
        baseMissing: baseImage === null && imagesArchive === null,
        packageHash: packageHash ?? "",
        isBuilt: image !== null && differences.length === 0,
      };
      if (image === null) return { state: "absent", seen, evidence };
      if (differences.length === 0) return { state: "ours", seen, evidence };
      const drifted = { state: "drifted", seen, drift: differences, evidence } as const;
      if (built !== undefined) return drifted;
      return {
        state: "foreign",
        evidence,
        why: `The image ${tag} exists, but fula-node did not build it.`,
        remedy: "If it is not needed, remove its tag.",
        claim: drifted,
      };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { baseMissing, packageHash, isBuilt } = finding.seen;
      if (isBuilt) return [];
      return [
        ...(baseMissing ? [{ kind: "pull-image", summary: `pull ${base}`, image: base } as const] : []),
        { kind: "build-image", summary: `build ${tag}`, tag, package: packageHash },
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") {
        await pullImage(host, context, change.image, report);
        return;
      }
      const directory = `${layout.cliDir}/${version}`;
      const labels = {
        [OWNER_LABEL.key]: OWNER_LABEL.value,
        [PACKAGE_LABEL]: change.package,
        [BASE_LABEL]: base,
      };
      await writeImages(host, context, [tag], async (cut) => {
        if (cut.length > 0) {
          report(`${tag}: the power was cut while it was built, so no layer of that build is used`);
          await host.docker.removeImage(tag);
        }
        await host.docker.build(
          {
            context: directory,
            dockerfile: `${directory}/compose/Dockerfile`,
            tag,
            labels,
            buildArgs: { BASE_IMAGE: base },
            noCache: cut.length > 0,
          },
          report,
        );
      });
    },

    async verify(host) {
      if ((await host.docker.image(tag)) !== null) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The image ${tag} is missing.`,
        remedy: "Run again.",
      });
    },
  };
}
