import type { TlsAnswer } from "../machine/tls.ts";
import type { Edge } from "../settings/edge.ts";

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
const LOG = "docker logs fula-edge";
/** The issuer of Caddy's own certificates. */
const CADDY = "Caddy Local Authority";

/** Judges the edge by what it answers to a request for its name. `caFault` is the CA's last refusal, if nothing was issued since. */
export function judgeEdge(facts: {
  readonly edge: Edge;
  readonly answer: TlsAnswer;
  readonly caFault: string | null;
  readonly nowMs: number;
}): EdgeStanding {
  const {
    edge: { host, tls },
    answer,
    caFault,
    nowMs,
  } = facts;
  const ca = caFault === null ? {} : { CA: caFault };
  const judged = (
    state: EdgeStanding["state"],
    sentence: string,
    todo: string | null = LOG,
    evidence: EdgeStanding["evidence"] = {},
  ): EdgeStanding => ({ state, sentence, todo, evidence: { ...evidence, ...ca } });
  if (answer.kind === "silent") return judged("down", `port 443 does not answer: ${answer.why}`);
  if (answer.kind === "no-certificate")
    return judged("down", `there is no certificate for ${host}: ${caFault ?? answer.why}`);
  const { status, certificate } = answer;
  const { issuer, isSelfSigned, validFrom, validTo, coversName } = certificate;
  const day = validTo.toISOString().slice(0, 10);
  const evidence = {
    certificate: `of ${issuer}, ${validFrom.toISOString()} to ${validTo.toISOString()}`,
    answer: String(status),
  };
  if (!coversName) return judged("down", `its certificate is not for ${host}`, LOG, evidence);
  const leftMs = validTo.getTime() - nowMs;
  if (leftMs <= 0) return judged("down", `its certificate expired on ${day}`, renewalOf(tls.kind), evidence);
  if (status >= 500)
    return judged("attention", `it works, but what is behind it answers ${status}`, null, evidence);
  if (tls.kind === "acme" && (isSelfSigned || issuer.startsWith(CADDY)))
    return judged(
      "attention",
      `its certificate is its own (${issuer}), not of the CA: nobody trusts it`,
      LOG,
      evidence,
    );
  const noticeMs =
    tls.kind === "files" ? OWN_NOTICE_MS : (validTo.getTime() - validFrom.getTime()) * LATE_SHARE;
  if (leftMs < noticeMs || caFault !== null) {
    const why = caFault === null ? "" : `; the CA did not issue a new one: ${caFault}`;
    return judged(
      "attention",
      `its certificate expires ${inWords(leftMs, day)}${why}`,
      renewalOf(tls.kind),
      evidence,
    );
  }
  return judged("ok", `https://${host}, certificate of ${issuer} until ${day}`, null, evidence);
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
