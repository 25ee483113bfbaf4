import { isNodeName } from "./node-name.ts";
import { isHostName, isIp4, isIp6, isPeerId, isPort, parseTcpMultiaddr } from "./address.ts";

/**
 * What a value must be: said to the operator, and decided, in one place. `.env` on the box and the
 * environment of every container are checked by the same rules.
 */
export interface Rule {
  /** Ends the sentence "it must be ...". */
  readonly say: string;
  holds(value: string): boolean;
}

function pattern(say: string, expression: RegExp): Rule {
  return { say, holds: (value) => expression.test(value) };
}

function listOf(each: (value: string) => boolean): (value: string) => boolean {
  return (value) => value.split(",").every(each);
}

function wholeUpTo(most: number): Rule {
  return {
    say: `a whole number from 1 to ${most}`,
    holds: (value) => /^[1-9][0-9]{0,8}$/.test(value) && Number(value) <= most,
  };
}

function isHttpUrl(value: string): boolean {
  return /^https?:\/\/[^\s/?#]\S*$/.test(value) && URL.canParse(value);
}

function isPlainUrl(value: string): boolean {
  if (!isHttpUrl(value)) return false;
  const { username, password, search, hash } = new URL(value);
  return [username, password, search, hash].every((part) => part === "");
}

function isPeerMultiaddr(value: string): boolean {
  const parts = parseTcpMultiaddr(value);
  return parts !== null && parts.peer !== null && parts.scheme === null;
}

/** Units as kubo reads them (dustin/go-humanize): GB is 1000^3, GiB is 1024^3. */
export const SIZE_UNITS = {
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
} as const;

/** A size in bytes; null for anything else. */
export function parseSize(text: string): number | null {
  const [, amount, unit] = /^([1-9][0-9]{0,6})(MB|GB|TB|MiB|GiB|TiB)$/.exec(text) ?? [];
  return amount === undefined ? null : Number(amount) * SIZE_UNITS[unit as keyof typeof SIZE_UNITS];
}

/** Upstream's largest block is 4 MiB; more than this would be held in memory for nothing. */
const MOST_BLOCK_BYTES = 67_108_864;
const MOST_CONCURRENT = 1_024;

const PEER_MULTIADDR = "a TCP multiaddr with its peer, such as /ip4/10.0.0.7/tcp/9096/p2p/12D3KooW...";

const IMAGE_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
/** An optional registry, a path, and a tag or digest or both (distribution/reference). */
const IMAGE = new RegExp(
  `^(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?${IMAGE_PART}(?:/${IMAGE_PART})*` +
    "(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$",
);

/** The rules that settings use. */
export const RULES = {
  any: pattern("some text", /./u),
  port: { say: "a TCP port from 1 to 65535, in plain digits", holds: isPort },
  host: {
    say: "a host name or an IP address",
    holds: (value) => isHostName(value) || isIp4(value) || isIp6(value),
  },
  flag: pattern("true or false", /^(true|false)$/),
  count: wholeUpTo(999_999_999),
  blockBytes: wholeUpTo(MOST_BLOCK_BYTES),
  concurrency: wholeUpTo(MOST_CONCURRENT),
  storageSize: {
    say: "a size such as 500GB or 2TiB (MB, GB, TB, MiB, GiB, TiB)",
    holds: (value) => parseSize(value) !== null,
  },
  amount: pattern(
    "a number such as 3 or 0.25: up to 15 digits, and up to 8 behind the point",
    /^[0-9]{1,15}(\.[0-9]{1,8})?$/,
  ),
  percent: {
    say: "a whole number from 1 to 100",
    holds: (value) => /^[1-9][0-9]{0,2}$/.test(value) && Number(value) <= 100,
  },
  factor: pattern("-1 (everywhere) or a whole number from 1 to 999", /^(-1|[1-9][0-9]{0,2})$/),
  name: pattern(
    "1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, beginning with a letter or digit",
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
  ),
  nodeName: {
    say: "a node's name: 1 to 64 characters of a-z and 0-9, with single dashes between them",
    holds: isNodeName,
  },
  identifier: pattern(
    "a plain Postgres name: a-z, A-Z, 0-9 and _, 63 characters at most, not beginning with a digit",
    /^[A-Za-z_][A-Za-z0-9_]{0,62}$/,
  ),
  path: pattern(
    "an absolute path of a-z, A-Z, 0-9, dot, dash and underscore, such as /opt/fula-writer",
    /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+$/,
  ),
  image: pattern("an image reference such as postgres:16-alpine", IMAGE),
  url: { say: "an http:// or https:// address", holds: isHttpUrl },
  // Credentials in an address would end in logs, in invites and in the list of processes.
  apiUrl: {
    say: "an http:// or https:// address without credentials, query or fragment",
    holds: isPlainUrl,
  },
  apiMultiaddr: {
    say: "a multiaddr of an HTTP API, such as /ip4/127.0.0.1/tcp/9094",
    holds: (value) => parseTcpMultiaddr(value)?.peer === null,
  },
  peerMultiaddr: { say: PEER_MULTIADDR, holds: isPeerMultiaddr },
  peerMultiaddrs: {
    say: `${PEER_MULTIADDR}; several are separated by commas without spaces`,
    holds: listOf(isPeerMultiaddr),
  },
  peerIds: {
    say: "peer ids (12D3KooW... or Qm...), separated by commas without spaces",
    holds: listOf(isPeerId),
  },
  contract: pattern("a contract's address: 0x and 40 hexadecimal digits", /^0x[0-9a-fA-F]{40}$/),
  emails: {
    say: "e-mail addresses, separated by commas",
    holds: listOf((value) => /^[^\s@,]+@[^\s@,]+$/.test(value.trim())),
  },
  quotaMode: pattern(
    "strict (no answer of the storage API: no upload) or open (upstream's way)",
    /^(strict|open)$/,
  ),
  hex64: pattern("64 hexadecimal digits", /^[0-9a-fA-F]{64}$/),
  secret: pattern("at least 8 characters", /^.{8,}$/su),
  signingSecret: pattern("at least 16 characters", /^.{16,}$/su),
  systemKey: {
    say: "at least 12 characters, and not the word `disabled` (the pinning API would then let that word in)",
    holds: (value) => value.length >= 12 && value.trim().toLowerCase() !== "disabled",
  },
  credentials: pattern("user:password, where neither holds a colon or a comma", /^[^:,]+:[^:,]+$/),
} as const satisfies Record<string, Rule>;
