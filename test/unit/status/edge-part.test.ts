import { describe, expect, it } from "vitest";
import { PROJECT_LABEL } from "../../../src/docker/compose-document.ts";
import type { TlsAnswer } from "../../../src/machine/tls.ts";
import { masterLayout, NAMES, OWNER_LABEL } from "../../../src/settings/layout.ts";
import type { TimedPart } from "../../../src/status/collect.ts";
import { judgeServed, lookAtEdgePart } from "../../../src/status/edge-part.ts";
import type { Containers } from "../../../src/status/judge-docker.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { sha256 } from "../../support/fake-master.ts";

const LAYOUT = masterLayout("/opt/fula-master");
const HOST = "master.example.org";
const SETTINGS: Readonly<Record<string, string>> = { PUBLIC_HOST: HOST, EDGE_TLS: "internal" };
const ROOT = `/var/lib/docker/volumes/${NAMES.edgeVolume}/_data/caddy/pki/authorities/local/root.crt`;
const pem = (text: string) => `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`;

const OWN_WORDS = `https://${HOST}, certificate of Caddy until 2026-12-31`;

/** A box with an edge that works. */
function boxWithEdge(): FakeHost {
  const host = new FakeHost();
  host.docker.putVolume(NAMES.edgeVolume);
  host.files.put(ROOT, pem("MIIone"));
  host.files.put(`${LAYOUT.edgeDir}/Caddyfile`, `https://${HOST} {\n}\n`);
  host.docker.putContainer(NAMES.edge, {
    image: "caddy:2.11.9-alpine",
    labels: { [OWNER_LABEL.key]: OWNER_LABEL.value, [PROJECT_LABEL]: NAMES.masterProject },
  });
  host.tls.onAsk = () => answerOf(404);
  return host;
}

function answerOf(status: number): TlsAnswer {
  const [validFrom, validTo] = [new Date(Date.UTC(2025, 11, 31)), new Date(Date.UTC(2026, 11, 31))];
  const certificate = { issuer: "Caddy", isSelfSigned: false, validFrom, validTo, coversName: true };
  return { kind: "answer", status, body: null, certificate, distrust: null };
}

async function look(host: FakeHost, settings = SETTINGS, given?: Containers) {
  const containers = given === undefined ? new Map(host.docker.boxes) : given;
  return lookAtEdgePart(host, {
    layout: LAYOUT,
    values: (key) => settings[key],
    containers: Promise.resolve(containers),
    ask: (question) => question(),
    hash: sha256,
  });
}

describe("the edge's container", () => {
  const silent = (): FakeHost => {
    const host = boxWithEdge();
    host.tls.onAsk = () => ({ kind: "silent", why: "connect ECONNREFUSED" });
    return host;
  };

  it("an edge without its container is not sent to the logs of a container that is not there", async () => {
    expect(await look(silent(), SETTINGS, new Map())).toMatchObject({
      state: "down",
      summary: "there is no container fula-edge",
      todo: "fula-node join-as-master",
    });
  });

  it("what Docker does not say is not said of the container", async () => {
    expect(await look(silent(), SETTINGS, null)).toMatchObject({
      state: "down",
      summary: "port 443 does not answer: connect ECONNREFUSED",
    });
  });
});

describe("a setting that was changed and not joined", () => {
  it("PUBLIC_HOST is gone: the edge still runs", async () => {
    expect(await look(boxWithEdge(), {})).toMatchObject({
      state: "attention",
      summary: `PUBLIC_HOST is not set, but the edge still runs and serves ${HOST}`,
      todo: "to remove it: fula-node join-as-master",
    });
    expect(await look(boxWithEdge(), {}, new Map())).toBeNull();
    const host = boxWithEdge();
    host.docker.putContainer(NAMES.edge, { image: "nginx" });
    expect(await look(host, {})).toBeNull();
  });

  it("PUBLIC_HOST is another one: what runs is judged by what it serves", async () => {
    const host = boxWithEdge();
    host.tls.onAsk = (name) => (name === HOST ? answerOf(404) : { kind: "no-certificate", why: "alert 80" });
    expect(await look(host, { ...SETTINGS, PUBLIC_HOST: "new.example.org" })).toMatchObject({
      state: "attention",
      summary: `it serves ${HOST} until the next join, but PUBLIC_HOST is new.example.org now`,
      todo: "fula-node join-as-master",
    });
  });
});

