import { describe, expect, it } from "vitest";
import { type EdgeFacts, findCaFault, judgeEdge } from "../../../src/edge/judge.ts";
import type { CertificateFacts, TlsAnswer } from "../../../src/machine/tls.ts";
import type { EdgeTls } from "../../../src/settings/edge.ts";

const NOW = Date.UTC(2026, 5, 1);
const DAY = 86_400_000;
const ACME: EdgeTls = { kind: "acme", directory: "https://ca.example/dir", email: null, root: null };

function judge(
  given: {
    readonly tls?: EdgeTls;
    readonly host?: string;
    readonly left?: number;
    readonly distrust?: string;
    readonly facts?: Partial<CertificateFacts>;
  } & Partial<Pick<EdgeFacts, "behind" | "roots" | "caFault" | "isFindable">> = {},
) {
  const { tls = ACME, host = "m.example", left = 60, distrust = null, facts = {} } = given;
  const { behind = WORKING, roots = null, caFault = null, isFindable = true } = given;
  const validTo = new Date(NOW + left * DAY);
  const certificate = {
    issuer: "R11",
    isSelfSigned: false,
    validFrom: new Date(validTo.getTime() - 90 * DAY),
    validTo,
    coversName: true,
    ...facts,
  };
  const answer: TlsAnswer = { kind: "answer", status: 404, body: null, certificate, distrust };
  return judgeEdge({ edge: { host, tls }, answer, behind, roots, caFault, isFindable, nowMs: NOW });
}

const WORKING = [
  { name: "pinning API", fault: null },
  { name: "storage API", fault: null },
];
const ROOT = "/v/_data/caddy/pki/authorities/local/root.crt";
const LOST = "UNABLE_TO_VERIFY_LEAF_SIGNATURE";
const INTERNAL: EdgeTls = { kind: "internal" };

