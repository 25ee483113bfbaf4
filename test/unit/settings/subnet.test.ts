import { expect, it } from "vitest";
import { isInSubnets } from "../../../src/settings/subnet.ts";

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
])("%s in %s: %s", (address, subnet, isIn) => {
  expect(isInSubnets(address, [subnet])).toBe(isIn);
  expect(isInSubnets(address, ["198.51.100.0/24", subnet])).toBe(isIn);
});

it("nothing is in no network", () => {
  expect(isInSubnets("172.17.0.1", [])).toBe(false);
});
