import type { IncomingMessage } from "node:http";
import { clientOf, createRateLimit } from "../rate-limit.ts";
import { readBody } from "../request-body.ts";
import type { App } from "../server.ts";
import type { Markup } from "./markup.ts";
import type { JudgedSettings } from "./page-parts.ts";
import { createPageSessions } from "./page-session.ts";
import { POLICY } from "./page-style.ts";
import { keyForm, signOutOf, statusOf } from "./page-views.ts";
import { type Answers, askAll, type PageSources } from "./questions.ts";

/** Where the page is: for this machine, and through the edge. */
export const PAGE_PATHS = ["/", "/status"] as const;

/** What the page is served with. */
export interface StatusPageDeps extends Omit<PageSources, "settings"> {
  readonly settings: PageSources["settings"] & JudgedSettings;
  readonly version: string;
  /** The time since 1970. */
  readonly nowMs?: () => number;
}

/** Guesses of one client, and of all clients from one side together. */
const GUESSES = { burst: 5, perMinute: 2 };
const ALL_GUESSES = { burst: 30, perMinute: 30 };
const MAX_FORM_BYTES = 4_096;

/**
 * Adds the status page: `GET /` and `GET /status`, which is the same. Without a session it is a form that asks for
 * SYSTEM_KEY; the key comes in the body of a POST, since the edge takes X-System-Key away, and a URL would be logged.
 * A cookie holds the session for an hour. Whoever sends a form must have got it from this page.
 *
 * Guesses from other machines and from this one are counted apart: others can't lock out who sits here.
 */
export function addStatusPage(app: App, deps: StatusPageDeps): void {
  const { settings, version, nowMs = () => new Date().getTime() } = deps;
  const sessions = createPageSessions(settings.statusPage, nowMs);
  const waitOfOne = createRateLimit(GUESSES, () => performance.now());
  const waitOfAll = createRateLimit(ALL_GUESSES, () => performance.now());
  let underWay: Promise<Answers> | null = null;
  /** Who asks while questions are open gets their answers: a page that is reloaded does not load the database twice. */
  const askOnce = () =>
    (underWay ??= askAll(deps).finally(() => {
      underWay = null;
    }));

  for (const path of PAGE_PATHS) {
    app.get(path, async ({ env }) =>
      sessions.isOpen(env.incoming)
        ? page(200, statusOf(await askOnce(), path, { settings, version }))
        : page(200, keyForm(path, null)),
    );
    app.post(path, async ({ env }) => {
      const { incoming } = env;
      if (!isFromHere(incoming)) return refuseOrigin(path);
      const [client, side] = [clientOf(incoming), sideOf(incoming)];
      // It counts before the key is read, so that many at once don't slip through; the right key is no guess.
      const seconds = waitOfOne(client) || waitOfAll(side);
      if (seconds > 0)
        return page(429, keyForm(path, `Too many tries. The next one is possible in ${seconds} s.`), {
          "retry-after": String(seconds),
          connection: "close",
        });
      const body = await readBody(incoming, "application/x-www-form-urlencoded", {
        maxBytes: MAX_FORM_BYTES,
        refuse: (status, why, headers) => page(status, keyForm(path, why), headers),
      });
      if (body instanceof Response) return body;
      if (!sessions.isKey(new URLSearchParams(body.toString("utf8")).get("key") ?? ""))
        return page(403, keyForm(path, "That is not the key of this master."));
      waitOfOne.forgive(client);
      waitOfAll.forgive(side);
      return goTo(path, sessions.begin(incoming));
    });
    app.post(signOutOf(path), ({ env }) =>
      isFromHere(env.incoming) ? goTo(path, sessions.end(env.incoming)) : refuseOrigin(path),
    );
  }
}

function sideOf({ headers }: IncomingMessage): string {
  return headers["x-forwarded-for"] === undefined ? "here" : "elsewhere";
}

/**
 * True if a page of this very address sent the form. Browsers say so in Origin with each POST; newer ones say it in
 * Sec-Fetch-Site, too.
 */
function isFromHere({ headers }: IncomingMessage): boolean {
  const { origin, host } = headers;
  const site = headers["sec-fetch-site"];
  if (site !== undefined && site !== "same-origin") return false;
  const read = /^https?:\/\/([^/?#@]+)$/.exec(origin ?? "")?.[1];
  return read !== undefined && host !== undefined && read.toLowerCase() === host.toLowerCase();
}

function refuseOrigin(path: string): Response {
  const why = "The form did not come from this page. Open the page again, and send the form from there.";
  return page(403, keyForm(path, why), { connection: "close" });
}

/** 303, so that a reload does not send the form again. */
function goTo(path: string, cookie: string): Response {
  const headers = { ...GUARDS, location: path, "set-cookie": cookie, "content-length": "0" };
  return new Response(null, { status: 303, headers });
}

const GUARDS: Readonly<Record<string, string>> = {
  "content-security-policy": POLICY,
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  // Not no-referrer: with it, browsers send `Origin: null`.
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

function page(status: number, body: Markup, more: Readonly<Record<string, string>> = {}): Response {
  const { text } = body;
  return new Response(text, {
    status,
    headers: {
      ...GUARDS,
      "content-type": "text/html; charset=utf-8",
      "content-length": String(Buffer.byteLength(text)),
      ...more,
    },
  });
}
