import { expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { lookOnce } from "../../../src/status/look-once.ts";
import { FakeHost } from "../../support/fake-host.ts";

function hostThatCounts(): { readonly host: FakeHost; readonly asked: string[] } {
  const host = new FakeHost();
  const asked: string[] = [];
  host.files.readText = async (path) => (asked.push(path), `the text of ${path}`);
  host.docker.container = async (name) => {
    asked.push(name);
    throw new OperatorError({ exit: "unavailable", what: "Docker does not answer." });
  };
  return { host, asked };
}

it("asks the same question once, and each other one too", async () => {
  const { host, asked } = hostThatCounts();
  const { files } = lookOnce(host);
  expect(await Promise.all([files.readText("/a"), files.readText("/a"), files.readText("/b")])).toEqual([
    "the text of /a",
    "the text of /a",
    "the text of /b",
  ]);
  expect(await files.readText("/a")).toBe("the text of /a");
  expect(asked).toEqual(["/a", "/b"]);
});

it("gives the first answer also if that was an error", async () => {
  const { host, asked } = hostThatCounts();
  const { docker } = lookOnce(host);
  for (let time = 0; time < 2; time += 1)
    await expect(docker.container("kubo")).rejects.toThrow("Docker does not answer.");
  expect(asked).toEqual(["kubo"]);
});

it("keeps no answer for the next look, and none over HTTP", async () => {
  const { host, asked } = hostThatCounts();
  await lookOnce(host).files.readText("/a");
  await lookOnce(host).files.readText("/a");
  expect(asked).toEqual(["/a", "/a"]);
  expect(lookOnce(host).http).toBe(host.http);
});

it("asks again with something that is no plain data, which can't be compared", async () => {
  const { host } = hostThatCounts();
  let asked = 0;
  host.docker.pull = async () => void (asked += 1);
  const { docker } = lookOnce(host);
  for (let time = 0; time < 2; time += 1) await docker.pull("image", () => {});
  expect(asked).toBe(2);
});
