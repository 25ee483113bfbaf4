import * as fc from "fast-check";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { type ComposeMap, SPEC_LABEL, STEP_LABEL, withLabels } from "../../../src/docker/compose-document.ts";
import {
  MASTER_FRAGMENTS,
  namedKeys,
  parseFragment,
  renderMaster,
  requiredKeys,
  supportsStartInterval,
} from "../../../src/docker/compose-render.ts";
import { CONTAINER_USER, NAMES, OWNER_LABEL } from "../../../src/settings/layout.ts";
import { masterOf, servicesOf, sha256, writerOf } from "./compose-fragments.ts";

const ALL = { ...servicesOf(masterOf()), ...servicesOf(writerOf()) };

function labelsOf(thing: unknown): Readonly<Record<string, string>> {
  return (thing as { labels: Record<string, string> }).labels;
}

function healthchecks(rendered: ReturnType<typeof masterOf>): readonly Record<string, unknown>[] {
  return Object.values(servicesOf(rendered)).flatMap(({ healthcheck }) =>
    healthcheck === undefined ? [] : [healthcheck as Record<string, unknown>],
  );
}

describe("renderMaster and renderWriter", () => {
  it("give the containers upstream's names, in upstream's projects", () => {
    expect(masterOf().document.name).toBe(NAMES.masterProject);
    expect(writerOf().document.name).toBe(NAMES.writerProject);
    expect(Object.fromEntries(Object.entries(ALL).map(([name, { container_name: c }]) => [name, c]))).toEqual(
      {
        postgres: NAMES.postgres,
        "pinning-api": NAMES.pinningApi,
        webui: NAMES.webui,
        "fula-gateway": NAMES.gateway,
        updater: NAMES.updater,
        edge: NAMES.edge,
        kubo: NAMES.kubo,
        "ipfs-cluster": NAMES.cluster,
      },
    );
  });

  it("write down what they mean, and nothing else", () => {
    for (const { text, document } of [masterOf(), writerOf()]) expect(parse(text)).toEqual(document);
  });

  it("begin with the marker over the rest of the file", () => {
    const { text } = masterOf();
    const [marker = "", ...rest] = text.split("\n");
    expect(marker).toBe(`# fula-node compose sha256=${sha256(rest.join("\n"))} version=1.2.3`);
  });

  it("mark every service, volume and network as ours, with the step that makes it", () => {
    const things = [masterOf(), writerOf()].flatMap(({ document }) =>
      ["services", "volumes", "networks"].flatMap((section) => Object.values(document[section] ?? {})),
    );
    expect(things.length).toBe(12);
    for (const thing of things) {
      expect(labelsOf(thing)[OWNER_LABEL.key]).toBe(OWNER_LABEL.value);
      expect(labelsOf(thing)[STEP_LABEL]).toMatch(/^(edge|postgres|services|writer)$/);
      expect(labelsOf(thing)[SPEC_LABEL]).toMatch(/^[0-9a-f]{64}$/);
    }
  });

  it("stay the same with another default of a setting, so that a newer default recreates no container by itself", () => {
    const specLabel = (text: string) =>
      labelsOf(withLabels("one", { labels: { [STEP_LABEL]: "writer" }, image: text }, sha256))[SPEC_LABEL];
    const today = specLabel("${KUBO_IMAGE:-ipfs/kubo:v0.42.0}");
    expect(specLabel("${KUBO_IMAGE:-ipfs/kubo:v0.99.0}")).toBe(today);
    // Everything else counts: another key, a requirement, and a default that is not of a setting.
    for (const other of [
      "${CLUSTER_IMAGE:-ipfs/kubo:v0.42.0}",
      "${KUBO_IMAGE:?give one}",
      "ipfs/kubo:v0.42.0",
      "${IPFS_PROFILE:-server}",
    ])
      expect(specLabel(other)).not.toBe(today);
    expect(specLabel("${IPFS_PROFILE:-server}")).not.toBe(specLabel("${IPFS_PROFILE:-lowpower}"));
    // As 0.2.0 made it, so that its containers are left alone.
    expect(today).toBe(
      sha256(`{"image":"\${KUBO_IMAGE:-ipfs/kubo:v0.42.0}","labels":{"${STEP_LABEL}":"writer"}}`),
    );
  });

  it("refuse a fragment that names no step", () => {
    const nameless = parseFragment("services: { postgres: { image: x } }");
    const others = parseFragment("services: { other: { labels: { land.fx.fula-node.step: services } } }");
    const fragments = {
      "pinning-api": others,
      webui: others,
      gateway: others,
      updater: others,
      edge: others,
    };
    expect(() =>
      renderMaster(
        { ...fragments, postgres: nameless },
        { version: "1", hash: sha256, startInterval: true, postgres: { volume: "v", external: false } },
      ),
    ).toThrow("postgres has no label that names its step");
  });
});

