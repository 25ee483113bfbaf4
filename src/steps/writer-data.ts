import type { Evidence, Foreign } from "../engine/step.ts";
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

/** The halt that they call for: a writer made here would go on as that one, with its peer ids and its pins. */
export function leftBehind<Seen>(
  { directory }: Project,
  seen: Seen,
  left: readonly string[],
  evidence: Evidence,
): Foreign<Seen> {
  const told = { ...evidence, "left behind": left.join(", ") };
  return {
    state: "foreign",
    evidence: told,
    why: `Nothing runs as the writer here, but ${directory} holds the identity and the data of one (${left.join(", ")}).`,
    remedy: `Start that writer again if this is its box; if its data is not needed, move ${directory} away.`,
    claim: {
      state: "drifted",
      seen,
      drift: [`the writer of ${directory} is not ours yet; its peer ids and data are kept`],
      evidence: told,
    },
  };
}
