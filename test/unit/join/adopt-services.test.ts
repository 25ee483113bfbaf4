import { beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { NAMES } from "../../../src/settings/layout.ts";
import { FakeMaster, putDatabase } from "../../support/fake-master.ts";
import { endOf, join, LAYOUT, lookAt, savedValues, stepOn } from "../../support/master-boxes.ts";

const IMAGES = {
  postgres: "postgres:16.4-bookworm",
  api: "fula-pinning-api:master",
  webui: "registry.example/pinning-webui:release",
} as const;
const ADOPT = ["postgres", "services"];
const JWT = "j".repeat(40);

function putTheirs(
  host: FakeMaster,
  name: string,
  service: string,
  fields: Partial<Parameters<FakeMaster["docker"]["putContainer"]>[1]>,
): void {
  host.docker.putContainer(name, {
    labels: { "com.docker.compose.project": "fula-master", "com.docker.compose.service": service },
    ...fields,
  });
}

/** A master of the bash scripts: `.env` with the database's password, three containers of its compose project. */
function upstreamBox(): FakeMaster {
  const host = new FakeMaster();
  const volume = "/var/lib/docker/volumes/fula-master_pgdata/_data";
  const role = { user: "pinning_user", password: "their-password-1", database: "pinning_service" };
  host.docker.putVolume("fula-master_pgdata");
  putDatabase(host, volume, "16", role);
  for (const image of Object.values(IMAGES)) host.docker.putImage(image);
  host.files.put(
    LAYOUT.envFile,
    `POSTGRES_PASSWORD=their-password-1\nENCRYPTION_KEY=${"ab".repeat(32)}\nSYSTEM_KEY=their-system-key\n`,
    0o600,
  );
  putTheirs(host, NAMES.postgres, "postgres", {
    image: IMAGES.postgres,
    env: { POSTGRES_PASSWORD: "their-password-1", POSTGRES_USER: "pinning_user", TUNED: "yes" },
    networkMode: "fula-master_default",
    mounts: [
      { type: "volume", name: "fula-master_pgdata", source: volume, destination: "/var/lib/postgresql/data" },
    ],
  });
  putTheirs(host, NAMES.pinningApi, "pinning-api", {
    image: IMAGES.api,
    env: { PORT: "6100", JWT_SECRET: JWT, VAULT_TOKEN: "their-$vault-token" },
  });
  putTheirs(host, NAMES.webui, "webui", {
    image: IMAGES.webui,
    env: {
      WEBUI_PORT: "3001",
      JWT_SECRET: JWT,
      SESSION_SECRET: "s".repeat(40),
      ADMIN_EMAILS: "a@example.org",
      PINNING_SYSTEM_KEY: "their-system-key",
    },
  });
  host.http.routes.set("http://127.0.0.1:6100/health", { status: 401, body: {} });
  host.http.routes.set("http://127.0.0.1:3001/health", { status: 404, body: {} });
  host.revive();
  return host;
}

const theirs = (host: FakeMaster) =>
  [NAMES.postgres, NAMES.pinningApi, NAMES.webui].map((name) => host.docker.boxes.get(name));

describe("adopting the services of a working master", () => {
  let host: FakeMaster;
  beforeEach(() => void (host = upstreamBox()));

  it("keeps every container as it runs, and saves its image and settings", async () => {
    const before = theirs(host);
    await join(host, { adopt: ADOPT });
    expect(theirs(host)).toEqual(before);
    expect(savedValues(host)).toMatchObject({
      POSTGRES_IMAGE: IMAGES.postgres,
      PINNING_API_IMAGE: IMAGES.api,
      WEBUI_IMAGE: IMAGES.webui,
      PINNING_API_PORT: "6100",
      ADMIN_EMAILS: "a@example.org",
      JWT_SECRET: JWT,
      SESSION_SECRET: "s".repeat(40),
      SYSTEM_KEY: "their-system-key",
    });
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
    expect(theirs(host)).toEqual(before);
  });

  it("saves them before it changes anything else", async () => {
    await join(host, { adopt: ADOPT });
    const besides = ["journal", "/cli/", LAYOUT.unfinishedImages];
    const writes = host.writes.filter((write) => besides.every((name) => !write.includes(name)));
    expect(writes[0]).toContain(LAYOUT.envFile);
    expect(writes.some((write) => /composeUp fula-master|remove|restart/.test(write))).toBe(false);
  });

  it("shows in the plan where each setting comes from, and no secret", async () => {
    const { plan } = await join(host, { adopt: ADOPT, dryRun: true });
    const text = JSON.stringify(plan);
    const changed = plan.filter(({ changes }) => changes.length > 0).map(({ step }) => step);
    expect(changed).not.toContain("services");
    expect(changed).not.toContain("postgres");
    expect(text).toContain(`PINNING_API_IMAGE (none) -> ${IMAGES.api} (adopted)`);
    expect(text).toContain("PINNING_API_PORT (none) -> 6100 (adopted)");
    expect(text).toContain("JWT_SECRET (none) -> (secret) (adopted)");
    for (const secret of [JWT, "their-$vault-token", "their-password-1"]) expect(text).not.toContain(secret);
    expect(host.writes).toEqual([]);
  });

  it("creates a lost one again with its image, environment and mounts", async () => {
    host.docker.definitions.set(NAMES.pinningApi, {
      command: ["node", "server.js", "$HOME"],
      mounts: [{ type: "bind", source: "/srv/theirs", target: "/data", readOnly: true }],
      ports: ["127.0.0.1:7000:7000/tcp"],
    });
    await join(host, { adopt: ADOPT });
    host.docker.boxes.delete(NAMES.pinningApi);
    const { changes } = await join(host);
    expect(changes.map(({ change }) => change["summary"])).toEqual(["start pinning-api"]);
    const made = host.docker.boxes.get(NAMES.pinningApi);
    expect(made).toMatchObject({
      image: IMAGES.api,
      env: { PORT: "6100", JWT_SECRET: JWT },
      mounts: [{ type: "bind", source: "/srv/theirs", destination: "/data" }],
    });
    const document = parse(host.files.textOf(LAYOUT.composeFile)) as {
      services: Record<string, Record<string, unknown>>;
    };
    const { command, ports, env_file, environment } = document.services["pinning-api"] ?? {};
    expect(command).toEqual(["node", "server.js", "$$HOME"]);
    expect(ports).toEqual(["127.0.0.1:7000:7000/tcp"]);
    expect(environment).toMatchObject({ PORT: "${PINNING_API_PORT:-6100}" });
    expect(env_file).toEqual([`${LAYOUT.adoptedDir}/pinning-api.env`]);
    expect(host.files.textOf(`${LAYOUT.adoptedDir}/pinning-api.env`)).toBe(
      "VAULT_TOKEN='their-$vault-token'\n",
    );
    expect(host.files.textOf(LAYOUT.composeFile)).not.toContain("vault-token");
    for (const name of ["pinning-api.env", "pinning-api.json"])
      expect(host.files.tree.get(`${LAYOUT.adoptedDir}/${name}`)?.mode).toBe(0o600);
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
  });

  it.each(["exited", "created"] as const)(
    "starts one that is %s, and does not create it again",
    async (status) => {
      await join(host, { adopt: ADOPT });
      const container = host.docker.boxes.get(NAMES.webui);
      if (container === undefined) throw new Error("no webui");
      host.docker.boxes.set(NAMES.webui, { ...container, status });
      const { changes } = await join(host);
      expect(changes).toMatchObject([{ change: { kind: "restart", container: NAMES.webui } }]);
      expect(host.docker.boxes.get(NAMES.webui)?.id).toBe(container.id);
    },
  );

  it("creates one again when a setting that it gets is changed, and keeps the rest", async () => {
    await join(host, { adopt: ADOPT });
    const { changes } = await join(host, { set: { ADMIN_EMAILS: "b@example.org" } });
    expect(changes.at(-1)).toMatchObject({ change: { kind: "up", services: ["webui"] } });
    const { image, env } = host.docker.boxes.get(NAMES.webui) ?? {};
    expect({ image, env }).toMatchObject({
      image: IMAGES.webui,
      env: { ADMIN_EMAILS: "b@example.org", JWT_SECRET: JWT },
    });
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
  });

  it("waits for an adopted service that was just started, since it has no healthcheck", async () => {
    await join(host, { adopt: ADOPT });
    host.docker.boxes.delete(NAMES.webui);
    let asked = 0;
    host.http.routes.set("http://127.0.0.1:3001/health", () =>
      (asked += 1) < 5 ? null : { status: 401, body: {} },
    );
    await join(host);
    expect(asked).toBe(5);
    host.http.routes.set("http://127.0.0.1:3001/health", () => null);
    await expect(join(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: "http://127.0.0.1:3001/health does not answer.",
      remedy: expect.stringContaining("--set WEBUI_PORT=PORT"),
    });
  });

  it("says which variables could not be recorded", async () => {
    putTheirs(host, NAMES.webui, "webui", {
      image: IMAGES.webui,
      env: { PEM: "two\nlines", JWT_SECRET: JWT },
    });
    const { plan } = await join(host, { adopt: ADOPT, dryRun: true });
    expect(JSON.stringify(plan)).toContain(`webui (${IMAGES.webui}, but not its PEM)`);
  });

  it("changes its image to another one of the operator's without --replace, and keeps the rest", async () => {
    await join(host, { adopt: ADOPT });
    host.docker.putImage("fula-pinning-api:next");
    await join(host, { set: { PINNING_API_IMAGE: "fula-pinning-api:next" } });
    const { image, env } = host.docker.boxes.get(NAMES.pinningApi) ?? {};
    expect({ image, env }).toMatchObject({ image: "fula-pinning-api:next", env: { PORT: "6100" } });
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
  });

  it("never touches one that came up after the run had looked", async () => {
    host.docker.boxes.delete(NAMES.webui);
    const step = await stepOn(host, "services", { adopt: ADOPT });
    putTheirs(host, NAMES.webui, "webui", { image: IMAGES.webui });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({ state: "foreign" });
    expect(finding).not.toHaveProperty("claim");
  });
});

describe("fula-node's own service instead of an adopted one", () => {
  const set = { PINNING_API_IMAGE: "fula-node" };

  it("asks by name, and --yes is not enough", async () => {
    const host = upstreamBox();
    await join(host, { adopt: ADOPT });
    const before = endOf(host);
    await expect(join(host, { set })).rejects.toMatchObject({
      exit: "preflight",
      problems: [
        {
          subject: "--replace pinning-api",
          what: expect.stringMatching(/fula-pinning-api:master.*no passwords.*only read/),
          remedy: expect.stringContaining(`set it to ${IMAGES.api}`),
        },
      ],
    });
    await expect(join(host, { set, replace: ["webui"] })).rejects.toMatchObject({ exit: "preflight" });
    expect(endOf(host)).toEqual(before);
    const { plan } = await join(host, { set, dryRun: true });
    expect(plan.find(({ step }) => step === "services")?.confirmations).toMatchObject([
      { flag: "--replace pinning-api", given: false },
    ]);
  });

  it("replaces that service only, once it is named", async () => {
    const host = upstreamBox();
    await join(host, { adopt: ADOPT });
    const [postgres, , webui] = theirs(host);
    host.http.routes.set("http://127.0.0.1:6100/health", { status: 200, body: { status: "ok" } });
    await join(host, { set, replace: ["pinning-api"] });
    expect(host.docker.boxes.get(NAMES.pinningApi)?.image).toMatch(/^fula-node:/);
    expect(theirs(host)).toMatchObject([postgres, {}, webui]);
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
  });

  it("is refused by name in the adopting run, too", async () => {
    const host = upstreamBox();
    await expect(join(host, { adopt: ADOPT, set })).rejects.toMatchObject({
      exit: "preflight",
      problems: [{ subject: "--replace pinning-api" }],
    });
    expect(host.writes).toEqual([]);
  });

  it("a service that --replace does not know is a wrong command line", async () => {
    await expect(join(upstreamBox(), { replace: ["postgres"] })).rejects.toMatchObject({ exit: "usage" });
  });

  it("is set by --replace alone, and the image of theirs brings that back", async () => {
    const host = upstreamBox();
    await join(host, { adopt: ADOPT });
    host.http.routes.set("http://127.0.0.1:6100/health", { status: 200, body: { status: "ok" } });
    await join(host, { replace: ["pinning-api"] });
    expect(await host.files.readText(LAYOUT.envFile)).toMatch(/^PINNING_API_IMAGE='?fula-node'?$/m);
    expect(host.docker.boxes.get(NAMES.pinningApi)?.image).toMatch(/^fula-node:/);
    await join(host, { set: { PINNING_API_IMAGE: IMAGES.api } });
    const { image, env } = host.docker.boxes.get(NAMES.pinningApi) ?? {};
    expect({ image, env }).toMatchObject({ image: IMAGES.api, env: { PORT: "6100" } });
  });

  it("and another image in one run is a wrong command line", async () => {
    const both = { replace: ["webui"], set: { WEBUI_IMAGE: IMAGES.webui } };
    await expect(join(upstreamBox(), both)).rejects.toMatchObject({ exit: "usage" });
  });
});
