import { describe, expect, it } from "vitest";
import { findOldCaddy } from "../../../src/edge/certificate.ts";
import { describeIdle, findEdgeConflicts } from "../../../src/settings/edge.ts";
import type { Setting, Settings } from "../../../src/settings/settings.ts";
import { FakeHost } from "../../support/fake-host.ts";

const settingsOf = (values: Readonly<Record<string, readonly [string, Setting["origin"]]>>): Settings =>
  new Map(Object.entries(values).map(([key, [value, origin]]) => [key, { value, origin }]));

const withImage = (image: string) =>
  settingsOf({ PUBLIC_HOST: ["m.example.org", "flag"], EDGE_IMAGE: [image, "flag"] });

describe("an image of Caddy that is too old for the Caddyfile", () => {
  it.each(["caddy:2.10.2-alpine", "caddy:2.11.4", "caddy:2.9", "caddy:1", "reg.example:5000/caddy:v2.8.4"])(
    "%s is refused by its tag",
    async (image) => {
      const [problem] = await findOldCaddy(new FakeHost(), withImage(image));
      expect(problem).toMatchObject({
        subject: "EDGE_IMAGE",
        what: expect.stringMatching(/too old, the edge needs 2\.11\.5 or newer\.$/) as string,
      });
    },
  );

  it.each([
    "caddy",
    "caddy:latest",
    "caddy:2",
    "caddy:2-alpine",
    "caddy:2.11",
    "caddy:2.11.5",
    "caddy:2.12.0",
    "caddy:3.0.0",
    "reg.example:5000/caddy",
    "own/proxy:1.0.0",
    `caddy@sha256:${"a".repeat(64)}`,
  ])("%s is not", async (image) => {
    expect(await findOldCaddy(new FakeHost(), withImage(image))).toEqual([]);
  });

  it("believes the label of an image that is here more than its tag", async () => {
    const host = new FakeHost();
    const labels = (version: string, title = "Caddy") => ({
      "org.opencontainers.image.title": title,
      "org.opencontainers.image.version": version,
    });
    host.docker.putImage("caddy:latest", labels("v2.10.0"));
    host.docker.putImage("caddy:2.9.0", labels("v2.11.9"));
    host.docker.putImage("own:1", labels("v1.0.0", "our proxy"));
    expect(await findOldCaddy(host, withImage("caddy:2.9.0"))).toEqual([]);
    expect(await findOldCaddy(host, withImage("caddy:latest"))).toHaveLength(1);
    expect(await findOldCaddy(host, withImage("own:1"))).toEqual([]);
    expect(await findOldCaddy(host, settingsOf({ EDGE_IMAGE: ["caddy:1.0.0", "flag"] }))).toEqual([]);
  });
});

describe("settings of another kind of EDGE_TLS", () => {
  const files = (origin: Setting["origin"], tls: Setting["origin"] = "flag") =>
    settingsOf({
      PUBLIC_HOST: ["m.example", "saved"],
      EDGE_TLS: ["internal", tls],
      EDGE_CERT: ["/c.pem", origin],
      EDGE_KEY: ["/k.pem", origin],
    });

  it("that are saved are kept, and one line says so", () => {
    expect(findEdgeConflicts(files("saved"))).toEqual([]);
    expect(describeIdle(files("saved"))).toBe(
      "EDGE_CERT and EDGE_KEY stay in .env, but are not used: EDGE_TLS is internal.",
    );
  });

  it("are not spoken of again by the next runs, or without PUBLIC_HOST", () => {
    expect(describeIdle(files("saved", "saved"))).toBeNull();
    expect(
      describeIdle(settingsOf({ EDGE_TLS: ["acme", "default"], EDGE_CERT: ["/c.pem", "saved"] })),
    ).toBeNull();
  });

  it("that this run sets are refused", () => {
    expect(findEdgeConflicts(files("flag")).map(({ subject }) => subject)).toEqual(["EDGE_CERT", "EDGE_KEY"]);
    expect(describeIdle(files("flag"))).toBeNull();
  });
});