describe("what is behind the edge", () => {
  it("names a service that hangs, and does not call the edge unknown", async () => {
    const host = boxWithEdge();
    host.tls.onAsk = (_name, { path }) =>
      path.startsWith("/api/") ? { kind: "silent", why: "no answer within 4 s" } : answerOf(404);
    expect(await look(host)).toMatchObject({
      state: "attention",
      summary: "the edge works, but the storage API does not answer (no answer within 4 s)",
      todo: "repair them: fula-node join-as-master",
    });
  });

  it("an edge in front of services that are down is not ok", () => {
    const part = (name: string, state: TimedPart["state"]): TimedPart => ({
      name,
      state,
      summary: "",
      todo: null,
      evidence: {},
      durationMs: 1,
    });
    const of = (...parts: readonly TimedPart[]) =>
      judgeServed(parts, ["pinning API", "storage API"]).find(({ name }) => name === "edge");
    expect(of(part("pinning API", "down"), part("edge", "ok"))).toMatchObject({
      state: "attention",
      summary: "the edge works, but it can't reach the pinning API",
      todo: "repair that first: see its own line",
    });
    expect(of(part("pinning API", "attention"), part("edge", "ok"))?.state).toBe("ok");
    expect(of(part("pinning API", "down"), part("edge", "down"))?.state).toBe("down");
  });
});

describe("what other machines were told", () => {
  const told = (host: FakeHost, changes: Readonly<Record<string, unknown>> = {}) =>
    host.files.put(
      LAYOUT.edgeKnown,
      JSON.stringify({
        host: HOST,
        url: `https://${HOST}`,
        ca: sha256("MIIone"),
        changed_at: null,
        ...changes,
      }),
    );
  const withDatabase = { ...SETTINGS, POSTGRES_PASSWORD: "p", POSTGRES_HOST: "h", CLUSTERNAME: "pool" };

  it("is nothing to speak of while it holds", async () => {
    const host = boxWithEdge();
    expect(await look(host)).toMatchObject({ state: "ok" });
    told(host);
    expect(await look(host)).toMatchObject({ state: "ok" });
  });

  it("a new CA needs a join, which says whom it concerns", async () => {
    const host = boxWithEdge();
    told(host);
    host.files.put(ROOT, pem("MIItwo"));
    expect(await look(host)).toMatchObject({
      state: "attention",
      summary: `${OWN_WORDS}; its CA is a new one: nobody who has the old root can verify it`,
      todo: "to see who has the old one: fula-node join-as-master",
    });
  });

  it("after that join, shows who still has the old one, until nobody does", async () => {
    const host = boxWithEdge();
    told(host, { changed_at: "2026-01-01T00:00:00.000Z" });
    const asked: (readonly unknown[])[] = [];
    const holders = { invites: "2", nodes: ["berlin-1"] };
    host.postgres.onQuery = (_target, _sql, values) => {
      asked.push(values);
      return [holders];
    };
    expect(await look(host, withDatabase)).toMatchObject({
      state: "attention",
      summary: `${OWN_WORDS}; its address or CA changed on 2026-01-01: 2 open invites and the node berlin-1 have the old one`,
      todo: expect.stringMatching(/--name berlin-1, .* --fingerprint FINGERPRINT --accept/) as string,
    });
    host.tls.onAsk = () => ({ kind: "silent", why: "connect ECONNREFUSED" });
    expect(await look(host, withDatabase)).toMatchObject({
      state: "down",
      summary: expect.stringMatching(/^port 443 does not answer: .*; its address or CA changed on/) as string,
      todo: expect.stringMatching(/^docker logs fula-edge$/) as string,
    });
    host.tls.onAsk = () => answerOf(404);
    asked.length = 1;
    expect(asked).toEqual([["pool", [null], [new Date("2026-01-01T00:00:00.000Z")]]]);
    host.postgres.onQuery = () => [{ invites: "0", nodes: [] }];
    expect(await look(host, withDatabase)).toMatchObject({ state: "ok" });
  });

  it("an edge that is off needs attention while nodes or invites have its address", async () => {
    const host = boxWithEdge();
    host.docker.boxes.delete(NAMES.edge);
    told(host, { off_at: "2026-01-01T00:00:00.000Z" });
    const off = { POSTGRES_PASSWORD: "p", POSTGRES_HOST: "h", CLUSTERNAME: "pool" };
    host.postgres.onQuery = () => [{ invites: "1", nodes: [] }];
    expect(await look(host, off)).toMatchObject({
      state: "attention",
      summary: `PUBLIC_HOST is not set since 2026-01-01, so nobody reaches https://${HOST}: 1 open invite has the old one`,
      todo: expect.stringMatching(
        /^fula-node join-as-master --set PUBLIC_HOST=NAME; .*invite revoke ID .*ones$/,
      ) as string,
    });
    host.postgres.onQuery = () => [{ invites: "0", nodes: [] }];
    expect(await look(host, off)).toBeNull();
  });
});
