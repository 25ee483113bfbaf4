import { makeIdentityFile } from "../../support/node-identity.ts";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  dialable,
  isInSubnets,
  isIp6,
  multiaddrToUrl,
  parseTcpMultiaddr,
} from "../../../src/settings/address.ts";

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

const ID = makeIdentityFile().peerId;
const BRIDGES = ["10.210.0.0/24", "172.18.0.0/16", "fd00:d0c::/64"];
const at = (host: string) => `/${host}/tcp/9096/p2p/${ID}`;

describe("dialable", () => {
  it("leaves out what leads to nobody, or to this machine alone", () => {
    const useless = [
      at("ip4/127.0.0.1"),
      at("ip4/127.8.9.10"),
      at("ip6/::1"),
      at("ip4/169.254.7.7"),
      at("ip6/fe80::42"),
      at("ip4/0.0.0.0"),
      at("ip6/::"),
      "/ip4/198.51.100.7/tcp/9096",
      `/ip4/198.51.100.7/udp/9096/quic-v1/p2p/${ID}`,
      `${at("ip4/198.51.100.7")}/p2p-circuit/p2p/${ID}`,
      "hello",
    ];
    expect(dialable(useless, BRIDGES)).toEqual({ addresses: [], isDoubtful: false });
  });

  it("leaves out container bridges of this machine, and no other private network", () => {
    const kept = [
      at("ip4/172.20.0.3"),
      at("ip4/10.210.1.1"),
      at("ip4/192.168.1.5"),
      at("ip6/fd00::1"),
      at("dns4/a.example"),
    ];
    const bridges = [at("ip4/10.210.0.1"), at("ip4/172.18.0.1"), at("ip6/fd00:d0c::1")];
    expect(dialable([...bridges, ...kept], BRIDGES)).toEqual({ addresses: kept, isDoubtful: false });
  });

  it("keeps them where nothing else is left, and says so", () => {
    const bridge = at("ip4/10.210.0.1");
    const addresses = [at("ip4/127.0.0.1"), bridge];
    expect(dialable(addresses, BRIDGES)).toEqual({ addresses: [bridge], isDoubtful: true });
  });
});
