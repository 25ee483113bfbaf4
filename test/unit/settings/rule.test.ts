import { describe, expect, it } from "vitest";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import { RULES } from "../../../src/settings/rules.ts";
import { STORAGE_SETTINGS } from "../../../src/settings/storage.ts";

const PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const OLD_PEER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
const DIGEST = `sha256:${"0a".repeat(32)}`;

const EXAMPLES: Readonly<
  Record<keyof typeof RULES, { readonly good: readonly string[]; readonly bad: readonly string[] }>
> = {
  any: { good: ["x", " ", "\u{1F511}"], bad: [""] },
  port: {
    good: ["1", "80", "65535"],
    bad: ["0", "65536", "080", "8 0", "-1", "1e3", "0x50", "80 ", "\u0661", "99999999999"],
  },
  program: { good: ["/usr/local/sbin/on-alarm"], bad: ["", "on-alarm", "/a b", "/../x", "/x/"] },
  bindAddress: {
    good: ["::", "0.0.0.0", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7", "localhost"],
    bad: ["", "nonsense", "db.example.com", "1.2.3", "256.1.1.1", "[::]", "fe80::1%eth0", ":: "],
  },
  host: {
    good: [
      "127.0.0.1",
      "::1",
      "::",
      "2001:db8::7",
      "fe80:0:0:0:0:0:0:1",
      "localhost",
      "db.example.com",
      "my_db",
      "3com.net",
    ],
    bad: [
      "",
      "-x",
      "x-",
      "a..b",
      "a.",
      "a b",
      "1.2.3",
      "1.2.3.4.5",
      "256.1.1.1",
      "01.2.3.4",
      "::1::",
      ":::",
      "1:2:3:4:5:6:7:8:9",
      "12345::",
      "ho\u0455t",
      "a/b",
      "a:80",
      "x".repeat(64),
    ],
  },
  sslMode: {
    good: ["disable", "require", "verify-full", "true", "false"],
    bad: ["", "prefer", "allow", "verify-ca", "REQUIRE", "yes"],
  },
  masterId: {
    good: ["0a".repeat(16)],
    bad: ["0A".repeat(16), "0a".repeat(15), "0a".repeat(17), "zz".repeat(16)],
  },
  flag: { good: ["true", "false"], bad: ["TRUE", "yes", "1", "0", "true "] },
  days: { good: ["0", "1", "30", "3599", "3650"], bad: ["", "-1", "01", "3651", "4000", "1.5", "36500"] },
  count: { good: ["1", "999999999"], bad: ["0", "-1", "01", "1.5", "1000000000", "1,000"] },
  bytes: {
    good: ["0", "1", "1073741824", "9007199254740991"],
    bad: ["", "-1", "01", "1.5", "9007199254740992", "99999999999999999", "1GB"],
  },
  interval: {
    good: ["1000", "3600000", "86400000"],
    bad: ["0", "999", "86400001", "100000000", "1e6", "-1000"],
  },
  certificates: {
    good: [`MI${"A".repeat(200)}==`, `MI${"A".repeat(200)},MI${"B".repeat(300)}=`],
    bad: ["", "MIIB", `MI${"A".repeat(200)},`, `XX${"A".repeat(200)}`, `MI${"A".repeat(200)}$x`],
  },
  amount: {
    good: ["0", "3", "0.25", "10.12345678"],
    bad: ["-1", ".5", "1.", "1e3", "1,5", "0.123456789", "NaN", "Infinity"],
  },
  blockBytes: { good: ["1", "67108864"], bad: ["0", "-1", "67108865", "4MiB", "01"] },
  concurrency: { good: ["1", "1024"], bad: ["0", "-1", "1025", "1.5"] },
  storageSize: {
    good: ["10GB", "1GiB", "2TB", "9999999MB"],
    bad: ["", "0GB", "10", "10 GB", "10gb", "-1GB", "1.5TB", "10000000MB"],
  },
  percent: { good: ["1", "100"], bad: ["0", "101", "10%", "1.5", "010"] },
  factor: { good: ["-1", "1", "999"], bad: ["0", "-2", "1000", "01", "--1"] },
  name: {
    good: ["a", "Fula.pool-1_x", "x".repeat(64)],
    bad: ["", "x".repeat(65), "-a", ".a", "_a", "a b", "a/b", "f\u0443la", "\uFF46ula", "a\u200Bb", "a\n"],
  },
  nodeName: {
    good: ["a", "box-1", "x".repeat(64)],
    bad: ["", "A", "-a", "a-", "a--b", "a.b", "a_b", "x".repeat(65), "\u0430"],
  },
  identifier: {
    good: ["pinning_service", "_x1", "x".repeat(63)],
    bad: ["1x", "a-b", 'a"b', "x".repeat(64), "a b", "\u0430"],
  },
  path: {
    good: ["/opt/fula-writer", "/a", "/a/.b/..c", "/srv/x_1.d"],
    bad: ["", "/", "opt", "./x", "/a/", "/a//b", "/a/../b", "/..", "/a/.", "/a b", "/a:b", "/a'b", "/$x"],
  },
  image: {
    good: [
      "postgres:16-alpine",
      "ipfs/kubo:v0.42.0",
      "fula-gateway:latest",
      "a",
      "localhost:5000/a/b:1",
      "ghcr.io/x/y__z",
      `x@${DIGEST}`,
      `Registry.example:5000/x:1@${DIGEST}`,
    ],
    bad: [
      "",
      "a:",
      ":1",
      "A:1",
      "a b",
      "a::b",
      "a:b:c",
      "a/",
      "/a",
      "a@sha256:12",
      "a:-1",
      "http://a/b",
      "a..b",
      "-a",
      `a:${"x".repeat(129)}`,
    ],
  },
  url: {
    good: ["https://mainnet.base.org", "http://127.0.0.1:8545/x?y=z#f", "https://user:pass@[::1]:8545/"],
    bad: [
      "",
      "mainnet.base.org",
      "ftp://x",
      "https://",
      "https:///x",
      "http://a b",
      "http://x:99999",
      "https://?x",
      "javascript:alert(1)",
    ],
  },
  apiUrl: {
    good: ["https://cloud.example", "http://127.0.0.1:3001/", "https://cloud.example/api//"],
    bad: [
      "",
      "/ip4/127.0.0.1/tcp/5001",
      "https://user@cloud.example",
      "https://user:hunter2@cloud.example",
      "https://cloud.example/?x=y",
      "https://cloud.example/#x",
      "ftp://cloud.example",
    ],
  },
  apiMultiaddr: {
    good: [
      "/ip4/127.0.0.1/tcp/5001",
      "/ip6/::1/tcp/9094",
      "/dns4/kubo.example/tcp/5001",
      "/dns/x/tcp/443/https",
      "/dns/x/tcp/443/tls/http",
    ],
    bad: [
      "",
      "127.0.0.1:5001",
      "/ip4/127.0.0.1",
      "/ip4/127.0.0.1/tcp/0",
      "/ip4/127.0.0.1/tcp/65536",
      "/ip4/127.0.0.1/tcp/080",
      "/ip4/256.0.0.1/tcp/1",
      "/ip4/1.2.3/tcp/1",
      "/ip6/x/tcp/1",
      "/ip6/127.0.0.1/tcp/1",
      "/dns4//tcp/1",
      "/dns4/-x/tcp/1",
      "/ip4/127.0.0.1/udp/5001",
      "/ip4/127.0.0.1/tcp/5001/",
      "/ip4/127.0.0.1/tcp/5001 ",
      `/ip4/127.0.0.1/tcp/9096/p2p/${PEER}`,
      "/unix/run/x.sock",
    ],
  },
  peerMultiaddr: {
    good: [
      `/ip4/10.0.0.7/tcp/9096/p2p/${PEER}`,
      `/dns4/m1.example/tcp/9096/p2p/${OLD_PEER}`,
      `/ip6/2001:db8::7/tcp/9096/p2p/${PEER}`,
    ],
    bad: [
      "/ip4/10.0.0.7/tcp/9096",
      `/ip4/10.0.0.7/tcp/9096/p2p/`,
      `/ip4/10.0.0.7/tcp/9096/p2p/${PEER}x`,
      `/ip4/10.0.0.7/tcp/9096/ipfs/${PEER}`,
      `/ip4/10.0.0.7/tcp/80/http/p2p/${PEER}`,
      `/p2p/${PEER}`,
      `/ip4/10.0.0.7/tcp/9096/p2p/${PEER}/p2p-circuit`,
    ],
  },
  peerMultiaddrs: {
    good: [`/ip4/10.0.0.7/tcp/9096/p2p/${PEER}`, `/dns4/a/tcp/1/p2p/${PEER},/ip6/::1/tcp/2/p2p/${OLD_PEER}`],
    bad: ["", `/ip4/10.0.0.7/tcp/9096/p2p/${PEER},`, `/dns4/a/tcp/1/p2p/${PEER}, /dns4/b/tcp/1/p2p/${PEER}`],
  },
  peerIds: {
    good: [PEER, OLD_PEER, `${PEER},${OLD_PEER}`],
    bad: [
      "",
      "*",
      `${PEER},`,
      `${PEER}, ${OLD_PEER}`,
      PEER.slice(0, -1),
      `${PEER}A`,
      ...["0", "O", "I", "l"].map((odd) => PEER.slice(0, -1) + odd),
      PEER.toLowerCase(),
      `${PEER}\n`,
    ],
  },
  contract: {
    good: ["0x9e12735d77c72c5C3670636D428f2F3815d8A4cB", `0x${"0".repeat(40)}`],
    bad: [
      "0x",
      "9e12735d77c72c5C3670636D428f2F3815d8A4cB",
      `0x${"0".repeat(39)}`,
      `0x${"g".repeat(40)}`,
      "vault.eth",
    ],
  },
  emails: {
    good: ["a@b.example", "a@b.example, c@d.example"],
    bad: ["a", "@b", "a@", "a@b@c", "a@b,,c@d", "a b@c"],
  },
  quotaMode: { good: ["strict", "open"], bad: ["", "closed", "Strict", "open "] },
  creditGate: { good: ["closed", "open"], bad: ["strict", "", "Closed"] },
  logLevel: { good: ["debug", "info", "warn", "error"], bad: ["", "Info", "trace", "warning"] },
  registration: { good: ["invite", "open"], bad: ["", "Open", "closed"] },
  inviteProof: {
    good: [`${"0a".repeat(16)}.${"-_aZ9x".repeat(14)}Qg`],
    bad: [
      "",
      "0a".repeat(16),
      `${"0A".repeat(16)}.${"a".repeat(86)}`,
      `${"0a".repeat(16)}.${"a".repeat(85)}`,
    ],
  },
  hex64: {
    good: ["0a".repeat(32), "AF".repeat(32)],
    bad: ["0a".repeat(31), "0a".repeat(33), "0g".repeat(32), `0x${"0a".repeat(31)}`],
  },
  secret: { good: ["12345678", "p\u00E4ss w\u00F6rd"], bad: ["", "1234567"] },
  signingSecret: { good: ["x".repeat(16)], bad: ["", "x".repeat(15)] },
  systemKey: {
    good: ["x".repeat(12), "disabled-not"],
    bad: ["", "disabled", "DISABLED", "Disabled", "  disabled  ", "x".repeat(11)],
  },
  credentials: {
    good: ["user:password", "u:p w"],
    bad: ["", "user", "user:", ":password", "a:b:c", "a:b,c"],
  },
};

describe.each(Object.entries(EXAMPLES))("the rule %s", (name, { good, bad }) => {
  const rule = RULES[name as keyof typeof RULES];

  it.each(good)("holds for %j", (value) => expect(rule.holds(value)).toBe(true));
  it.each(bad)("does not hold for %j", (value) => expect(rule.holds(value)).toBe(false));
  it("says what it wants in words that end a sentence", () => {
    expect(`it must be ${rule.requirement}.`).toMatch(/^it must be [^.].*[^ ]\.$/);
  });
  it("is held by some setting, and gives its verdict on a megabyte at once", () => {
    for (const letter of ["a", "1", ".", "a.", "a:", "/a", "1:"]) {
      expect(typeof rule.holds(letter.repeat(1_000_000))).toBe("boolean");
    }
    expect([...MASTER_SETTINGS, ...STORAGE_SETTINGS].some((spec) => spec.rule === rule)).toBe(true);
  });
});
