import { X509Certificate } from "node:crypto";

/** A certificate in base64, as settings have it. */
const CERTIFICATE = /(?<![A-Za-z0-9+/])MI[A-Za-z0-9+/]{100,8000}={0,2}/g;

/** A line in which each certificate is shown by its fingerprint and its end: nobody reads the base64 of one. */
export function shortenCertificates(line: string): string {
  return line.replaceAll(CERTIFICATE, (base64) => {
    try {
      const { fingerprint256, validTo } = new X509Certificate(Buffer.from(base64, "base64"));
      const start = fingerprint256.replaceAll(":", "").slice(0, 16).toLowerCase();
      return `certificate ${start}... until ${new Date(validTo).toISOString().slice(0, 10)}`;
    } catch {
      return `${base64.slice(0, 12)}... (${base64.length} characters)`;
    }
  });
}