describe("TLS to the database", () => {
  const environmentOf = (name: string, options: Parameters<typeof masterOf>[0]) =>
    servicesOf(masterOf(options))[name]?.["environment"] as Record<string, string>;

  it("is passed on as .env has it, for the values of 0.1.0", () => {
    expect(environmentOf("webui", {})["POSTGRES_SSL"]).toBe("${POSTGRES_SSL:-false}");
  });

  it.each(["pinning-api", "webui"])("reaches %s as a mode beside upstream's flag, with the CA", (name) => {
    const databaseTls = { mode: "verify-full", ca: "/etc/ssl/db.pem" };
    expect(environmentOf(name, { databaseTls })).toMatchObject({
      POSTGRES_SSL: "true",
      POSTGRES_SSL_MODE: "verify-full",
      POSTGRES_SSL_CA: "/etc/fula-node/postgres-ca.pem",
    });
    const volumes = servicesOf(masterOf({ databaseTls }))[name]?.["volumes"] as readonly unknown[];
    expect(volumes.at(-1)).toEqual({
      type: "bind",
      source: "/etc/ssl/db.pem",
      target: "/etc/fula-node/postgres-ca.pem",
      read_only: true,
    });
  });

  it("mounts nothing without a CA", () => {
    const { webui, "pinning-api": pinning } = servicesOf(
      masterOf({ databaseTls: { mode: "require", ca: null } }),
    );
    expect(pinning?.["volumes"]).toBeUndefined();
    expect(JSON.stringify(webui)).not.toContain("postgres-ca.pem");
    expect(webui?.["environment"]).not.toHaveProperty("POSTGRES_SSL_CA");
  });
});

it("the storage API sees the records of cron's operations, read-only, and nothing else of the base directory", () => {
  expect(servicesOf(masterOf({}))["webui"]?.["volumes"]).toEqual([
    {
      type: "bind",
      source: "./heartbeats",
      target: "/heartbeats",
      read_only: true,
      bind: { create_host_path: true },
    },
  ]);
});

describe("what a container may do", () => {
  it.each(Object.entries(ALL))("%s gains no privileges and drops what it does not need", (name, service) => {
    // The file of Caddy has the right to the ports below 1024; the user of the container has none.
    if (name !== "edge") expect(service["security_opt"]).toEqual(["no-new-privileges:true"]);
    expect(service["cap_drop"]).toEqual(["ALL"]);
    expect(service["privileged"]).toBeUndefined();
    expect(service["restart"]).toBe("unless-stopped");
    expect(service["logging"]).toMatchObject({ driver: "json-file", options: { "max-size": "10m" } });
  });

  it("has a read-only root wherever the image is known to live with it", () => {
    const writable = Object.keys(ALL).filter((name) => ALL[name]?.["read_only"] !== true);
    expect(writable).toEqual(["fula-gateway"]);
  });

  it("gets back only the capabilities that its entrypoint uses", () => {
    const added = Object.entries(ALL).flatMap(([name, { cap_add: caps }]) => (caps ? [[name, caps]] : []));
    expect(added).toEqual([
      ["postgres", ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]],
      ["edge", ["NET_BIND_SERVICE"]],
    ]);
  });

  it("runs as the user that only fula-node's containers have; Postgres and images of others as their own", async () => {
    const { uid, gid } = CONTAINER_USER;
    const users = Object.entries(ALL).map(([name, { user }]) => [name, user ?? null] as const);
    const own = users.filter(([, user]) => user !== null);
    expect(users.filter(([, user]) => user === null).map(([name]) => name)).toEqual([
      "postgres",
      "fula-gateway",
      "updater",
    ]);
    for (const [name, user] of own) expect([name, user]).toEqual([name, `${uid}:${gid}`]);
    expect(await readFile("compose/Dockerfile", "utf8")).toContain(`\nUSER ${uid}:${gid}\n`);
  });

  it("never waits for another service", () => {
    for (const service of Object.values(ALL)) expect(service["depends_on"]).toBeUndefined();
  });
});

