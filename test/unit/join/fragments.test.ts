import { expect, it } from "vitest";
import { readFragments } from "../../../src/join/prepare-master.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { sha256 } from "../../support/fake-master.ts";

const TEXT = "services:\n  one:\n    image: one:1\n";
const BUILT = { services: { one: { image: "as the build has parsed it" } } };

function hostWith(text: string, built?: object): FakeHost {
  const host = new FakeHost();
  host.files.put("/package/compose/one.yml", text);
  if (built !== undefined) host.files.put("/package/dist/fragments.json", JSON.stringify(built));
  return host;
}

const read = async (host: FakeHost) => (await readFragments(host, "/package", ["one"])).one;

it("takes a fragment as the build has parsed it, if it is still the same text", async () => {
  expect(await read(hostWith(TEXT, { [sha256(TEXT)]: BUILT }))).toEqual(BUILT);
});

it("parses a fragment that was changed after the build, or that ran from its sources", async () => {
  const changed = TEXT.replace("one:1", "one:2");
  const parsed = { services: { one: { image: "one:2" } } };
  expect(await read(hostWith(changed, { [sha256(TEXT)]: BUILT }))).toEqual(parsed);
  expect(await read(hostWith(`${changed}# from its sources\n`))).toEqual(parsed);
});

it("refuses a fragment without services, whoever has parsed it", async () => {
  const text = `${TEXT}# without services\n`;
  await expect(read(hostWith(text, { [sha256(text)]: {} }))).rejects.toThrow("has no services");
});
