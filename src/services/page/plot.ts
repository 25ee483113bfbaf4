import { markup, type Markup } from "./markup.ts";

/** One number at one time. */
export interface PlotPoint {
  readonly atMs: number;
  readonly value: number;
}

const WIDTH = 600;
const HEIGHT = 120;
/** A line has no more of them than a screen has columns to show them. */
const MOST_POINTS = 240;

/**
 * A plot of one number over time, from zero, as an inline SVG. Its text alternative says from where to where it went. With
 * fewer than two points, only a sentence.
 */
export function linePlot(
  id: string,
  title: string,
  points: readonly PlotPoint[],
  format: (value: number) => string,
): Markup {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined)
    return markup`<p class="quiet">${title}: nothing is recorded yet.</p>`;
  if (points.length === 1 || first.atMs === last.atMs)
    return markup`<p class="quiet">${title}: ${format(last.value)}. A plot needs two points.</p>`;
  const values = points.map(({ value }) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const story = `From ${format(first.value)} on ${day(first.atMs)} to ${format(last.value)} on ${day(last.atMs)}; at least ${format(least)}, at most ${format(most)}; ${points.length} points.`;
  const top = most === 0 ? 1 : most;
  const x = ({ atMs }: PlotPoint) => round(((atMs - first.atMs) / (last.atMs - first.atMs)) * WIDTH);
  const y = ({ value }: PlotPoint) => round(HEIGHT - 4 - (value / top) * (HEIGHT - 8));
  const line = sample(points).map((point) => `${x(point)},${y(point)}`);
  return markup`<figure class="plot">
    <figcaption id="${id}-title"><span>${title}</span> <strong>${format(last.value)}</strong></figcaption>
    <div class="frame">
      <svg
        role="img"
        aria-labelledby="${id}-title ${id}-text"
        viewBox="0 0 ${WIDTH} ${HEIGHT}"
        preserveAspectRatio="none"
        focusable="false"
      >
        <desc id="${id}-text">${story}</desc>
        <path class="grid" d="M0 4H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 4}H${WIDTH}" />
        <polygon class="area" points="0,${HEIGHT - 4} ${line.join(" ")} ${WIDTH},${HEIGHT - 4}" />
        <polyline class="line" points="${line.join(" ")}" />
      </svg>
      <span class="top">${format(top)}</span><span class="bottom">${format(0)}</span>
    </div>
    <p class="axis"><span>${day(first.atMs)}</span><span>${day(last.atMs)}</span></p>
  </figure>`;
}

/** A bar from the left, as long as this share of the whole. The number stands beside it, so it needs no text. */
export function bar(share: number): Markup {
  const width = share > 0 ? Math.max(1, round(Math.min(1, share) * 100)) : 0;
  return markup`<svg
    class="bar"
    viewBox="0 0 100 8"
    preserveAspectRatio="none"
    aria-hidden="true"
    focusable="false"
  >
    <rect class="rest" width="100" height="8" />
    <rect class="part" width="${width}" height="8" />
  </svg>`;
}

/** Evenly chosen points, with the first and the last one. */
function sample(points: readonly PlotPoint[]): readonly PlotPoint[] {
  if (points.length <= MOST_POINTS) return points;
  const step = (points.length - 1) / (MOST_POINTS - 1);
  return Array.from({ length: MOST_POINTS }, (_, index) => points[Math.round(index * step)]).filter(
    (point) => point !== undefined,
  );
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function day(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}
