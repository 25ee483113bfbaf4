import { text } from "node:stream/consumers";
import type { Throwaway } from "./throwaway.ts";

const MEMORY_BYTES = 128 * 1024 ** 2;

/**
 * The major of pg_dump and pg_restore in an image: an image may have others than its server's. `14 and 17` if they differ; null if
 * it has not both.
 */
export async function readClientMajor(
  engine: Pick<Throwaway, "attach">,
  given: { readonly name: string; readonly mark: string; readonly image: string },
): Promise<string | null> {
  const running = engine.attach({
    ...given,
    network: "none",
    memoryBytes: MEMORY_BYTES,
    environment: {},
    temporary: [],
    data: null,
    user: "",
    capabilities: [],
    entrypoint: "sh",
    command: ["-c", "pg_dump --version && pg_restore --version"],
  });
  running.stdin.end();
  const [said, { exitCode }] = await Promise.all([text(running.stdout), running.ended]);
  const majors = [...said.matchAll(/^pg_\w+ \(PostgreSQL\) (\d+)/gm)].flatMap(([, major]) => major ?? []);
  if (exitCode !== 0 || majors.length !== 2) return null;
  return [...new Set(majors)].join(" and ");
}
