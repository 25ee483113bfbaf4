import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isIp6, parseTcpMultiaddr } from "../../../src/settings/address.ts";
import { multiaddrToUrl } from "../../../src/settings/multiaddr.ts";

const PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

describe("multiaddrToUrl", () => {
  it.each([
    ["/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"],
    ["/ip6/::1/tcp/9094", "http://[::1]:9094"],
    ["/dns4/kubo.example/tcp/80/http", "http://kubo.example:80"],
    ["/dns/kubo.example/tcp/443/https", "https://kubo.example:443"],
    [`/ip4/10.0.0.7/tcp/9094/p2p/${PEER}`, "http://10.0.0.7:9094"],
  ])("%s is %s", (multiaddr, url) => {
    expect(multiaddrToUrl(multiaddr)).toBe(url);
    expect(URL.canParse(url)).toBe(true);
  });

  it.each([
    "",
    "/",
    "http://x",
    "/ip4/1.2.3.4/udp/1",
    "/ip4/1.2.3.4/tcp/99999",
    "/ip4/host/tcp/1",
    "/ip4/1.2.3.4/tcp/1/p2p/x",
    "/ip6/[::1]/tcp/1",
    "/dns/a b/tcp/1",
    "/dns/a@b/tcp/1",
  ])("%j is none", (multiaddr) => expect(multiaddrToUrl(multiaddr)).toBeNull());
});

describe("parseTcpMultiaddr", () => {
  it("takes apart what is put together", () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.integer({ min: 1, max: 65_535 }), fc.boolean(), (host, port, hasPeer) => {
        const text = `/ip4/${host}/tcp/${port}${hasPeer ? `/p2p/${PEER}` : ""}`;
        expect(parseTcpMultiaddr(text)).toEqual({
          kind: "ip4",
          host,
          port,
          scheme: null,
          peer: hasPeer ? PEER : null,
        });
      }),
    );
  });
});

describe("isIp6", () => {
  it("wants :: to stand for one group at least", () => {
    expect(isIp6("1:2:3::5:6:7:8")).toBe(true);
    expect(isIp6("1:2:3:4::5:6:7:8")).toBe(false);
  });

  it("agrees with URL on every address without an IPv4 tail", () => {
    const address = fc.oneof(
      fc.ipV6().filter((text) => !text.includes(".")),
      fc
        .array(fc.constantFrom(":", "::", "1", "ffff", "12345", "g", "0"), { maxLength: 17 })
        .map((parts) => parts.join("")),
    );
    fc.assert(
      fc.property(address, (text) => {
        expect(isIp6(text)).toBe(URL.canParse(`http://[${text}]/`));
      }),
      { numRuns: 3000 },
    );
  });
});
