import { describeVerdict, type Part, type PartState, verdictOf } from "../../status/part.ts";
import { utcSeconds } from "../../units.ts";
import { markup, Markup, type Piece, plain } from "./markup.ts";
import { type JudgedSettings, partsOf } from "./page-parts.ts";
import { SESSION_SECONDS } from "./page-session.ts";
import { STYLE } from "./page-style.ts";
import { type Answers, QUESTION_MS } from "./questions.ts";
import { sectionsOf } from "./sections.ts";

/** Where the form of the page at this path ends the session. */
export function signOutOf(path: string): string {
  return `${path === "/" ? "" : path}/sign-out`;
}

/** The form that asks for the key. `problem` says why the last try did not open the page. */
export function keyForm(path: string, problem: string | null): Markup {
  return pageOf(
    "Status of a fula-node master",
    markup`<main>
      <section class="enter" aria-labelledby="enter">
        <h1 id="enter">Status of this master</h1>
        <p class="quiet">
          This page needs SYSTEM_KEY from the master's .env. You stay signed in for ${SESSION_SECONDS / 60}
          minutes.
        </p>
        ${problem !== null && markup`<p class="notice" role="alert" id="problem">${problem}</p>`}
        <form method="post" action="${path}">
          <label for="key">SYSTEM_KEY</label>
          <input
            id="key"
            name="key"
            type="password"
            autocomplete="current-password"
            required
            maxlength="1024"
            ${problem !== null && markup` aria-describedby="problem"`}
            autofocus
          />
          <button>Sign in</button>
        </form>
      </section>
    </main>`,
  );
}

/** The page itself. */
export function statusOf(
  answers: Answers,
  path: string,
  {
    settings,
    version,
  }: { readonly settings: JudgedSettings & { readonly pool: string | null }; readonly version: string },
): Markup {
  const parts = partsOf(answers, settings);
  const { pool } = settings;
  const state = verdictOf(parts);
  const title = `${state} · master${pool === null ? "" : ` of pool ${plain(pool)}`}`;
  return pageOf(
    title,
    markup`<a class="skip" href="#parts">To the parts</a>
      <header>
        <div>
          <h1>Master${pool !== null && ` of pool ${plain(pool)}`}</h1>
          <p class="quiet">
            fula-node ${version} · as of
            <time datetime="${answers.at.toISOString()}"
              >${utcSeconds(answers.at).replace("T", " ").replace("Z", " UTC")}</time
            >
          </p>
        </div>
        <div class="actions">
          <a class="button" href="${path}">Look again</a>
          <form method="post" action="${signOutOf(path)}"><button>Sign out</button></form>
        </div>
      </header>
      <main>
        <section class="wide verdict ${state}" aria-label="Verdict">
          ${badge(state)}
          <p>${state === "ok" ? "What this page sees works" : describeVerdict(parts)}.</p>
        </section>
        <section class="wide" aria-labelledby="parts">
          <h2 id="parts" tabindex="-1">Parts</h2>
          <ul class="parts">
            ${parts.map(partItem)}
          </ul>
          <p class="quiet">
            A container does not see Docker, cron, the gateway, the updater and the settings:
            <code>fula-node status</code> on the machine does.
          </p>
        </section>
        ${sectionsOf(answers)}
      </main>
      <footer>
        Each question has ${QUESTION_MS / 1_000} s; one without an answer is shown as unknown. Times are in
        UTC.
      </footer>`,
  );
}

function badge(state: PartState): Markup {
  return markup`<span class="state ${state}">${state}</span>`;
}

function partItem({ name, state, summary, todo }: Part): Markup {
  return markup`<li>
    ${badge(state)}<b>${name}</b
    ><span>${plain(summary)}${todo !== null && markup`<span class="todo">To do: ${plain(todo)}</span>`}</span>
  </li> `;
}

/** The style is our own text; its hash is in the policy, so it must stand here byte by byte. */
const STYLE_ELEMENT = new Markup(`<style>${STYLE}</style>`);

function pageOf(title: string, body: Piece): Markup {
  return markup`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <link rel="icon" href="data:," />
        <title>${title}</title>
        ${STYLE_ELEMENT}
      </head>
      <body>
        ${body}
      </body>
    </html> `;
}
