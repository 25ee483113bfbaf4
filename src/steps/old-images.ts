import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { NodeContext } from "../settings/context.ts";
import { isOurs } from "../settings/layout.ts";
import { formerVersion, obsoleteVersions } from "./cli.ts";

type RemoveImage = Change & { readonly kind: "remove-image"; readonly image: string };

/** Images of versions that nothing goes back to. It comes after the services: until they are replaced, they use one. */
export function oldImages(
  context: Pick<NodeContext, "layout" | "version">,
): StepSpec<readonly string[], RemoveImage> {
  return {
    id: "old-images",
    title: "images of older versions",
    touches: "Removes images of versions before the last two.",

    async probe(host): Promise<Finding<readonly string[]>> {
      const seen = await findObsolete(host, context);
      const evidence = { obsolete: seen.length === 0 ? "none" : seen.join(", ") };
      if (seen.length === 0) return { state: "ours", seen, evidence };
      const drift = seen.map((one) => `${one} is older than the version before`);
      return { state: "drifted", seen, drift, evidence };
    },

    plan({ state, seen }) {
      if (state === "ours") return [];
      return seen.map((image) => ({ kind: "remove-image", summary: `remove the image ${image}`, image }));
    },

    apply: ({ image }, host) => host.docker.removeImage(image),

    async verify(host) {
      const [left] = await findObsolete(host, context);
      if (left === undefined) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The image ${left} is still there.`,
        remedy: `Look at what uses it: docker image rm ${left}`,
      });
    },
  };
}

/** Our images of versions before the last two. One that a container uses stays, even if the container is stopped. */
async function findObsolete(
  { docker, files }: HostReader,
  { layout, version }: Pick<NodeContext, "layout" | "version">,
): Promise<readonly string[]> {
  const [all, installed, current] = await Promise.all([
    docker.listImages(),
    files.list(layout.cliDir),
    files.readLink(layout.cliCurrent),
  ]);
  const tagged = new Map(
    all
      .filter(isOurs)
      .flatMap(({ id, tags }) => tags.map((tag) => [tag.replace(/^fula-node:/, ""), id] as const)),
  );
  const former = formerVersion(installed ?? [], { current }, version);
  const old = obsoleteVersions([...tagged.keys()], version, former);
  const users = await Promise.all(old.map((one) => docker.usersOf("image", tagged.get(one) ?? "")));
  return old.filter((_, index) => users[index]?.length === 0).map((one) => `fula-node:${one}`);
}