describe("what is reachable from outside", () => {
  it("is ipfs-cluster's swarm over both families", () => {
    const { environment } = ALL["ipfs-cluster"] as { environment: Record<string, string> };
    expect(environment["CLUSTER_LISTENMULTIADDRESS"]?.split(",")).toEqual([
      "/ip4/0.0.0.0/tcp/9096",
      "/ip6/::/tcp/9096",
    ]);
  });

  it("is no database: its port is published on loopback alone", () => {
    const published = Object.values(ALL).flatMap(({ ports }) => (ports as string[] | undefined) ?? []);
    expect(published).toEqual(["127.0.0.1:${POSTGRES_PORT:-5432}:5432"]);
  });

  it("is no API: everything else binds loopback", () => {
    const env = (name: string): ComposeMap => ALL[name]?.["environment"] as ComposeMap;
    expect(env("pinning-api")["BIND_HOST"]).toBe("127.0.0.1");
    expect(env("webui")["BIND_HOST"]).toBe("127.0.0.1");
    expect(env("fula-gateway")["FULA_HOST"]).toBe("${FULA_HOST:-127.0.0.1}");
    expect(env("ipfs-cluster")["CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS"]).toBe("/ip4/127.0.0.1/tcp/9094");
  });

  it("is no way to rewrite the pinset", () => {
    const cluster = ALL["ipfs-cluster"] as ComposeMap;
    const env = cluster["environment"] as ComposeMap;
    expect(env["CLUSTER_CRDT_TRUSTEDPEERS"]).toBe("${MASTER_CLUSTER_PEERIDS:-}");
    expect(env["CLUSTER_LEAVEONSHUTDOWN"]).toBeUndefined();
    expect(cluster["command"]).toEqual(["closed-daemon"]);
  });
});

describe("the updater", () => {
  const labels = (name: string) => labelsOf(ALL[name])["com.centurylinklabs.watchtower.enable"];

  it("is allowed the services, and denied the data's keepers", () => {
    expect(["pinning-api", "webui", "fula-gateway"].map(labels)).toEqual(["true", "true", "true"]);
    expect(["postgres", "kubo", "ipfs-cluster", "updater", "edge"].map(labels)).toEqual(
      Array(5).fill("false"),
    );
    expect(ALL["updater"]?.["command"]).toEqual(expect.arrayContaining(["--label-enable", "--scope"]));
  });

  it("runs only under its profile, as the gateway does under its own", () => {
    const profiles = Object.entries(ALL).flatMap(([name, { profiles: p }]) => (p ? [[name, p]] : []));
    expect(profiles).toEqual([
      ["fula-gateway", ["gateway"]],
      ["updater", ["updater"]],
      ["edge", ["edge"]],
    ]);
  });
});

describe("the database's volume", () => {
  it("has the name it is given, and labels that no version changes", () => {
    const volume = (version: string) =>
      masterOf({ version, postgres: { volume: "kept", external: false } }).document["volumes"] as ComposeMap;
    expect(volume("1.0.0")["pgdata"]).toMatchObject({ name: "kept" });
    expect(volume("2.0.0")).toEqual(volume("1.0.0"));
  });

  it("is left entirely alone if it was there before us", () => {
    const { document } = masterOf({ postgres: { volume: "theirs", external: true } });
    expect((document["volumes"] as ComposeMap)["pgdata"]).toEqual({ external: true, name: "theirs" });
  });

  it("is not made if the database is elsewhere, nor is Postgres", () => {
    const elsewhere = masterOf({ postgres: null });
    expect(Object.keys(servicesOf(elsewhere))).toEqual([
      "pinning-api",
      "webui",
      "fula-gateway",
      "updater",
      "edge",
    ]);
    expect(Object.keys(elsewhere.document["volumes"] as ComposeMap)).toEqual([
      "fula-gateway-state",
      "edge-data",
    ]);
    expect(elsewhere.document["networks"]).toBeUndefined();
  });
});

