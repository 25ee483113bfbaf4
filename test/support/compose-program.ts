import { execa } from "execa";

/** The Compose that decides in tests about settings, or the reason why there is none. */
export interface ComposeProgram {
  readonly version: string;
}

/**
 * Finds `docker compose`. Without one, throws the reason if CI is set: there it is a failure, elsewhere tests are skipped
 * with a line that says so.
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
