import { describe, expect, it } from "vitest";
import type { Container } from "../../../src/docker/engine.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { FakeMaster, PACKAGE_DIR } from "../../support/fake-master.ts";
import { boxBefore, join, joinedBox, lookAt, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const { pinningApi: API, webui: WEBUI, gateway: GATEWAY, updater: UPDATER } = NAMES;

const before = await boxBefore("services");
const step = await stepOn(before, "services");

function change(host: FakeHost, name: string, fields: Partial<Container>): void {
  const container = host.docker.boxes.get(name);
  if (container === undefined) throw new Error(`no container ${name}`);
  host.docker.boxes.set(name, { ...container, ...fields });
}

function label(host: FakeHost, name: string, labels: Readonly<Record<string, string>>): void {
  change(host, name, { labels: { ...host.docker.boxes.get(name)?.labels, ...labels } });
}

function putForeign(host: FakeHost, name: string, project?: string, service?: string): void {
  host.docker.putContainer(name, {
    image: "functionland/pinning-service:release",
    labels: {
      ...(project === undefined ? {} : { "com.docker.compose.project": project }),
      ...(service === undefined ? {} : { "com.docker.compose.service": service }),
    },
  });
}

stepLaws("services", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "a container was removed",
      arrange: (host) => void host.docker.boxes.delete(WEBUI),
      names: /fula-pinning-webui: no such container/,
    },
    {
      name: "a container was stopped",
      arrange: (host) => change(host, API, { status: "exited", pid: 0 }),
      names: /fula-pinning-api: its status is exited/,
    },
    {
      name: "a service is unhealthy",
      arrange: (host) => change(host, API, { health: "unhealthy" }),
      names: /fula-pinning-api: its healthcheck fails/,
    },
    {
      name: "a container was created with other settings",
      arrange: (host) => label(host, WEBUI, { "com.docker.compose.config-hash": "other" }),
      names: /fula-pinning-webui: it was created with other settings/,
    },
    {
      name: "one was stopped, one is unhealthy",
      arrange: (host) => {
        change(host, API, { status: "exited", pid: 0 });
        change(host, WEBUI, { health: "unhealthy" });
      },
      names: /its status is exited (.exit code \d+.)\nfula-pinning-webui: its healthcheck fails/,
    },
    {
      name: "a gateway's image has come",
      arrange: (host) => host.docker.putImage("fula-gateway:latest"),
      names: /fula-gateway-1: no such container/,
    },
  ],
  foreign: [
    {
      name: "a container of that name, from nowhere",
      arrange: (host) => putForeign(host, API),
      why: /fula-node did not create the container fula-pinning-api \(image functionland\/pinning-service:release, no compose project/,
    },
    {
      name: "both names, in another compose project",
      arrange: (host) => {
        putForeign(host, API, "fula-master-2", "pinning-api");
        putForeign(host, WEBUI, "fula-master-2", "webui");
      },
      why: /did not create the container fula-pinning-api .*did not create the container fula-pinning-webui/,
    },
    {
      name: "a container of an installer that named its services otherwise",
      arrange: (host) => putForeign(host, API, "fula-master", "pinning-service"),
      why: /compose project fula-master, no fula-node label/,
    },
    {
      name: "the containers of another installer, which came up after this run had looked",
      arrange: (host) => {
        putForeign(host, API, "fula-master", "pinning-api");
        putForeign(host, WEBUI, "fula-master", "webui");
      },
      why: /compose project fula-master, no fula-node label/,
    },
  ],
  secrets: secretsOf,
});

const RENEWABLE = { AUTO_UPDATE: "true", WEBUI_IMAGE: "theirs/webui:1" };

