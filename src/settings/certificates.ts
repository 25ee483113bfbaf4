/** A certificate in base64, as a PEM file has it between its lines. Every one begins with the same bytes of DER. */
const BASE64 = /^MI[A-Za-z0-9+/]{100,8000}={0,2}$/;

const PEM = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g;

/** True for the certificates of STORAGE_API_CA: base64, separated by commas. */
export function areCertificates(value: string): boolean {
  return value.split(",").every((one) => BASE64.test(one));
}

/** The certificates of a PEM file as one line. Null if there is none. */
export function certificatesInPem(pem: string): string | null {
  const found = [...pem.matchAll(PEM)].map(([, base64 = ""]) => base64.replaceAll(/\s/g, ""));
  return found.length === 0 ? null : found.join(",");
}

/** The PEM file of such a line. */
export function pemOfCertificates(value: string): string {
  return value
    .split(",")
    .map((one) => `-----BEGIN CERTIFICATE-----\n${one}\n-----END CERTIFICATE-----\n`)
    .join("");
}