describe("judgeEdge", () => {
  it("is ok with a certificate that is not due", () => {
    expect(judge()).toMatchObject({
      state: "ok",
      sentence: "https://m.example, certificate of R11 until 2026-07-31",
      todo: null,
    });
    // Caddy renews with a third left, so just below it nothing is late yet.
    expect(judge({ left: 25 }).state).toBe("ok");
  });

  it("needs attention when the renewal is late, and says what the CA said", () => {
    expect(judge({ left: 20 })).toMatchObject({
      state: "attention",
      sentence: "its certificate expires on 2026-06-21, in 20 days",
    });
    expect(judge({ left: 1.5, caFault: "no route to host" }).sentence).toBe(
      "its certificate expires in 36 h; the CA did not issue a new one: no route to host",
    );
    expect(judge({ left: 28, caFault: "no route to host" }).state).toBe("attention");
  });

  it("measures a short lifetime by itself, and the operator's own in days", () => {
    const facts = { validFrom: new Date(NOW - DAY / 4), validTo: new Date(NOW + DAY / 4) };
    expect(judge({ tls: { kind: "internal" }, facts }).state).toBe("ok");
    const files: EdgeTls = { kind: "files", certificate: "/c", key: "/k" };
    expect(judge({ tls: files, left: 15 }).state).toBe("ok");
    expect(judge({ tls: files, left: 13 })).toMatchObject({
      state: "attention",
      todo: "renew the file of EDGE_CERT, then run fula-node join-as-master",
    });
  });

  it.each([
    ["it expired", judge({ left: -1 }), "down", /expired on 2026-05-31/],
    ["it is for another name", judge({ facts: { coversName: false } }), "down", /is not for m\.example/],
    [
      "it is Caddy's own",
      judge({ facts: { issuer: "Caddy Local Authority - ECC Intermediate" } }),
      "attention",
      /its own/,
    ],
    ["it is self-signed", judge({ facts: { isSelfSigned: true } }), "attention", /nobody trusts it/],
    [
      "what is behind does not work",
      judge({ behind: [WORKING[0]!, { name: "storage API", fault: "answers 503" }] }),
      "attention",
      /^the edge works, but the storage API answers 503$/,
    ],
    [
      "nobody can verify it: the CA is another one than invites contain",
      judge({ tls: INTERNAL, roots: { path: ROOT, isThere: true }, distrust: LOST }),
      "down",
      /not of the CA in \/v\/_data\/\S*root\.crt, which invites contain: nobody can verify it$/,
    ],
    [
      "the root of its CA is gone",
      judge({ tls: INTERNAL, roots: { path: ROOT, isThere: false }, distrust: LOST }),
      "attention",
      /the root of its CA is gone from its volume/,
    ],
    [
      "the roots in EDGE_ACME_ROOT are not its CA's",
      judge({
        tls: { ...ACME, root: "/root/ca.pem" },
        roots: { path: "/root/ca.pem", isThere: true },
        distrust: LOST,
      }),
      "down",
      /not of a CA in \/root\/ca\.pem/,
    ],
    [
      "its CA is a staging one, by the directory",
      judge({ tls: { ...ACME, directory: "https://acme-staging-v02.api.letsencrypt.org/directory" } }),
      "attention",
      /of a staging CA \(R11\): browsers do not trust it/,
    ],
    [
      "its CA is a staging one, by its name",
      judge({ facts: { issuer: "(STAGING) Pseudo Plum E5" }, distrust: LOST }),
      "attention",
      /of a staging CA/,
    ],
    [
      "no public CA issued it",
      judge({ distrust: LOST }),
      "attention",
      /neither browsers nor storage nodes trust/,
    ],
    [
      "localhost is this machine only",
      judge({ tls: INTERNAL, host: "localhost", roots: { path: ROOT, isThere: true } }),
      "attention",
      /nobody outside this machine can reach localhost/,
    ],
    [
      "its name has no address",
      judge({ isFindable: false }),
      "attention",
      /the DNS has no address for m\.example/,
    ],
  ] as const)("says that %s", (_name, found, state, sentence) => {
    expect(found).toMatchObject({ state, sentence: expect.stringMatching(sentence) as string });
  });

  it("what is not known of the DNS is no fault", () => {
    expect(judge({ isFindable: null }).state).toBe("ok");
  });

  it("the operator's own certificate must be one that others trust", () => {
    const files: EdgeTls = { kind: "files", certificate: "/c", key: "/k" };
    expect(judge({ tls: files }).state).toBe("ok");
    expect(judge({ tls: files, distrust: LOST })).toMatchObject({
      state: "attention",
      sentence:
        "storage nodes and browsers do not trust its certificate (of R11): an intermediate certificate may be missing from EDGE_CERT, or its CA is private",
      todo: expect.stringContaining("the whole chain into the file of EDGE_CERT") as string,
    });
  });

  it("says how to get a CA again that is lost", () => {
    const { todo } = judge({ tls: INTERNAL, roots: { path: ROOT, isThere: true }, distrust: LOST });
    expect(todo).toBe(
      "put back your copy of the volume fula-master_edge-data; without one, docker stop fula-edge && " +
        "rm -rf /v/_data/caddy/pki /v/_data/caddy/certificates/local && docker start fula-edge && fula-node join-as-master",
    );
  });

  it("is down without a certificate, in the CA's words, and when nothing listens", () => {
    const edge = { host: "m.example", tls: ACME };
    const rest = { edge, behind: [], roots: null, isFindable: null, nowMs: NOW };
    const none = { kind: "no-certificate", why: "alert 80" } as const;
    expect(judgeEdge({ ...rest, answer: none, caFault: "rate limited" })).toMatchObject({
      state: "down",
      sentence: "there is no certificate for m.example: rate limited",
    });
    const raw =
      "[m.example] Obtain: [m.example] creating new order: attempt 1: https://acme-staging.example/new-order: HTTP 429 " +
      "urn:ietf:params:acme:error:rateLimited - Service busy; retry later. (ca=https://acme-staging.example/directory)";
    const limited = judgeEdge({ ...rest, answer: none, caFault: raw });
    expect(limited.sentence).toBe(
      "there is no certificate for m.example: too many requests; it says when in the log",
    );
    expect(limited.evidence).toMatchObject({ CA: raw });
    expect(judgeEdge({ ...rest, answer: none, caFault: "x".repeat(200) }).sentence).toBe(
      `there is no certificate for m.example: ${"x".repeat(59)}…`,
    );
    const silent = { kind: "silent", why: "connect ECONNREFUSED" } as const;
    expect(judgeEdge({ ...rest, answer: silent, caFault: null })).toMatchObject({
      state: "down",
      sentence: "port 443 does not answer: connect ECONNREFUSED",
    });
  });
});

describe("findCaFault", () => {
  const line = (entry: Readonly<Record<string, string>>) => JSON.stringify(entry);
  const refused = line({ level: "error", logger: "tls.renew", msg: "will retry", error: "no\n route" });
  const issued = line({ level: "info", logger: "tls.renew", msg: "certificate renewed successfully" });

  it("gives the last refusal, unless a certificate was issued after it", () => {
    expect(findCaFault(["starting", refused, "not JSON {"].join("\n"))).toBe("no route");
    expect(findCaFault([refused, issued].join("\n"))).toBeNull();
    expect(findCaFault([issued, refused].join("\n"))).toBe("no route");
  });

  it("takes nothing else for one", () => {
    const others = [
      line({ level: "error", logger: "http.log.error", error: "dial tcp 127.0.0.1:6000" }),
      line({ level: "info", logger: "tls.obtain", msg: "acquiring lock" }),
      "null",
      "",
    ];
    expect(findCaFault(others.join("\n"))).toBeNull();
  });
});
