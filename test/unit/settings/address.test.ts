import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isInSubnets, isIp6, multiaddrToUrl, parseTcpMultiaddr } from "../../../src/settings/address.ts";

const PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

describe("multiaddrToUrl", () => {
  it.each([
    ["/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"],
    ["/ip6/::1/tcp/9094", "http://[::1]:9094"],
    ["/dns4/kubo.example/tcp/80/http", "http://kubo.example:80"],
    ["/dns/kubo.example/tcp/443/https", "https://kubo.example:443"],
    ["/dns4/kubo.example/tcp/443/tls/http", "https://kubo.example:443"],
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
    "/ip4/1.2.3.4/tcp/1/tls",
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

describe("isInSubnets", () => {
  it.each<[string, string, boolean]>([
    ["172.17.0.1", "172.17.0.0/16", true],
    ["172.18.0.1", "172.17.0.0/16", false],
    ["10.210.0.1", "10.210.0.0/24", true],
    ["10.210.1.1", "10.210.0.0/24", false],
    ["192.168.10.9", "192.168.8.0/21", true],
    ["192.168.16.9", "192.168.8.0/21", false],
    ["10.0.0.7", "10.0.0.7/32", true],
    ["203.0.113.5", "0.0.0.0/0", true],
    ["fd00:0:0:1::7", "fd00:0:0:1::/64", true],
    ["fd00:0:0:2::7", "fd00:0:0:1::/64", false],
    ["fe80::1", "fe80::/10", true],
    ["FEBF::1", "fe80::/10", true],
    ["fec0::1", "fe80::/10", false],
    ["::1", "::1/128", true],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:0/112", true],
    ["::ac11:1", "172.17.0.0/16", false],
    ["172.17.0.1", "::/0", false],
    ["172.17.0.1", "172.17.0.0", false],
    ["172.17.0.1", "", false],
    ["host.example", "0.0.0.0/0", false],
    ["172.17.0.1", "172.17.0.0/33", false],
    ["fd00::1", "fd00::/129", false],
    ["172.17.0.1", "172.17.0.0/-1", false],
    ["172.17.0.1", "host.example/8", false],
  ])("%s in %s: %s", (address, subnet, isIn) => {
    expect(isInSubnets(address, [subnet])).toBe(isIn);
    expect(isInSubnets(address, ["198.51.100.0/24", subnet])).toBe(isIn);
  });

  it("nothing is in no network", () => {
    expect(isInSubnets("172.17.0.1", [])).toBe(false);
  });
});