describe("the updater", () => {
  it("does not run where it could renew nothing: it would only have Docker's socket", async () => {
    const host = await joinedBox({ set: { AUTO_UPDATE: "true" } });
    expect(host.docker.boxes.has(UPDATER)).toBe(false);
    host.docker.putImage("fula-gateway:latest");
    await join(host);
    expect(host.docker.boxes.has(UPDATER)).toBe(true);
  });

  it("of an earlier version is removed where it can renew nothing", async () => {
    const host = await joinedBox({ set: { AUTO_UPDATE: "true" } });
    const [own] = [...host.docker.boxes.values()].filter(({ name }) => name === WEBUI);
    host.docker.putContainer(UPDATER, { labels: own?.labels ?? {} });
    const { changes } = await join(host);
    expect(changes).toMatchObject([{ change: { kind: "remove-container", container: UPDATER } }]);
  });
});

describe("the updater, once AUTO_UPDATE is off again", () => {
  it("is removed, and nothing else is touched", async () => {
    const host = new FakeMaster();
    host.docker.registry.set(RENEWABLE.WEBUI_IMAGE, {});
    await join(host, { set: RENEWABLE });
    const others = [...host.docker.boxes].filter(([name]) => name !== UPDATER);
    await join(host, { set: { AUTO_UPDATE: "false" } });
    expect(others.length).toBeLessThan(6);
    expect(host.docker.boxes.has(UPDATER)).toBe(false);
    expect([...host.docker.boxes]).toEqual(others);
    host.revive();
    expect((await join(host, { set: { AUTO_UPDATE: "false" } })).changes).toEqual([]);
  });

  it("stays if it is not ours", async () => {
    const host = await joinedBox();
    host.docker.putContainer(UPDATER, { labels: { "com.docker.compose.project": "fula-master" } });
    await join(host);
    expect(host.docker.boxes.has(UPDATER)).toBe(true);
  });
});

describe("services", () => {
  it("are brought up together", async () => {
    expect((await lookAt(step, before.copy())).changes).toEqual([
      {
        kind: "up",
        summary: "start pinning-api, webui",
        services: ["pinning-api", "webui"],
        profiles: [],
      },
    ]);
  });

  it("are restarted only if they are unhealthy, and made only if they are missing", async () => {
    const host = await joinedBox();
    change(host, API, { health: "unhealthy" });
    host.docker.boxes.delete(WEBUI);
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "up", summary: "start webui", services: ["webui"], profiles: [] },
      { kind: "restart", summary: `restart ${API}`, container: API },
    ]);
  });

  it("switch the gateway on only if its image is there", async () => {
    const host = before.copy();
    expect((await lookAt(step, host)).finding.evidence["profiles"]).toBe("none");
    host.docker.putImage("fula-gateway:latest");
    expect((await lookAt(step, host)).changes).toMatchObject([
      { services: ["pinning-api", "webui", "fula-gateway"], profiles: ["gateway"] },
    ]);
    await join(host);
    const mounts = host.docker.boxes.get(GATEWAY)?.mounts ?? [];
    expect(mounts).toMatchObject([{ type: "volume", destination: "/var/lib/fula-gateway" }]);
  });

  it("take the updater in with AUTO_UPDATE, and pull its image only then", async () => {
    const host = before.copy();
    const set = RENEWABLE;
    host.docker.registry.set(set.WEBUI_IMAGE, {});
    const image = "nickfedor/watchtower:1.21.0";
    expect((await lookAt(await stepOn(host, "services", { set }), host)).changes).toEqual([
      { kind: "pull-image", summary: `pull ${image}`, image },
      { kind: "pull-image", summary: `pull ${set.WEBUI_IMAGE}`, image: set.WEBUI_IMAGE },
      {
        kind: "up",
        summary: "start pinning-api, webui, updater",
        services: ["pinning-api", "webui", "updater"],
        profiles: ["updater"],
      },
    ]);
    await join(host, { set });
    const enabled = [...host.docker.boxes.values()].filter(
      ({ labels }) => labels["com.centurylinklabs.watchtower.enable"] === "true",
    );
    expect(enabled.map(({ name }) => name).sort()).toEqual([API, WEBUI]);
    expect(host.docker.boxes.has(UPDATER)).toBe(true);
  });

  it("are created again when the service image was", async () => {
    const host = await joinedBox();
    host.files.put(`${PACKAGE_DIR}/dist/cli.js`, "// another bundle\n");
    const ids = [API, WEBUI].map((name) => host.docker.boxes.get(name)?.id);
    const dry = await join(host, { dryRun: true });
    const { changes } = await join(host);
    expect(changes.map(({ step: id, change: { kind } }) => `${id} ${kind}`)).toEqual([
      "cli install-cli",
      "service-image build-image",
      "services up",
    ]);
    expect(dry.plan.flatMap(({ changes: planned }) => planned)).toEqual(
      changes.map(({ change: one }) => one),
    );
    expect([API, WEBUI].map((name) => host.docker.boxes.get(name)?.id)).not.toEqual(ids);
  });

  it("are created again when one of their settings was changed, and only those that read it", async () => {
    const host = await joinedBox();
    const { changes } = await join(host, { set: { NODE_NAMES_PER_OWNER: "4" } });
    expect(changes.map(({ step: id, change: { kind, services } }) => [id, kind, services])).toEqual([
      ["env-file", "write-env", undefined],
      ["services", "up", ["webui"]],
    ]);
  });
});

