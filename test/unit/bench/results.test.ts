import { expect, it } from "vitest";
import { BENCHES } from "../../bench/catalogue.ts";
import { judge, type Measurement } from "../../bench/report.ts";
import { listResults, readResults, type Result } from "../../bench/results.ts";
import { readPages } from "../../support/pages.ts";

const MEASURED: Measurement = {
  name: "start",
  what: "the program",
  against: "bare | plain",
  unit: "ms",
  ours: [60, 66, 90],
  anchor: [50, 60, 60],
  target: { of: "ratio", bound: "at most", value: 1.3 },
};
const RUN = {
  at: "2026-11-27T10:00:00.000Z",
  commit: "0123456789",
  machine: { node: "v20.19.0", cpu: "A Processor", cpus: 2, load: "0.5", loadAfter: "1.5" },
};
const bench = (name: string) => ({ name, run: () => Promise.resolve([]) });

it("every number of ours stands beside its anchor, with ratio, target, date, commit and machine", () => {
  const missed = { ...MEASURED, name: "slow", ours: [120, 120, 120] };
  const alone: Measurement = {
    ...MEASURED,
    name: "size",
    against: null,
    anchor: [],
    unit: "MB",
    target: null,
  };
  const results = [
    ...[MEASURED, missed, alone].map((one): Result => ({ ...judge("a", one), ...RUN })),
    { ...judge("b", alone), ...RUN },
  ];
  expect(listResults([bench("a"), bench("b"), bench("c")], results)).toEqual([
    "| measurement | ours: median (least to most) | anchor: the same | ratio | target | run |",
    "| --- | --- | --- | --- | --- | --- |",
    String.raw`| ${"`a`"}: start | 66.0 (60.0 to 90.0) ms | bare \| plain: 60.0 (50.0 to 60.0) ms | 1.20 | <=1.3x, reached | 2026-11-27, 0123456789, 3 times |`,
    String.raw`| ${"`a`"}: slow | 120.0 (120.0 to 120.0) ms | bare \| plain: 60.0 (50.0 to 60.0) ms | 2.00 | <=1.3x, **NO** | 2026-11-27, 0123456789, 3 times |`,
    "| `a`: size | 66.0 (60.0 to 90.0) MB | - | - | - | 2026-11-27, 0123456789, 3 times |",
    "| `b`: size | 66.0 (60.0 to 90.0) MB | - | - | - | 2026-11-27, 0123456789, 3 times |",
    "| `c` | not recorded yet |  |  |  |  |",
    "",
    "- 2026-11-27, 0123456789 (`a`, `b`): 2 processors (A Processor), Node.js v20.19.0; load 0.5 before and 1.5 after.",
  ]);
});

it("every recorded result is one of a bench that still exists", () => {
  const known = BENCHES.map(({ name }) => name);
  expect(readResults().filter((result) => !known.includes(result.bench))).toEqual([]);
});

it("the page says of every bench what it measures and what it is compared with", async () => {
  const page = (await readPages()).get("docs/benchmarks.md") ?? "";
  const [described = ""] = page.split("## Results");
  expect(
    BENCHES.filter(({ name }) => !described.includes(`| \`${name}\` |`)).map(({ name }) => name),
  ).toEqual([]);
});
