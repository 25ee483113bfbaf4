import { HttpClient, parseJson, readWhole } from "../machine/http-client.ts";
import type { StorageAnswer } from "../settings/quota.ts";

/** Asks the master's storage API for a client, with the client's own token. */
export interface StorageApi {
  /** `GET /api/v1/storage`, following no redirect; throws an Error without the token where no answer comes in time. */
  storage(token: string): Promise<StorageAnswer>;
  close(): void;
}

/** The storage API sends no longer answer. */
const MAX_ANSWER_BYTES = 65_536;

/** Opens the storage API; `timeoutMs` bounds one question. Nothing is sent yet. */
export function openStorageApi(
  url: string,
  options: { readonly connections: number; readonly timeoutMs: number },
): StorageApi {
  const { connections, timeoutMs } = options;
  const client = new HttpClient({ url, connections, connectTimeoutMs: timeoutMs });
  return {
    async storage(token) {
      const headers = { accept: "application/json", authorization: `Bearer ${token}` };
      const request = { method: "GET", path: "/api/v1/storage", headers } as const;
      const { status, text } = await client.exchange(request, readWhole(MAX_ANSWER_BYTES), timeoutMs);
      return { status, body: parseJson(text) };
    },
    close: () => client.close(),
  };
}