describe("services that do not work", () => {
  it("are judged by each container, not by an exit code", async () => {
    const host = before.copy();
    host.docker.onStart = (container) => ({ ...container, health: "unhealthy", healthOutput: "db: down" });
    const { changes } = await lookAt(step, host);
    for (const one of changes) await step.apply(one, host, () => {});
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: "fula-pinning-api does not work: its status is running, health unhealthy.",
      remedy: expect.stringContaining("Its healthcheck printed: db: down."),
    });
  });

  it("are waited for while they start", async () => {
    const host = before.copy();
    host.docker.onStart = (container) => ({ ...container, health: "starting" });
    for (const one of (await lookAt(step, host)).changes) await step.apply(one, host, () => {});
    let waits = 0;
    host.clock.onWait = () => {
      waits += 1;
      if (waits === 50) for (const name of [API, WEBUI]) change(host, name, { health: "healthy" });
    };
    await step.verify(host);
    expect(waits).toBe(50);
  });

  it("fail at once when a container dies, with its exit code and last output", async () => {
    const host = before.copy();
    host.docker.onStart = (container) => ({ ...container, status: "exited", exitCode: 1 });
    const line = { level: "warn", time: "T", service: "pinning-api", msg: "pin queue: database: gone" };
    host.docker.logTexts.set(API, `${JSON.stringify(line)}\nFATAL: JWT_SECRET is missing`);
    for (const one of (await lookAt(step, host)).changes) await step.apply(one, host, () => {});
    await expect(step.verify(host)).rejects.toMatchObject({
      what: "fula-pinning-api does not work: its status is exited, exit code 1.",
      why: "Its log ends with:\nT warn pin queue: database: gone\nFATAL: JWT_SECRET is missing",
    });
  });

  it("are asked at their address, too: a healthy container is not enough", async () => {
    const host = await joinedBox();
    const url = "http://127.0.0.1:3001/health";
    host.http.routes.set(url, { status: 503, body: { postgres: "down" } });
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: `${url} answers 503: {"postgres":"down"}.`,
    });
    host.http.routes.delete(url);
    await expect(step.verify(host)).rejects.toMatchObject({ what: `${url} does not answer.` });
  });

  it("are asked whether it is they who answer: another program on their port may say 200, too", async () => {
    const host = await joinedBox();
    const url = "http://127.0.0.1:3001/health";
    for (const body of [null, "ok", { status: "up" }, []]) {
      host.http.routes.set(url, { status: 200, body });
      await expect(step.verify(host)).rejects.toMatchObject({
        exit: "unhealthy",
        what: `${url} is answered by another program, not by our service.`,
        remedy: "See which one (ss -ltnp 'sport = :3001'), stop it, then run again.",
      });
    }
  });
});
