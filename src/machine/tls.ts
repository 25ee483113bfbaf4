import { createPrivateKey, X509Certificate } from "node:crypto";
import { request } from "node:https";
import { isIP } from "node:net";
import type { TLSSocket } from "node:tls";
import { messageOf } from "../errors.ts";
import { codeOf } from "./file-errors.ts";
import { parseJson } from "./http-client.ts";

/** What a certificate says. */
export interface CertificateFacts {
  readonly issuer: string;
  readonly isSelfSigned: boolean;
  readonly validFrom: Date;
  readonly validTo: Date;
  /** True if it is for the name that was asked for. */
  readonly coversName: boolean;
}

/** What a server answers over TLS. */
export type TlsAnswer =
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly body: unknown;
      readonly certificate: CertificateFacts;
      /** Why a client that trusts the given roots alone refuses the chain, a phrase; null if it does not. The name and the dates are left out. */
      readonly distrust: string | null;
    }
  /** Nothing listens there, or no answer came in time. */
  | { readonly kind: "silent"; readonly why: string }
  /** Something listens, but it has no certificate for that name. */
  | { readonly kind: "no-certificate"; readonly why: string };

/** Looks at certificates: those that servers show, and those in files. */
export interface TlsReader {
  /**
   * GET over HTTPS with a server name of its own. The certificate is not checked but given back: who asks wants to know what
   * other machines get.
   */
  ask(options: {
    readonly address: string;
    readonly port: number;
    readonly name: string;
    readonly path: string;
    readonly timeoutMs: number;
    /** PEM of the roots that its clients trust. Left out: those of public CAs. */
    readonly roots?: string | undefined;
  }): Promise<TlsAnswer>;
  /**
   * The first certificate of a PEM text, for a host name or an IP address. `isOfKey` is null without a key, `isOfIssuer`
   * without the issuer's certificate. A text says why something can't be read.
   */
  inspect(
    pem: string,
    options: { readonly name: string; readonly key: string | null; readonly issuer?: string },
  ): Promise<InspectedCertificate | string>;
}

/** What a certificate says, and what belongs to it. */
export type InspectedCertificate = CertificateFacts & {
  readonly isOfKey: boolean | null;
  readonly isOfIssuer: boolean | null;
};

const MOST_BYTES = 65_536;

export const tls: TlsReader = {
  ask: ({ address, port, name, path, timeoutMs, roots }) =>
    new Promise((resolve) => {
      const signal = AbortSignal.timeout(timeoutMs);
      let socket: TLSSocket | null = null;
      let isConnected = false;
      const asked = request(
        {
          host: address,
          port,
          path,
          servername: name,
          headers: { host: name, accept: "application/json" },
          agent: false,
          // It is judged by who asked.
          rejectUnauthorized: false,
          ...(roots === undefined ? {} : { ca: roots }),
          signal,
        },
        (answer) => {
          const shown = socket?.getPeerX509Certificate();
          const distrust = socket === null ? null : distrustOf(socket);
          const parts: Buffer[] = [];
          let bytes = 0;
          answer.on("data", (part: Buffer) => {
            bytes += part.length;
            if (bytes <= MOST_BYTES) parts.push(part);
          });
          answer.on("error", (error) => resolve({ kind: "silent", why: messageOf(error) }));
          answer.on("end", () =>
            resolve(
              shown === undefined
                ? { kind: "no-certificate", why: "it shows none" }
                : {
                    kind: "answer",
                    status: answer.statusCode ?? 0,
                    body: bytes > MOST_BYTES ? null : parseJson(Buffer.concat(parts).toString()),
                    certificate: factsOf(shown, name),
                    distrust,
                  },
            ),
          );
        },
      );
      asked.on("socket", (opened) => {
        socket = opened as TLSSocket;
        opened.on("connect", () => void (isConnected = true));
      });
      asked.on("error", (error) => {
        if (signal.aborted) return resolve({ kind: "silent", why: `no answer within ${timeoutMs / 1000} s` });
        const isTls = isConnected && !["ECONNRESET", "EPIPE"].includes(codeOf(error) ?? "");
        return resolve({ kind: isTls ? "no-certificate" : "silent", why: messageOf(error) });
      });
      asked.end();
    }),

  async inspect(pem, { name, key, issuer }) {
    let certificate: X509Certificate;
    let isOfIssuer: boolean | null = null;
    try {
      certificate = new X509Certificate(pem);
      const signer = issuer === undefined ? null : new X509Certificate(issuer);
      if (signer !== null)
        isOfIssuer = certificate.checkIssued(signer) && certificate.verify(signer.publicKey);
    } catch {
      return "it is not a certificate in PEM form";
    }
    const facts = { ...factsOf(certificate, name), isOfIssuer };
    if (key === null) return { ...facts, isOfKey: null };
    try {
      return { ...facts, isOfKey: certificate.checkPrivateKey(createPrivateKey(key)) };
    } catch {
      // The text of the error may quote the key.
      return "its key is not a private key in PEM form without a passphrase";
    }
  },
};

/** By the codes of OpenSSL. What is judged by itself is left out. */
const JUDGED_APART = /^(?:ERR_TLS_CERT_ALTNAME_INVALID|CERT_HAS_EXPIRED|CERT_NOT_YET_VALID)$/;

function distrustOf({ authorized, authorizationError }: TLSSocket): string | null {
  if (authorized) return null;
  // A text in Node.js, where its types say Error.
  const found: unknown = authorizationError;
  const code = typeof found === "string" ? found : (codeOf(found) ?? messageOf(found));
  return JUDGED_APART.test(code) ? null : code;
}

function factsOf(certificate: X509Certificate, name: string): CertificateFacts {
  const { issuer, subject, validFrom, validTo } = certificate;
  return {
    issuer: shortName(issuer),
    isSelfSigned: issuer === subject,
    validFrom: new Date(validFrom),
    validTo: new Date(validTo),
    coversName:
      (isIP(name) === 0 ? certificate.checkHost(name, { wildcards: true }) : certificate.checkIP(name)) !==
      undefined,
  };
}

/** The common name, or the organisation, or all of it. */
function shortName(distinguished: string): string {
  const parts = new Map(
    distinguished.split("\n").map((line) => {
      const [key = "", ...value] = line.split("=");
      return [key, value.join("=")] as const;
    }),
  );
  return parts.get("CN") ?? parts.get("O") ?? distinguished.replaceAll("\n", ", ");
}
