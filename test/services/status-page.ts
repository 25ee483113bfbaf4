import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Serving } from "./serving.ts";
import { STATUS_PAGE } from "./web-api.ts";

/** What the page answered. */
export interface PageAnswer {
  readonly status: number;
  readonly text: string;
  readonly headers: Headers;
  /** The cookie that it set, as a browser sends it back; null if it set none. */
  readonly cookie: string | null;
}

/** One request to a page, as a browser sends it. */
export async function visit(
  { url }: Pick<Serving, "url">,
  path: string,
  given: {
    readonly form?: Readonly<Record<string, string>>;
    readonly cookie?: string | null;
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Promise<PageAnswer> {
  const { form, cookie = null, headers = {} } = given;
  const response = await fetch(`${url}${path}`, {
    redirect: "manual",
    ...(form === undefined ? {} : { method: "POST", body: new URLSearchParams(form) }),
    headers: {
      ...(form === undefined ? {} : { origin: url }),
      ...(cookie === null ? {} : { cookie }),
      ...headers,
    },
  });
  const set = response.headers.get("set-cookie");
  return {
    status: response.status,
    text: await response.text(),
    headers: response.headers,
    cookie: set === null ? null : (set.split(";", 1)[0] ?? ""),
  };
}

/** Signs in with the key of tests, and returns the cookie. */
export async function signIn(serving: Pick<Serving, "url">, path = "/"): Promise<string> {
  const { status, cookie, text } = await visit(serving, path, { form: { key: STATUS_PAGE.systemKey } });
  if (status !== 303 || cookie === null) throw new Error(`${status}: ${text}`);
  return cookie;
}

/** A directory for records of cron's operations, for the length of a test. */
export async function recordsDir(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "fula-records-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** The states of the parts of a page, by their names. */
export function statesIn(text: string): Readonly<Record<string, string>> {
  const found = text.matchAll(/<li>\s*<span class="state (\w+)">\1<\/span><b>([^<]+)<\/b/g);
  return Object.fromEntries([...found].map(([, state = "", name = ""]) => [name, state]));
}

/** The single numbers of a page, by their names. */
export function factsIn(text: string): Readonly<Record<string, string>> {
  const found = text.matchAll(/<dt>([^<]+)<\/dt>\s*<dd>([^<]+)<\/dd>/g);
  return Object.fromEntries([...found].map(([, name = "", value = ""]) => [name, value]));
}
