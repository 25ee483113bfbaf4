import { openHttpClient } from "../machine/http-client.ts";
import type { StorageAnswer } from "../settings/quota.ts";

/** Asks the master's storage API for a client, with the client's own token. */
export interface StorageApi {
  /** `GET /api/v1/storage`, following no redirect; throws an Error without the token where no answer comes in time. */
  storage(token: string): Promise<StorageAnswer>;
  close(): void;
}

/** Opens the storage API; `timeoutMs` bounds one question. Nothing is sent yet. */
export function openStorageApi(
  url: string,
  options: { readonly connections: number; readonly timeoutMs: number },
): StorageApi {
  const client = openHttpClient(url, options);
  return {
    async storage(token) {
      const headers = { accept: "application/json", authorization: `Bearer ${token}` };
      const { status, text } = await client.send({ method: "GET", path: "/api/v1/storage", headers });
      return { status, body: parse(text) };
    },
    close: () => client.close(),
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
