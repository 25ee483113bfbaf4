import type { HostReader } from "../host/host.ts";
import type { Project } from "./compose-services.ts";

/** What kubo and ipfs-cluster make first where they keep their data, and never without an identity in it. */
const IDENTITIES = ["kubo/config", "ipfs-cluster/identity.json"] as const;

/**
 * The identities of a writer that another hand left where ours would keep its data. None where a script
 * of ours lies beside them: then it is our own writer, whose compose file and containers are gone.
 */
export async function findLeftIdentities(
  host: HostReader,
  { directory, scripts }: Project,
): Promise<readonly string[]> {
  const paths = IDENTITIES.map((path) => `${directory}/${path}`);
  const [marks, identities] = await Promise.all([
    Promise.all(scripts.map(({ path }) => host.files.stat(path))),
    Promise.all(paths.map((path) => host.files.stat(path))),
  ]);
  if (marks.some((stat) => stat !== null)) return [];
  return paths.filter((_, index) => identities[index] !== null);
}
