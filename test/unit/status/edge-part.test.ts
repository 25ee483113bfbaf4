import { expect, it } from "vitest";
import { lookAtEdgePart } from "../../../src/status/edge-part.ts";
import type { Containers } from "../../../src/status/judge-docker.ts";
import { FakeHost } from "../../support/fake-host.ts";

const SETTINGS: Readonly<Record<string, string>> = {
  PUBLIC_HOST: "master.example.org",
  EDGE_TLS: "internal",
};

async function look(containers: Containers) {
  const host = new FakeHost();
  host.tls.onAsk = () => ({ kind: "silent", why: "connect ECONNREFUSED" });
  return lookAtEdgePart(host, {
    values: (key) => SETTINGS[key],
    containers: Promise.resolve(containers),
    ask: (question) => question(),
  });
}

it("an edge without its container is not sent to the logs of a container that is not there", async () => {
  expect(await look(new Map())).toMatchObject({
    state: "down",
    summary: "there is no container fula-edge",
    todo: "fula-node join-as-master",
  });
});

it("what Docker does not say is not said of the container", async () => {
  expect(await look(null)).toMatchObject({
    state: "down",
    summary: "port 443 does not answer: connect ECONNREFUSED",
  });
});
