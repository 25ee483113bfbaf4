import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { OWNER_LABEL } from "../settings/layout.ts";
import { PACKAGE_ENTRIES, PACKAGE_LABEL } from "../docker/compose-project.ts";
import type { NodeContext } from "../settings/context.ts";

interface Seen {
  readonly baseMissing: boolean;
  readonly packageHash: string;
}

type ImageChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & { readonly kind: "build-image"; readonly tag: string; readonly package: string });

/** The image that pinning-api and webui run, built from the installed package. */
export function serviceImage({
  settings,
  version,
  packageDir,
  layout,
  imagesArchive,
}: NodeContext): StepSpec<Seen, ImageChange> {
  const tag = `fula-node:${version}`;
  const base = settings.get("NODE_BASE_IMAGE")?.value ?? "";
  return {
    id: "service-image",
    title: `image ${tag}`,
    touches: "Builds the image `fula-node:VERSION` from the installed package.",

    async probe(host): Promise<Finding<Seen>> {
      const [image, baseImage, packageHash] = await Promise.all([
        host.docker.image(tag),
        host.docker.image(base),
        host.files.hashTree(packageDir, PACKAGE_ENTRIES),
      ]);
      const built = image?.labels[PACKAGE_LABEL];
      const evidence = {
        [tag]: image === null ? "absent" : `${image.id}, package ${built ?? "unknown"}`,
        package: packageHash ?? "unreadable",
      };
      // For a first build, an archive brings the base (the step images).
      const isBrought = imagesArchive !== null && image === null;
      const seen = { baseMissing: baseImage === null && !isBrought, packageHash: packageHash ?? "" };
      if (image === null) return { state: "absent", seen, evidence };
      if (built === packageHash) return { state: "ours", seen, evidence };
      const drifted = {
        state: "drifted",
        seen,
        drift: [`${tag} was built from other files`],
        evidence,
      } as const;
      if (built !== undefined) return drifted;
      return {
        state: "foreign",
        evidence,
        why: `An image ${tag} is here that we did not build.`,
        remedy: "Remove its tag if it is not needed.",
        claim: drifted,
      };
    },

    plan({ state, seen: { baseMissing, packageHash } }) {
      if (state === "ours") return [];
      return [
        ...(baseMissing ? [{ kind: "pull-image", summary: `pull ${base}`, image: base } as const] : []),
        { kind: "build-image", summary: `build ${tag}`, tag, package: packageHash },
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") {
        await host.docker.pull(change.image, report);
        return;
      }
      const context = `${layout.cliDir}/${version}`;
      await host.docker.build(
        {
          context,
          dockerfile: `${context}/compose/Dockerfile`,
          tag,
          labels: { [OWNER_LABEL.key]: OWNER_LABEL.value, [PACKAGE_LABEL]: change.package },
          buildArgs: { BASE_IMAGE: base },
        },
        report,
      );
    },

    async verify(host) {
      if ((await host.docker.image(tag)) !== null) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The image ${tag} is not there.`,
        remedy: "Run again.",
      });
    },
  };
}
