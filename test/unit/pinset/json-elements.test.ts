import * as fc from "fast-check";
import { expect, test } from "vitest";
import { JsonElements } from "../../../src/pinset/body-reader.ts";

function split(text: string, cuts: readonly number[]): readonly string[] {
  const bytes = new TextEncoder().encode(text);
  const elements = new JsonElements();
  const places = [...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  let out = "";
  let start = 0;
  for (const place of places) {
    out += new TextDecoder("latin1").decode(elements.add(bytes.subarray(start, place)));
    start = place;
  }
  elements.end();
  return Buffer.from(out, "latin1")
    .toString("utf8")
    .split("\n")
    .filter((line) => line !== "");
}

const objects = fc.array(fc.dictionary(fc.string({ unit: "grapheme" }), fc.jsonValue()), { maxLength: 8 });

test("each object becomes one line, for any layout and any split of the stream", () => {
  fc.assert(
    fc.property(objects, fc.constantFrom(0, 2), fc.array(fc.nat(5000)), (values, indent, cuts) => {
      const plain = values.map((value) => JSON.stringify(value));
      const read = (text: string): readonly string[] =>
        split(text, cuts).map((line) => JSON.stringify(JSON.parse(line)));
      expect(read(values.map((value) => JSON.stringify(value, null, indent)).join("\n"))).toEqual(plain);
      expect(read(JSON.stringify(values, null, indent))).toEqual(plain);
    }),
  );
});

test.each([
  "[",
  "{",
  "[{}",
  "[{}},",
  '{"a":"}',
  "1",
  '"{}"',
  "[1]",
  "{} x",
  "[{}] {}",
  "{}]",
  ",{}",
  "[,{}]",
  "{},{}",
])("%s is refused", (text) => {
  expect(() => split(text, [])).toThrow();
});
