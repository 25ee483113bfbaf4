import { isHostName, isIp4, isIp6, isPeerId, isPort, parseTcpMultiaddr } from "./address.ts";
import { areCertificates } from "./certificates.ts";
import { isNodeName } from "./node-name.ts";

/**
 * What a value must be: the check and the sentence for the operator are in one place. The same rules check
 * `.env` on the machine and the environment of every container.
 */
export interface Rule {
  /** Completes the sentence "it must be ...". */
  readonly requirement: string;
  holds(value: string): boolean;
}

function pattern(requirement: string, expression: RegExp): Rule {
  return { requirement, holds: (value) => expression.test(value) };
}

function listOf(each: (value: string) => boolean): (value: string) => boolean {
  return (value) => value.split(",").every(each);
}

function wholeUpTo(max: number): Rule {
  return {
    requirement: `a whole number from 1 to ${max}`,
    holds: (value) => /^[1-9][0-9]{0,8}$/.test(value) && Number(value) <= max,
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

/** Parses a size such as 500GB into bytes; null for anything else. */
export function parseSize(text: string): number | null {
  const [, amount, unit] = /^([1-9][0-9]{0,6})(MB|GB|TB|MiB|GiB|TiB)$/.exec(text) ?? [];
  return amount === undefined ? null : Number(amount) * SIZE_UNITS[unit as keyof typeof SIZE_UNITS];
}

/** Upstream's largest block is 4 MiB, so a higher limit would only cost memory. */
const MAX_BLOCK_BYTES = 67_108_864;
const MAX_CONCURRENT = 1_024;

const PEER_MULTIADDR = "a TCP multiaddr with a peer id, such as /ip4/10.0.0.7/tcp/9096/p2p/12D3KooW...";

const IMAGE_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
/** An optional registry, a path, and a tag or digest or both (distribution/reference). */
const IMAGE = new RegExp(
  `^(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?${IMAGE_PART}(?:/${IMAGE_PART})*` +
    "(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$",
);

const PATH = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+$/;

/** The rules that settings use. */
export const RULES = {
  any: pattern("some text", /./u),
  port: { requirement: "a TCP port from 1 to 65535, in plain digits", holds: isPort },
  host: {
    requirement: "a host name or an IP address",
    holds: (value) => isHostName(value) || isIp4(value) || isIp6(value),
  },
  bindAddress: {
    requirement: "an IP address (`::` is all, IPv4 and IPv6; 0.0.0.0 is all of IPv4), or localhost",
    holds: (value) => value === "localhost" || isIp4(value) || isIp6(value),
  },
  flag: pattern("true or false", /^(true|false)$/),
  sslMode: pattern(
    "disable, require or verify-full (0.1.0's true means require, and false means disable)",
    /^(disable|require|verify-full|true|false)$/,
  ),
  count: wholeUpTo(999_999_999),
  bytes: {
    requirement: `a whole number of bytes from 0 to ${Number.MAX_SAFE_INTEGER}`,
    holds: (value) => /^(?:0|[1-9][0-9]{0,15})$/.test(value) && Number.isSafeInteger(Number(value)),
  },
  interval: {
    requirement: "a whole number of milliseconds from 1000 to 86400000",
    holds: (value) => /^[1-9][0-9]{3,7}$/.test(value) && Number(value) <= 86_400_000,
  },
  blockBytes: wholeUpTo(MAX_BLOCK_BYTES),
  concurrency: wholeUpTo(MAX_CONCURRENT),
  storageSize: {
    requirement: "a size such as 500GB or 2TiB (MB, GB, TB, MiB, GiB, TiB)",
    holds: (value) => parseSize(value) !== null,
  },
  days: pattern(
    "a whole number of days from 0 to 3650",
    /^(?:0|[1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|36[0-4][0-9]|3650)$/,
  ),
  amount: pattern(
    "a number such as 3 or 0.25: up to 15 digits, and up to 8 after the decimal point",
    /^[0-9]{1,15}(\.[0-9]{1,8})?$/,
  ),
  percent: {
    requirement: "a whole number from 1 to 100",
    holds: (value) => /^[1-9][0-9]{0,2}$/.test(value) && Number(value) <= 100,
  },
  factor: pattern("-1 (on every node) or a whole number from 1 to 999", /^(-1|[1-9][0-9]{0,2})$/),
  name: pattern(
    "1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, starting with a letter or digit",
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
  ),
  nodeName: {
    requirement: "a node name: 1 to 64 characters of a-z and 0-9, with single dashes between them",
    holds: isNodeName,
  },
  identifier: pattern(
    "a plain Postgres name: a-z, A-Z, 0-9 and _, at most 63 characters, not starting with a digit",
    /^[A-Za-z_][A-Za-z0-9_]{0,62}$/,
  ),
  path: pattern(
    "an absolute path of a-z, A-Z, 0-9, dot, dash and underscore, such as /opt/fula-writer",
    PATH,
  ),
  program: pattern(
    "the absolute path of a program, of a-z, A-Z, 0-9, dot, dash and underscore, such as /usr/local/sbin/on-alarm",
    PATH,
  ),
  image: pattern("an image reference such as postgres:16-alpine", IMAGE),
  url: { requirement: "an http:// or https:// address", holds: isHttpUrl },
  // Credentials in an address would appear in logs, in invites and in the list of processes.
  apiUrl: {
    requirement: "an http:// or https:// address without credentials, query or fragment",
    holds: isPlainUrl,
  },
  apiMultiaddr: {
    requirement: "the multiaddr of an HTTP API, such as /ip4/127.0.0.1/tcp/9094",
    holds: (value) => parseTcpMultiaddr(value)?.peer === null,
  },
  peerMultiaddr: { requirement: PEER_MULTIADDR, holds: isPeerMultiaddr },
  peerMultiaddrs: {
    requirement: `${PEER_MULTIADDR}; several are separated by commas without spaces`,
    holds: listOf(isPeerMultiaddr),
  },
  peerIds: {
    requirement: "peer ids (12D3KooW... or Qm...), separated by commas without spaces",
    holds: listOf(isPeerId),
  },
  contract: pattern("a contract address: 0x and 40 hexadecimal digits", /^0x[0-9a-fA-F]{40}$/),
  emails: {
    requirement: "e-mail addresses, separated by commas",
    holds: listOf((value) => /^[^\s@,]+@[^\s@,]+$/.test(value.trim())),
  },
  quotaMode: pattern(
    "strict (refuse uploads if the storage API does not answer) or open (accept them, as upstream does)",
    /^(strict|open)$/,
  ),
  creditGate: pattern(
    "closed (an account without a balance may have only FREE_PENDING_PINS unfinished pins) or open (any number, as upstream does)",
    /^(closed|open)$/,
  ),
  registration: pattern(
    "invite (a node needs an invite of this master to register its name) or open (anybody may register names)",
    /^(invite|open)$/,
  ),
  logLevel: pattern("debug, info, warn or error", /^(debug|info|warn|error)$/),
  // The id of an invite and the master's signature of 64 bytes (federation/invite-proof.ts).
  inviteProof: pattern("the id of an invite, a dot, and a signature", /^[0-9a-f]{32}\.[A-Za-z0-9_-]{86}$/),
  certificates: {
    requirement: "certificates in base64 on one line, separated by commas",
    holds: areCertificates,
  },
  hex64: pattern("64 hexadecimal digits", /^[0-9a-fA-F]{64}$/),
  masterId: pattern("32 hexadecimal digits, in lower case", /^[0-9a-f]{32}$/),
  secret: pattern("at least 8 characters", /^.{8,}$/su),
  signingSecret: pattern("at least 16 characters", /^.{16,}$/su),
  systemKey: {
    requirement:
      "at least 12 characters, and not the word `disabled` (with it, the pinning API would accept that word as the key)",
    holds: (value) => value.length >= 12 && value.trim().toLowerCase() !== "disabled",
  },
  credentials: pattern("user:password, and neither part may contain a colon or a comma", /^[^:,]+:[^:,]+$/),
} as const satisfies Record<string, Rule>;
