import { expect, test } from "vitest";
import { markup, plain } from "../../../src/services/page/markup.ts";
import { bar, linePlot } from "../../../src/services/page/plot.ts";
import { POLICY, STYLE } from "../../../src/services/page/page-style.ts";
import { keyForm } from "../../../src/services/page/page-views.ts";

test("every value is escaped, in texts and in attributes; what is markup already is not", () => {
  const name = `"><script>alert('&')</script>`;
  const escaped = "&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;";
  expect(markup`<b title="${name}">${name}</b>${[markup`<i>${1}</i>`, null, false, "<"]}`.text).toBe(
    `<b title="${escaped}">${escaped}</b><i>1</i>&lt;`,
  );
});

test("a text for the page has no CID, no address and no character that nobody sees, and is not endless", () => {
  const cid = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
  expect(plain(`pin ${cid} of <Anna.B+c@example.co.uk>, "x@y.z"\u202e\n`)).toBe(
    'pin :cid of <(e-mail address)>, "(e-mail address)"\\u202e\\u000a',
  );
  expect(plain("x".repeat(10_000))).toHaveLength(401);
});

const points = (values: readonly number[]) =>
  values.map((value, index) => ({ atMs: Date.UTC(2026, 0, 1 + index), value }));

test("a plot has words for who does not see it, and no more points than a screen shows", () => {
  const { text } = linePlot("p", "Pins <now>", points(Array.from({ length: 5_000 }, (_, n) => n)), String);
  expect(text).toContain("From 0 on 2026-01-01 to 4999 on");
  expect(text).toContain("Pins &lt;now&gt;");
  const line = /<polyline class="line" points="([^"]+)"/.exec(text)?.[1]?.split(" ") ?? [];
  expect(line.length).toBeLessThanOrEqual(240);
  expect([line[0], line.at(-1)]).toEqual(["0,116", "600,4"]);
});

test.each([
  [[], "nothing is recorded yet"],
  [[5], "5. A plot needs two points."],
])("a plot of %j is a sentence", (values, words) => {
  const { text } = linePlot("p", "Pins", points(values), String);
  expect(text).toContain(words);
  expect(text).not.toContain("<svg");
});

test("a plot of zeros lies on its ground line", () => {
  expect(linePlot("p", "Pins", points([0, 0]), String).text).toContain('points="0,116 600,116"');
});

test("a bar that is not empty can be seen", () => {
  expect(bar(0).text).toContain('class="part" width="0"');
  expect(bar(0.000_01).text).toContain('class="part" width="1"');
  expect(bar(2).text).toContain('class="part" width="100"');
});

test("the page loads nothing from elsewhere and runs nothing", () => {
  const { text } = keyForm("/", "wrong");
  expect(text).toContain(`<style>${STYLE}</style>`);
  expect(text).not.toMatch(/<script|\son\w+=|style="|https?:\/\//);
  expect(POLICY).not.toMatch(/unsafe|\*|https?:/);
  expect(STYLE).not.toMatch(/url\(|@import/);
});