describe("healthchecks", () => {
  it("ask often while starting, if the engine can", () => {
    for (const check of healthchecks(masterOf())) expect(check).toHaveProperty("start_interval");
    expect(supportsStartInterval("1.44")).toBe(true);
    expect(supportsStartInterval(null)).toBe(true);
  });

  it("do without start_interval if the engine would refuse the container", () => {
    expect(supportsStartInterval("1.43")).toBe(false);
    const old = [masterOf({ startInterval: false }), writerOf({ startInterval: false })];
    for (const check of old.flatMap(healthchecks)) {
      expect(check).not.toHaveProperty("start_interval");
      expect(check["interval"]).toBe("5s");
    }
  });

  it("are given for every service that is ours or that keeps data", () => {
    const without = Object.keys(ALL).filter((name) => ALL[name]?.["healthcheck"] === undefined);
    expect(without).toEqual(["updater"]);
  });
});

describe("the spec label", () => {
  const specs = (rendered: ReturnType<typeof masterOf>) =>
    Object.entries(servicesOf(rendered)).map(([name, service]) => [name, labelsOf(service)[SPEC_LABEL]]);

  it("changes with a script, for that service alone", () => {
    const changed = writerOf({ scripts: { kubo: "#!/bin/sh\n", "ipfs-cluster": "same" } });
    const before = writerOf({ scripts: { kubo: "#!/bin/bash\n", "ipfs-cluster": "same" } });
    expect(specs(changed)[0]).not.toEqual(specs(before)[0]);
    expect(specs(changed)[1]).toEqual(specs(before)[1]);
  });

  it("does not change with the version of fula-node", () => {
    expect(specs(masterOf({ version: "9.9.9" }))).toEqual(specs(masterOf()));
  });
});

describe("requiredKeys", () => {
  it("lists the variables that a bare docker compose up needs", () => {
    expect(requiredKeys(masterOf().document)).toEqual([
      "ENCRYPTION_KEY",
      "FULA_NODE_VERSION",
      "JWT_SECRET",
      "POSTGRES_PASSWORD",
      "SESSION_SECRET",
      "SYSTEM_KEY",
    ]);
    expect(requiredKeys(writerOf().document)).toEqual(["CLUSTER_SECRET"]);
  });

  it("sees through nesting, and not what is escaped", () => {
    const document = {
      name: "p",
      services: { a: { x: ["${A:-${B:?say}}", "$${C:?no}", "$$${D?yes}", { y: "${E:-e}" }] } },
    };
    expect(requiredKeys(document)).toEqual(["B", "D"]);
  });
});

describe("any text in a fragment", () => {
  it("survives the way into the file and back", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[A-Z_]{1,12}$/), fc.string()), (environment) => {
        const fragment = { services: { s: { environment, labels: { [STEP_LABEL]: "services" } } } };
        const fragments = Object.fromEntries(
          MASTER_FRAGMENTS.map((name) => [name, fragment]),
        ) as never as Parameters<typeof renderMaster>[0];
        const { text, document } = renderMaster(fragments, {
          version: "1",
          hash: sha256,
          startInterval: true,
          postgres: null,
        });
        expect(parse(text)).toEqual(document);
        expect(parse(text, { version: "1.1" })).toEqual(document);
      }),
    );
  });
});

describe("namedKeys", () => {
  it("gives every variable of a document once, whatever its form, and no literal dollar", () => {
    const services = {
      a: {
        image: "x:${A:?with ${B:-b}}",
        command: ["$C", "$$D", "$${E}", "${F-}${A}"],
        environment: { G: null, H: "1", I: "${J:+x}" },
        labels: { K: null },
      },
      b: { environment: { G: null } },
    };
    expect(namedKeys({ name: "test", services })).toEqual(["A", "B", "C", "F", "G", "J"]);
  });

  it("gives what is handed on to the gateway, and what upstream's web service reads", () => {
    const named = namedKeys(masterOf().document);
    expect(named).toEqual(expect.arrayContaining(["FULA_PIN_SERVICE_SECRET", "ADMIN_JWT_SECRET"]));
    expect(named).toEqual(expect.arrayContaining([...requiredKeys(masterOf().document)]));
    expect(named).not.toContain("NODE_ENV");
  });
});
