import type { TlsAnswer } from "../machine/tls.ts";
import type { Edge, EdgeTls } from "../settings/edge.ts";
import { NAMES } from "../settings/layout.ts";

/** How the edge stands. */
export interface EdgeStanding {
  readonly state: "ok" | "attention" | "down";
  readonly sentence: string;
  readonly todo: string | null;
  readonly evidence: Readonly<Record<string, string>>;
}

const DAY_MS = 86_400_000;
/** Caddy renews when a third of the lifetime is left. */
const LATE_SHARE = 1 / 4;
/** Nobody renews the operator's own certificate. */
const OWN_NOTICE_MS = 14 * DAY_MS;
/** What to do where only Caddy's own words help. */
export const LOG = "docker logs fula-edge";
const REPAIR = "fula-node join-as-master";
/** The issuer of Caddy's own certificates. */
const CADDY = "Caddy Local Authority";

/** A service behind the edge. `fault` says what is wrong with its answer through the edge; null if nothing is. */
export interface Behind {
  readonly name: string;
  readonly fault: string | null;
}

/** What is known of the edge. */
export interface EdgeFacts {
  readonly edge: Edge;
  /** To a request that the edge answers by itself. */
  readonly answer: TlsAnswer;
  readonly behind: readonly Behind[];
  /** The file with the roots that invites contain, and whether it has one; null for a public CA, or the operator's. */
  readonly roots: { readonly path: string; readonly isThere: boolean } | null;
  /** The CA's last refusal, if nothing was issued since. */
  readonly caFault: string | null;
  /** Whether other machines can find an address for its name; null if that is not known. */
  readonly isFindable: boolean | null;
  readonly nowMs: number;
}

/** What a judgement adds to the certificate's words, and what to do. */
type Verdict = readonly [state: EdgeStanding["state"], sentence: string, todo: string | null];

/** Judges the edge by what it answers to requests for its name. */
export function judgeEdge(facts: EdgeFacts): EdgeStanding {
  const { edge, answer, behind, caFault } = facts;
  const { host } = edge;
  const evidence = {
    ...(caFault === null ? {} : { CA: caFault }),
    ...Object.fromEntries(behind.map(({ name, fault }) => [name, fault ?? "answers"])),
  };
  const judged = ([state, sentence, todo]: Verdict, more = {}): EdgeStanding => ({
    state,
    sentence,
    todo,
    evidence: { ...more, ...evidence },
  });
  if (answer.kind === "silent") return judged(["down", `port 443 does not answer: ${answer.why}`, LOG]);
  if (answer.kind === "no-certificate")
    return judged([
      "down",
      `there is no certificate for ${host}: ${caFault === null ? answer.why : sayCaFault(caFault)}`,
      LOG,
    ]);
  const { certificate, distrust } = answer;
  const { issuer, validFrom, validTo } = certificate;
  const verdict =
    judgeCertificate(facts, answer) ??
    judgeBehind(behind) ??
    judgeTrust(edge.tls, answer) ??
    judgeName(facts) ??
    judgeRenewal(facts, answer);
  const day = validTo.toISOString().slice(0, 10);
  return judged(verdict ?? ["ok", `https://${host}, certificate of ${issuer} until ${day}`, null], {
    certificate: `of ${issuer}, ${validFrom.toISOString()} to ${validTo.toISOString()}`,
    chain: distrust ?? "trusted",
  });
}

type Answered = TlsAnswer & { readonly kind: "answer" };

/** What keeps every client away. */
function judgeCertificate(
  { edge: { host, tls }, roots, nowMs }: EdgeFacts,
  { certificate: { coversName, validTo }, distrust }: Answered,
): Verdict | null {
  if (!coversName) return ["down", `its certificate is not for ${host}`, LOG];
  if (validTo.getTime() <= nowMs)
    return ["down", `its certificate expired on ${validTo.toISOString().slice(0, 10)}`, renewalOf(tls.kind)];
  if (roots === null) return null;
  const { path, isThere } = roots;
  if (tls.kind !== "internal")
    return distrust === null
      ? null
      : [
          "down",
          `its certificate is not of a CA in ${path}, which invites contain: nobody can verify it`,
          `put the roots of its CA into ${path}, then run fula-node join-as-master`,
        ];
  const again = `put back your copy of the volume ${NAMES.edgeVolume}; without one, ${newCa(path)}`;
  if (!isThere)
    return ["attention", `the root of its CA is gone from its volume: it ends with the next restart`, again];
  return distrust === null
    ? null
    : [
        "down",
        `its certificate is not of the CA in ${path}, which invites contain: nobody can verify it`,
        again,
      ];
}

/** The commands that make Caddy forget what is left of its CA, and make a new one. */
function newCa(rootPath: string): string {
  const data = rootPath.replace(/\/pki\/.*$/, "");
  return `docker stop ${NAMES.edge} && rm -rf ${data}/pki ${data}/certificates/local && docker start ${NAMES.edge} && fula-node join-as-master`;
}

function judgeBehind(behind: readonly Behind[]): Verdict | null {
  const broken = behind.flatMap(({ name, fault }) => (fault === null ? [] : [`the ${name} ${fault}`]));
  return broken.length === 0
    ? null
    : ["attention", `the edge works, but ${broken.join(", ")}`, `repair them: ${REPAIR}`];
}

