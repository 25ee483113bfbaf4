import { parseSnapshotHistory, parseSweepHistory, type SweepPoint } from "../../pinset/history.ts";
import { type Facts, readFacts } from "../../pinset/sweep/findings.ts";
import { age, countOf, decimalBytes, grouped } from "../../units.ts";
import { markup, type Markup, type Piece, plain } from "./markup.ts";
import { nodesOf } from "./node-rows.ts";
import { describeMissing, runOf, valueOf } from "./page-parts.ts";
import { bar, linePlot } from "./plot.ts";
import type { Answer, Answers } from "./questions.ts";

/** So many rows of a table are shown. */
const MOST_ROWS = 100;
const SNAPSHOT_ROWS = 12;

/** What is shown below the parts, in this order. Each section stands for itself: one without an answer says why. */
export function sectionsOf(answers: Answers): readonly Markup[] {
  return [
    section("Masters", mastersIn(answers)),
    section("Pin queue", queueIn(answers)),
    section("Space", spaceIn(answers)),
    section("Pins", pinsIn(answers)),
    section("Nodes", nodesIn(answers), "wide"),
    section("Last sweep", sweepIn(answers)),
    section("Copies", copiesIn(answers)),
    section("Snapshots", snapshotsIn(answers)),
    section("Billing", billingIn(answers)),
  ];
}

function section(title: string, body: Piece, size = ""): Markup {
  const id = title.toLowerCase().replaceAll(" ", "-");
  return markup`<section class="${size}" aria-labelledby="${id}">
    <h2 id="${id}">${title}</h2>
    ${body}
  </section> `;
}

/** A part of the page without an answer: never as a number, and never green. */
function missing(answer: Exclude<Answer<unknown>, { kind: "answer" }>): Markup {
  return unknown(describeMissing(answer));
}

function unknown(why: string): Markup {
  return markup`<p class="missing"><span class="state unknown">unknown</span> <span>${plain(why)}</span></p>`;
}

/** A number with its name. */
type Fact = readonly [name: string, value: string];

function facts(all: readonly Fact[]): Markup {
  return markup`<dl>
    ${all.map(
      ([name, value]) =>
        markup`<div>
          <dt>${name}</dt>
          <dd>${value}</dd>
        </div>`,
    )}
  </dl>`;
}

/** `n`: a column of numbers; `w`: a wide one; `t`: one that stays on one line. */
type Column = readonly [name: string, kind?: "n" | "w" | "t"];

