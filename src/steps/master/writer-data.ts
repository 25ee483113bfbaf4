import { WRITER_SCRIPTS } from "../../docker/compose-render.ts";
import type { Project } from "../../docker/compose-services.ts";
import type { Evidence, Foreign } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { TAKEN_OVER } from "../../leave/policy.ts";

/** What kubo and ipfs-cluster make first where they keep their data, and never without an identity in it. */
const IDENTITIES = ["kubo/config", "ipfs-cluster/identity.json"] as const;

/** The scripts of ours in a directory: what lies beside them is a writer's that was made here. */
export async function findWriterMarks(host: HostReader, directory: string): Promise<readonly string[]> {
  const paths = Object.values(WRITER_SCRIPTS).map((name) => `${directory}/${name}`);
  const stats = await Promise.all(paths.map((path) => host.files.stat(path)));
  return paths.filter((_, index) => stats[index] !== null);
}

/**
 * The identities of a writer that another hand left where ours would keep its data. None where a script
 * of ours lies beside them: then it is our own writer, whose compose file and containers are gone.
 */
export async function findLeftIdentities(
  host: HostReader,
  { directory }: Project,
): Promise<readonly string[]> {
  const paths = IDENTITIES.map((path) => `${directory}/${path}`);
  const [marks, identities] = await Promise.all([
    findWriterMarks(host, directory),
    Promise.all(paths.map((path) => host.files.stat(path))),
  ]);
  if (marks.length > 0) return [];
  return paths.filter((_, index) => identities[index] !== null);
}

/** What lies beside data that was taken over. */
export const TAKEN_OVER_TEXT =
  "kubo/ and ipfs-cluster/ were here before fula-node took them over (--adopt writer): it never removes them.\n";

/** Comes before the first of our own files there: from then on the data counts as this box's writer's. */
export function markTakenOver({ directory }: Project) {
  const path = `${directory}/${TAKEN_OVER}`;
  return {
    kind: "mark-taken-over",
    summary: `write down in ${path} that the data there is not ours to remove`,
    path,
  } as const;
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