/** Certificates that only who set them up trusts. */
function judgeTrust(tls: EdgeTls, { certificate, distrust }: Answered): Verdict | null {
  const { issuer, isSelfSigned } = certificate;
  if (tls.kind === "files" && distrust !== null)
    return [
      "attention",
      `storage nodes and browsers do not trust its certificate (of ${issuer}): an intermediate certificate may be missing from EDGE_CERT, or its CA is private`,
      "put the whole chain into the file of EDGE_CERT, then run fula-node join-as-master; for a CA of your own: fula-node join-as-master --set EDGE_TLS=internal",
    ];
  if (tls.kind !== "acme") return null;
  if (isSelfSigned || issuer.startsWith(CADDY))
    return ["attention", `its certificate is its own (${issuer}), not of the CA: nobody trusts it`, LOG];
  if (isStaging(tls, issuer))
    return [
      "attention",
      `its certificate is of a staging CA (${issuer}): browsers do not trust it`,
      "for a trusted one, remove EDGE_ACME_CA from .env, then run fula-node join-as-master",
    ];
  if (tls.root !== null || distrust === null) return null;
  return [
    "attention",
    `neither browsers nor storage nodes trust its certificate (of ${issuer})`,
    "if its CA is a private one: fula-node join-as-master --set EDGE_ACME_ROOT=PATH",
  ];
}

/** Let's Encrypt names its staging CAs so. */
function isStaging(tls: EdgeTls, issuer: string): boolean {
  return issuer.startsWith("(STAGING)") || (tls.kind === "acme" && /staging/i.test(tls.directory));
}

/** True for a name that means this machine on every machine (RFC 6761, section 6.3). */
export function isLocalName(name: string): boolean {
  return /(?:^|\.)localhost$/.test(name);
}

function judgeName({ edge: { host }, isFindable }: EdgeFacts): Verdict | null {
  const change = "fula-node join-as-master --set PUBLIC_HOST=NAME";
  if (isLocalName(host))
    return [
      "attention",
      `nobody outside this machine can reach ${host}`,
      `with a name in your DNS: ${change}`,
    ];
  return isFindable === false
    ? ["attention", `the DNS has no address for ${host}: others can't find it`, `add it there, or: ${change}`]
    : null;
}

function judgeRenewal(
  { edge: { tls }, caFault, nowMs }: EdgeFacts,
  { certificate: { validFrom, validTo } }: Answered,
): Verdict | null {
  const leftMs = validTo.getTime() - nowMs;
  const noticeMs =
    tls.kind === "files" ? OWN_NOTICE_MS : (validTo.getTime() - validFrom.getTime()) * LATE_SHARE;
  if (leftMs >= noticeMs && caFault === null) return null;
  const why = caFault === null ? "" : `; the CA did not issue a new one: ${sayCaFault(caFault)}`;
  const day = validTo.toISOString().slice(0, 10);
  return ["attention", `its certificate expires ${inWords(leftMs, day)}${why}`, renewalOf(tls.kind)];
}

function renewalOf(kind: Edge["tls"]["kind"]): string {
  return kind === "files" ? "renew the file of EDGE_CERT, then run fula-node join-as-master" : LOG;
}

function inWords(leftMs: number, day: string): string {
  if (leftMs >= 2 * DAY_MS) return `on ${day}, in ${Math.floor(leftMs / DAY_MS)} days`;
  return `in ${Math.max(1, Math.floor(leftMs / 3_600_000))} h`;
}

const MOST_CHARACTERS = 300;

/** The last refusal of the CA in Caddy's log (JSON lines), if no certificate was issued after it. */
export function findCaFault(log: string): string | null {
  let fault: string | null = null;
  for (const line of log.split("\n")) {
    const entry = parseLine(line);
    if (entry === null || !/^tls\.(?:obtain|renew)/.test(textIn(entry, "logger"))) continue;
    if (/successfully/.test(textIn(entry, "msg"))) fault = null;
    else if (textIn(entry, "level") === "error") fault = textIn(entry, "error") || textIn(entry, "msg");
  }
  return fault === null ? null : fault.replaceAll(/\s+/g, " ").slice(0, MOST_CHARACTERS);
}

/** What an ACME server refuses (RFC 8555, section 6.7), and what keeps Caddy away from it. The first that fits counts. */
const CA_FAULTS: readonly (readonly [pattern: RegExp, words: string])[] = [
  [/acme:error:rateLimited/, "too many requests; it says when in the log"],
  [/acme:error:(?:connection|tls|dns)\b/, "it does not reach this machine by that name (ports 80 and 443)"],
  [/acme:error:(?:unauthorized|incorrectResponse)/, "another machine answers for that name"],
  [/acme:error:caa/, "the DNS forbids this CA (CAA)"],
  [/acme:error:rejectedIdentifier/, "it does not issue for that name"],
  [/acme:error:externalAccountRequired/, "it wants an account that was made there before"],
  [/connection refused/, "connection refused"],
  [/no such host|server misbehaving/, "its own name is not in the DNS"],
  [/x509|certificate signed by unknown/, "this machine does not trust the CA's own certificate"],
  [/no route to host|network is unreachable/, "no route to host"],
  [/timeout|deadline exceeded/, "it does not answer in time"],
];
const MOST_SHOWN = 60;

/** A CA's refusal in a few words. The evidence has all of it: Caddy's own sentence names each try, and its fallback CA. */
function sayCaFault(raw: string): string {
  const known = CA_FAULTS.find(([pattern]) => pattern.test(raw));
  if (known !== undefined) return known[1];
  return raw.length <= MOST_SHOWN ? raw : `${raw.slice(0, MOST_SHOWN - 1).trimEnd()}…`;
}

function parseLine(line: string): object | null {
  try {
    const entry: unknown = JSON.parse(line);
    return typeof entry === "object" ? entry : null;
  } catch {
    // Not every line of a container's log is one of Caddy's.
    return null;
  }
}

function textIn(entry: object, key: string): string {
  const value = (entry as Readonly<Record<string, unknown>>)[key];
  return typeof value === "string" ? value : "";
}