function table(title: string, columns: readonly Column[], rows: readonly (readonly Piece[])[]): Markup {
  const shown = rows.slice(0, MOST_ROWS);
  const more = rows.length - shown.length;
  return markup`<div class="scroll" role="region" aria-label="${title}" tabindex="0">
      <table>
        <caption>
          ${title}
        </caption>
        <thead>
          <tr>
            ${columns.map(([name, kind = ""]) => markup`<th scope="col" class="${kind}">${name}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${shown.map(
            (cells) =>
              markup`<tr>
                ${cells.map((cell, index) => markup`<td class="${columns[index]?.[1] ?? ""}">${cell}</td>`)}
              </tr> `,
          )}
        </tbody>
      </table>
    </div>
    ${more > 0 && markup`<p class="quiet">${grouped(more)} more</p>`}`;
}

function ago(at: string | null, now: Date): string {
  if (at === null) return "never";
  return since(now.getTime() - Date.parse(at));
}

function since(ms: number): string {
  return ms < 0 ? "now" : `${age(ms)} ago`;
}

function mastersIn({ trust, standing }: Answers): Piece {
  const read = valueOf(standing);
  const leader =
    standing.kind !== "answer"
      ? missing(standing)
      : markup`<p>
          ${
            read === null
              ? "This master bills nothing."
              : read.leader !== null
                ? `${plain(read.leader)} runs the billing since ${read.since ?? "an unknown time"}.`
                : read.isElsewhere
                  ? "Another program runs the billing: upstream's image on another master."
                  : "No master runs the billing."
          }
        </p>`;
  if (trust.kind !== "answer") return [missing(trust), leader];
  const rows = trust.value.masters.map(({ name, version, heartbeatAgeMs }) => [
    name,
    name === read?.leader ? "leads" : "",
    version,
    since(heartbeatAgeMs),
  ]);
  return [
    rows.length === 0
      ? markup`<p class="quiet">No master has recorded itself yet.</p>`
      : table("The masters of this pool", [["master"], ["billing"], ["version"], ["seen", "t"]], rows),
    leader,
  ];
}

function spaceIn(answers: Answers): Piece {
  const { space, freeSpace } = answers;
  const own = valueOf(space);
  const reported = valueOf(freeSpace)?.filter(({ valid }) => valid) ?? [];
  const free = reported.reduce((sum, { value }) => sum + Number(value), 0);
  return [
    own !== null
      ? facts([
          ["used here", decimalBytes(own.usedBytes)],
          ["of at most", decimalBytes(own.limitBytes)],
          ["free on this disk", decimalBytes(own.availableBytes)],
        ])
      : space.kind === "answer"
        ? unknown("kubo does not say it")
        : missing(space),
    freeSpace.kind === "answer"
      ? markup`<p>${decimalBytes(free)} free on ${countOf(reported.length, "peer")} of the cluster.</p>`
      : missing(freeSpace),
    sweepPlot(answers, ["plot-space", "Free space of all nodes"], ({ freeBytes }) => freeBytes, decimalBytes),
  ];
}

function historyOf<Points>(
  record: Answer<string | null>,
  points: Points | null,
  draw: (points: Points) => Piece,
): Piece {
  if (record.kind !== "answer") return missing(record);
  return points === null ? unknown("the record of what was can't be read") : draw(points);
}

/** A plot of what each sweep recorded. */
function sweepPlot(
  { records }: Answers,
  [id, title]: readonly [id: string, title: string],
  read: (point: SweepPoint) => number | null,
  format: (value: number) => string,
): Piece {
  const record = records["sweep-history"];
  const points = record.kind === "answer" ? parseSweepHistory(record.value) : null;
  return historyOf(record, points, (all) => {
    const drawn = all.flatMap((point) => {
      const value = read(point);
      return value === null ? [] : [{ atMs: Date.parse(point.at), value }];
    });
    return linePlot(id, title, drawn, format);
  });
}

function nodesIn(answers: Answers): Piece {
  const { peers, pings, owners, records } = answers;
  const rows = nodesOf(answers);
  const asked = [peers, pings, owners, records.sweep] as const;
  const names = [
    "the members of the cluster",
    "who is up",
    "the registered names",
    "what the last sweep found",
  ];
  const lacking = asked.flatMap((answer, index) =>
    answer.kind === "answer" ? [] : [unknown(`${names[index] ?? ""}: ${describeMissing(answer)}`)],
  );
  if (rows.length === 0)
    return lacking.length > 0 ? lacking : markup`<p class="quiet">No storage node is known yet.</p>`;
  return [
    lacking,
    table(
      `${countOf(rows.length, "node")} of the pool`,
      [["node"], ["state"], ["free space", "n"], ["pins", "n"], ["last seen", "t"]],
      rows.map(({ name, state, words, freeBytes, pins, isUp, seen }) => [
        name,
        markup`<span class="state ${state}">${words}</span>`,
        freeBytes === null ? "not known" : decimalBytes(freeBytes),
        pins,
        isUp ? "now" : ago(seen, answers.at),
      ]),
    ),
  ];
}

function pinsIn(answers: Answers): Piece {
  const { pins } = answers;
  return [
    pins.kind === "answer"
      ? facts([
          ["pinned", grouped(pins.value.pinned)],
          ["on their way", grouped(pins.value.pinning)],
          ["waiting", grouped(pins.value.queued)],
          ["failed", grouped(pins.value.failed)],
        ])
      : missing(pins),
    sweepPlot(answers, ["plot-pins", "Pins of the pool"], ({ pins: all }) => all, grouped),
  ];
}

function copiesIn(answers: Answers): Piece {
  const found = sweptIn(answers);
  if (!("facts" in found)) return found;
  const { histogram, pins } = found.facts;
  const rows = Object.entries(histogram)
    .map(([copies, count]) => ({ copies: Number(copies), count }))
    .toSorted((a, b) => a.copies - b.copies);
  if (rows.length === 0)
    return pins.total === 0
      ? markup`<p class="quiet">The pool has no pins.</p>`
      : unknown("the last sweep was of an earlier version, which did not record them");
  const most = Math.max(...rows.map(({ count }) => count));
  return table(
    `How many pins have how many copies, ${found.when}`,
    [
      ["copies", "n"],
      ["pins", "n"],
      ["", "w"],
    ],
    rows.map(({ copies, count }) => [String(copies), grouped(count), bar(count / most)]),
  );
}

/** What the last complete sweep found, or what to show in its place. */
function sweptIn(answers: Answers): { readonly facts: Facts; readonly when: string } | Markup {
  const record = answers.records.sweep;
  if (record.kind !== "answer") return missing(record);
  const heartbeat = runOf(answers, "sweep")?.heartbeat ?? null;
  const read = readFacts(heartbeat);
  if (record.value === null) return unknown("no sweep has run yet");
  if (read === null) return unknown("no complete sweep is on record");
  return { facts: read, when: `found ${ago(heartbeat?.facts_at ?? null, answers.at)}` };
}

function sweepIn(answers: Answers): Piece {
  const run = runOf(answers, "sweep");
  const found = sweptIn(answers);
  const heartbeat = run?.heartbeat ?? null;
  const last =
    heartbeat === null
      ? null
      : markup`<p>
          The last run ended ${ago(heartbeat.at, answers.at)}, took ${age(heartbeat.duration_ms)}:
          ${plain(heartbeat.summary)}
        </p>`;
  const plot = sweepPlot(answers, ["plot-below", "Pins below their minimum"], ({ below }) => below, grouped);
  if (!("facts" in found)) return [last, found, plot];
  const { pins, strangers } = found.facts;
  return [
    facts([
      ["complete", grouped(pins.complete)],
      ["syncing", grouped(pins.syncing)],
      ["searched for", grouped(pins.searchedFor)],
      ["below minimum", grouped(pins.below)],
      ["members not expected", grouped(strangers)],
    ]),
    last,
    plot,
  ];
}

function queueIn({ pinningHealth }: Answers): Piece {
  if (pinningHealth.kind !== "answer") return missing(pinningHealth);
  if (pinningHealth.value === null) return unknown("the pinning API does not answer");
  const { queue } = (pinningHealth.value.body ?? {}) as {
    readonly queue?: Readonly<Record<string, unknown>>;
  };
  if (queue === undefined) return unknown("the pinning API does not say it");
  const count = (name: string) => {
    const value = queue[name];
    return typeof value === "number" ? grouped(value) : "not known";
  };
  const oldest = queue["oldestSeconds"];
  const fault = queue["fault"];
  return [
    facts([
      ["waiting", count("waiting")],
      ["worked on now", count("inProgress")],
      ["failed", count("failed")],
      ["oldest", typeof oldest === "number" ? age(oldest * 1_000) : "not known"],
    ]),
    typeof fault === "string" &&
      markup`<p class="missing">
        <span class="state attention">attention</span> <span>${plain(fault)}</span>
      </p>`,
  ];
}

function snapshotsIn(answers: Answers): Piece {
  const { records, at } = answers;
  const history = records["snapshot-history"];
  const points = history.kind === "answer" ? parseSnapshotHistory(history.value) : null;
  const heartbeat = runOf(answers, "snapshot")?.heartbeat ?? null;
  return [
    records.snapshot.kind === "answer"
      ? markup`<p>
          ${
            heartbeat === null
              ? "No run is on record."
              : `The last run ended ${ago(heartbeat.at, at)}: ${plain(heartbeat.summary)}`
          }
        </p>`
      : missing(records.snapshot),
    historyOf(history, points, (all) => [
      linePlot(
        "plot-snapshots",
        "Size of a snapshot",
        all.map((point) => ({ atMs: Date.parse(point.at), value: point.bytes })),
        decimalBytes,
      ),
      all.length > 0 &&
        table(
          "The newest snapshots",
          [
            ["taken (UTC)", "t"],
            ["age", "t"],
            ["pins", "n"],
            ["size", "n"],
          ],
          all
            .slice(-SNAPSHOT_ROWS)
            .toReversed()
            .map((point) => [
              point.at.slice(0, 16).replace("T", " "),
              ago(point.at, at),
              grouped(point.pins),
              decimalBytes(point.bytes),
            ]),
        ),
    ]),
  ];
}

function billingIn({ hours, standing }: Answers): Piece {
  const read = valueOf(standing);
  if (hours.kind !== "answer") return missing(hours);
  return [
    read !== null &&
      facts([
        ["billed up to", read.lastHour ?? "no hour yet"],
        ["charges that failed", grouped(read.failures)],
        ["hours never billed", grouped(read.forgotten)],
      ]),
    hours.value.length === 0
      ? markup`<p class="quiet">No hour is billed yet.</p>`
      : table(
          "The newest hours",
          [["hour (UTC)", "t"], ["state"], ["accounts", "n"], ["FULA", "n"]],
          hours.value.map(({ hour, state, charged, amount }) => [hour, state, grouped(charged), amount]),
        ),
  ];
}
