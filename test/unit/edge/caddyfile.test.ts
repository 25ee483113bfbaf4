import { describe, expect, it } from "vitest";
import { isOurCaddyfile, renderCaddyfile } from "../../../src/edge/caddyfile.ts";
import { EDGE_SETTINGS, type EdgeTls } from "../../../src/settings/edge.ts";
import { sha256 } from "../../support/fake-master.ts";

const ACME: EdgeTls = { kind: "acme", directory: "https://ca.example/dir", email: null, root: null };

function render(tls: EdgeTls, fingerprints: readonly string[] = [], hasStatusPage = true): string {
  const ports = { pinningPort: "6001", storagePort: "3001" };
  const plan = { host: "m.example.org", tls, ...ports, hasStatusPage, fingerprints };
  return renderCaddyfile(plan, sha256);
}

/** The expression behind a matcher, as JavaScript has it. */
function matcher(name: string): RegExp {
  const line = render(ACME)
    .split("\n")
    .find((one) => one.trim().startsWith(`@${name} vars_regexp`));
  const [, flags = "", source = ""] = /\{http\.request\.uri\} (\(\?i\))?(\S+)$/.exec(line ?? "") ?? [];
  return new RegExp(source, flags === "" ? "" : "i");
}

describe("the Caddyfile", () => {
  it("has our mark, with a hash that changes with what is read", () => {
    expect(isOurCaddyfile(render(ACME))).toBe(true);
    expect(render(ACME, ["one"]).split("\n")[0]).not.toBe(render(ACME, ["two"]).split("\n")[0]);
  });

  it.each(["*_*", "X-Fula-*", "X-System-*", "X-Forwarded-*", "X-Real-Ip", "Forwarded"])(
    "removes %s",
    (name) => {
      expect(render(ACME)).toContain(`\trequest_header -${name}\n`);
    },
  );

  it("has the status page only if the storage API is ours", () => {
    expect(render(ACME)).toContain("reverse_proxy @status 127.0.0.1:3001 {\n");
    expect(render(ACME, [], false)).not.toContain("reverse_proxy @status");
    for (const uri of ["/status", "/status?x", "/status/sign-out"])
      expect([uri, matcher("status").test(uri)]).toEqual([uri, true]);
    for (const uri of ["/", "/sign-out", "/status/", "/status/x", "/STATUS", "//status", "/status/sign-out/"])
      expect([uri, matcher("status").test(uri)]).toEqual([uri, false]);
  });

  it("says where the certificate comes from", () => {
    expect(render(ACME)).toContain("\ttls {\n\t\tca https://ca.example/dir\n\t}\n");
    expect(render({ ...ACME, email: "a@b.example", root: "/root/ca.pem" })).toContain(
      "\ttls a@b.example {\n\t\tca https://ca.example/dir\n\t\tca_root /etc/caddy/acme-root.pem\n\t}\n",
    );
    expect(render({ kind: "internal" })).toContain("\ttls internal\n");
    expect(render({ kind: "files", certificate: "/a", key: "/b" })).toContain(
      "\ttls /etc/caddy/cert.pem /etc/caddy/key.pem\n",
    );
  });

  it("bounds every body but that of a CAR file, which may not stand still", () => {
    const text = render(ACME);
    expect(text).toContain("request_body @others {\n\t\tmax_size 1MB\n");
    expect(text).toContain("\t\t\tread_body 1h\n");
    expect(text).toContain("timeouts @others {\n\t\tread_timeout 60s 100000\n");
    expect(text).toContain("timeouts @car {\n\t\tread_timeout 60s\n");
    expect(matcher("car").test("/pins/import/car")).toBe(true);
    for (const uri of [
      "/pins",
      "/pins/import/car/",
      "/pins/import/car?x",
      "/x/pins/import/car",
      "/pins/import/carx",
    ])
      expect([uri, matcher("car").test(uri)]).toEqual([uri, false]);
    const exempt = `not vars_regexp {http.request.uri} ${matcher("car").source.replaceAll("\\/", "/")}`;
    expect(text).toContain(`\t@others ${exempt}\n`);
    expect(text).toContain(`Content-Length ^0*[1-9][0-9]{6,}$\n\t\t${exempt}\n`);
  });

  it.each(["/pins", "/pins?limit=1&name=a%2Fb", "/pins/abc-DEF_1", "/pins/"])("serves %s as pins", (uri) => {
    expect(matcher("pins").test(uri)).toBe(true);
  });

  it.each(["/api/v1/pool", "/api/v1/nodes/a.b-c", "/api/v1/storage?x=/admin"])("serves %s", (uri) => {
    expect(matcher("api").test(uri)).toBe(true);
    expect(matcher("admin").test(uri)).toBe(false);
  });

  it.each([
    "/",
    "/admin",
    "/ADMIN",
    "//admin",
    "/%61dmin",
    "/metrics",
    "/health",
    "/PINS",
    "//pins",
    "/%70ins",

    "/pins/..%2fadmin",
    "/pins/../admin",
    "/pins/%2e%2e/admin",
    "/pins%2f..%2fadmin",
    "/pins;x",
    "/pins%00",

    "/api/v1",
    "/api/v1/",
    "/api/v1/../../admin",
    "/api/v1/./pool",
    "/api/v1//pool",
    "/api/v1/a%2fb",
    "/pinsx",
    "/admin/../pins",
    "/x/pins",
    "/pins/a\\..\\b",
    "/api/v1/a/..",
  ])("does not serve %s", (uri) => {
    expect([matcher("pins").test(uri), matcher("api").test(uri)]).toEqual([false, false]);
  });

  it.each(["/pins/admin", "/api/v1/admin", "/api/v1/ADMIN/users", "/api/v1/metrics?x"])(
    "refuses %s",
    (uri) => {
      expect(matcher("admin").test(uri)).toBe(true);
    },
  );
});

describe("the settings in it", () => {
  const holds = (key: string, value: string) =>
    EDGE_SETTINGS.find((spec) => spec.key === key)?.rule.holds(value) === true;

  it.each([
    ["PUBLIC_HOST", "m.example.org"],
    ["EDGE_ACME_CA", "https://ca.example:14000/dir"],
    ["EDGE_ACME_CA", "https://[::1]:14000/acme/dir"],
    ["EDGE_ACME_EMAIL", "ops+ca@example.org"],
  ])("%s may be %s", (key, value) => expect(holds(key, value)).toBe(true));

  it.each([
    ...["", "M.example", "a b", "a{b}", "1.2.3.4", "a\nb", "https://m.example", "m.example:443"].map(
      (value) => ["PUBLIC_HOST", value] as const,
    ),
    ...[
      "http://ca.example/dir",
      "https://u:p@ca.example/",
      "https://ca/{env.X}",
      "https://ca/a b",
      "https://ca?x",
    ].map((value) => ["EDGE_ACME_CA", value] as const),
    ...["a", "a@b c", "a@b {", "a@b,c@d"].map((value) => ["EDGE_ACME_EMAIL", value] as const),
    ...["yes", "ACME", ""].map((value) => ["EDGE_TLS", value] as const),
  ])("%s may not be %j: it would change the Caddyfile", (key, value) => {
    expect(holds(key, value)).toBe(false);
  });
});
