import type { HttpReader } from "../machine/http.ts";
import type { SpaceReading } from "../settings/space-limits.ts";

const TIMEOUT_MS = 10_000;

/**
 * Asks a kubo for the size of its repository and for the disk under it. Null if it does not answer completely.
 *
 * `repo/stat` counts the repository; with `size-only` it does not list the blocks. `diag/sys` looks at the file system of
 * the repository. In kubo 0.42 its `free_space` is the free space including what is reserved for root, which kubo can't
 * use, and its `total_space` is in fact the space that is left for everybody (whyrusleeping/go-sysinfo, info_linux.go). So
 * the smaller one is right, also if kubo corrects that.
 */
export async function readSpace(http: HttpReader, kuboUrl: string): Promise<SpaceReading | null> {
  const request = { method: "POST", timeoutMs: TIMEOUT_MS } as const;
  const [repository, system] = await Promise.all([
    http.json(`${kuboUrl}/api/v0/repo/stat?size-only=true`, request),
    http.json(`${kuboUrl}/api/v0/diag/sys`, request),
  ]);
  if (repository?.status !== 200 || system?.status !== 200) return null;
  const { RepoSize: usedBytes, StorageMax: limitBytes } = (repository.body ?? {}) as Fields;
  const { free_space: free, total_space: total } = ((system.body as Fields | null)?.["diskinfo"] ??
    {}) as Fields;
  if (!isBytes(usedBytes) || !isBytes(limitBytes) || !isBytes(free) || !isBytes(total)) return null;
  return { usedBytes, limitBytes, availableBytes: Math.min(free, total) };
}

type Fields = Readonly<Record<string, unknown>>;

function isBytes(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}
