import { describe, expect, it } from "vitest";
import { dialable } from "../../../src/federation/invite.ts";
import { makeIdentityFile } from "../../support/node-identity.ts";

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
