import { execa } from "execa";

/** The Compose that the tests on settings take for the judge, or why there is none. */
export interface ComposeProgram {
  readonly version: string;
}

/**
 * Finds `docker compose`. Throws the reason where there is none and CI is set: there it is a failure,
 * elsewhere tests skip with a line that says so.
 */
export async function findCompose(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ComposeProgram | string> {
  const found = await execa("docker", ["compose", "version", "--short"], { reject: false });
  if (!found.failed) return { version: found.stdout.trim() };
  const reason = "no `docker compose` on this machine; test/images/up brings one";
  if (environment["CI"]) throw new Error(reason);
  return reason;
}
