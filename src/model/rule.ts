/** What a value must be: said to the operator, and decided, in one place. */
export interface Rule {
  /** Ends the sentence "it must be ...". */
  readonly say: string;
  holds(value: string): boolean;
}

const BASE58 = "[1-9A-HJ-NP-Za-km-z]";
const PEER_ID = new RegExp(`^(12D3KooW${BASE58}{44}|Qm${BASE58}{44})$`);
const MULTIADDR =
  /^\/(?:ip4\/(?<ip4>[0-9.]+)|ip6\/[0-9a-fA-F:]+|dns[46]?\/[A-Za-z0-9._-]+)\/tcp\/(?<port>[0-9]+)(?:\/p2p\/(?<peer>[^/]+))?$/;

function pattern(say: string, expression: RegExp): Rule {
  return { say, holds: (value) => expression.test(value) };
}

function isPort(value: string): boolean {
  return /^[1-9][0-9]{0,4}$/.test(value) && Number(value) <= 65_535;
}

function isIp4(value: string): boolean {
  const parts = value.split(".");
  return (
    parts.length === 4 && parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)
  );
}

function isMultiaddr(value: string): boolean {
  const groups = MULTIADDR.exec(value)?.groups;
  if (groups === undefined || !isPort(groups["port"] ?? "")) return false;
  if (groups["ip4"] !== undefined && !isIp4(groups["ip4"])) return false;
  return groups["peer"] === undefined || PEER_ID.test(groups["peer"]);
}

function listOf(each: (value: string) => boolean): (value: string) => boolean {
  return (value) => value.split(",").every(each);
}

/** The rules that settings use. */
export const RULES = {
  any: { say: "any text", holds: () => true },
  port: { say: "a TCP port from 1 to 65535", holds: isPort },
  host: pattern("a host name or an IP address", /^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$/),
  flag: pattern("true or false", /^(true|false)$/),
  count: pattern("a whole number from 1 to 999999999", /^[1-9][0-9]{0,8}$/),
  amount: pattern("a number that is not negative", /^[0-9]{1,15}(\.[0-9]{1,8})?$/),
  percent: {
    say: "a whole number from 1 to 100",
    holds: (value) => /^[1-9][0-9]{0,2}$/.test(value) && Number(value) <= 100,
  },
  factor: pattern("-1 (everywhere) or a whole number from 1 to 999", /^(-1|[1-9][0-9]{0,2})$/),
  name: pattern(
    "1 to 64 characters of letters, digits, dot, dash and underscore, beginning with a letter or digit",
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
  ),
  identifier: pattern(
    "a plain Postgres name: a letter or _, then up to 62 letters, digits or _",
    /^[A-Za-z_][A-Za-z0-9_]{0,62}$/,
  ),
  path: pattern("an absolute path without spaces or special characters", /^\/[A-Za-z0-9._/-]+$/),
  image: pattern(
    "an image reference such as postgres:16-alpine",
    /^[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]{64})?$/,
  ),
  url: pattern("an http:// or https:// address", /^https?:\/\/[^\s]+$/),
  multiaddr: { say: "a multiaddr such as /ip4/10.0.0.7/tcp/9096/p2p/12D3KooW...", holds: isMultiaddr },
  peerMultiaddr: {
    say: "a multiaddr with its peer, such as /ip4/10.0.0.7/tcp/9096/p2p/12D3KooW...",
    holds: (value) => isMultiaddr(value) && value.includes("/p2p/"),
  },
  peerIds: {
    say: "peer ids (12D3KooW... or Qm...), separated by commas without spaces",
    holds: listOf((id) => PEER_ID.test(id)),
  },
  hex64: pattern("64 hexadecimal digits", /^[0-9a-fA-F]{64}$/),
  secret: pattern("at least 8 characters", /^.{8,}$/),
  signingSecret: pattern("at least 16 characters", /^.{16,}$/),
  systemKey: {
    say: "at least 12 characters, and not the word `disabled` (the pinning API would then let that word in)",
    holds: (value) => value.length >= 12 && value.toLowerCase() !== "disabled",
  },
  credentials: pattern("user:password, where neither holds a colon or a comma", /^[^:,]+:[^:,]+$/),
} as const satisfies Record<string, Rule>;
