import type { HostReader } from "../host.ts";
import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { isOurs, OWNER_LABEL } from "../settings/layout.ts";
import { BASE_LABEL, lookAtServiceImage, PACKAGE_LABEL } from "../docker/compose-project.ts";
import { pullImage, wholeImage, writeImages } from "../docker/whole-images.ts";
import { obsoleteVersions } from "./cli.ts";
import type { NodeContext } from "../settings/context.ts";

interface Seen {
  readonly baseMissing: boolean;
  /** True if the image is there and as it must be. */
  readonly isBuilt: boolean;
  readonly packageHash: string;
  /** Images of ours that nothing goes back to, and that no container uses. */
  readonly obsolete: readonly string[];
}

type ImageChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & { readonly kind: "build-image"; readonly tag: string; readonly package: string })
  | (Change & { readonly kind: "remove-image"; readonly image: string });

/** The image that pinning-api and webui run, built from the installed package. */
export function serviceImage(context: NodeContext): StepSpec<Seen, ImageChange> {
  const { settings, version, layout, imagesArchive } = context;
  const tag = `fula-node:${version}`;
  const base = settings.get("NODE_BASE_IMAGE")?.value ?? "";
  return {
    id: "service-image",
    title: `image ${tag}`,
    touches:
      "Builds the image `fula-node:VERSION` from the installed package. Removes images of versions before the last two.",

    async probe(host): Promise<Finding<Seen>> {
      const [{ image, packageHash, differences }, baseImage, obsolete] = await Promise.all([
        lookAtServiceImage(host, context, { tag, base }),
        wholeImage(host, context, base),
        findObsolete(host, version),
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
        obsolete,
      };
      if (image === null) return { state: "absent", seen, evidence };
      const old = obsolete.map((one) => `${one} is older than the version before`);
      const drift = [...differences, ...old];
      if (drift.length === 0) return { state: "ours", seen, evidence };
      const drifted = { state: "drifted", seen, drift, evidence } as const;
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
      const { baseMissing, packageHash, isBuilt, obsolete } = finding.seen;
      const removals = obsolete.map(
        (image) => ({ kind: "remove-image", summary: `remove the image ${image}`, image }) as const,
      );
      if (isBuilt) return removals;
      return [
        ...(baseMissing ? [{ kind: "pull-image", summary: `pull ${base}`, image: base } as const] : []),
        { kind: "build-image", summary: `build ${tag}`, tag, package: packageHash },
        ...removals,
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") {
        await pullImage(host, context, change.image, report);
        return;
      }
      if (change.kind === "remove-image") {
        await host.docker.removeImage(change.image);
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

/** Our images of versions before the last two. One that a container uses stays, even if the container is stopped. */
async function findObsolete(host: HostReader, version: string): Promise<readonly string[]> {
  const images = (await host.docker.listImages()).filter(isOurs);
  const tagged = new Map(
    images.flatMap(({ id, tags }) => tags.map((tag) => [tag.replace(/^fula-node:/, ""), id] as const)),
  );
  const old = obsoleteVersions([...tagged.keys()], version);
  const users = await Promise.all(old.map((one) => host.docker.usersOf("image", tagged.get(one) ?? "")));
  return old.filter((_, index) => users[index]?.length === 0).map((one) => `fula-node:${one}`);
}
