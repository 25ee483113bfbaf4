import { createHash } from "node:crypto";
import type { Host } from "../../src/host.ts";
import type { TlsReader } from "../../src/machine/tls.ts";

type Inspect = (
  pem: string,
  options: Parameters<TlsReader["inspect"]>[1],
) => Awaited<ReturnType<TlsReader["inspect"]>>;

interface Facts {
  readonly own: string;
  readonly issuer: string;
  readonly names: readonly string[];
  readonly from: number;
  readonly until: number;
}

/** Certificates of a fake host. They tell which key they are of, and who issued them. */
export function fakeCertificates(signing: Host["signing"]): Host["certificates"] {
  const half = async (key: string) => (await signing.publicKey(key, "a key")).publicPem.split("\n")[1] ?? "";
  const issue = async (
    names: readonly string[],
    key: string,
    signer: string,
    { from, until }: { readonly from: Date; readonly until: Date },
  ) => {
    const facts = Buffer.from(JSON.stringify({ names, from: dayOf(from), until: dayOf(until) }));
    return wrap(`MII${await half(key)}${await half(signer)}${facts.toString("hex")}`);
  };
  return {
    makeKey: () => signing.generate(),
    isKey: async (pem) => pem.startsWith("-----BEGIN PRIVATE KEY-----\n"),
    makeAuthority: (name, key, validity) => issue([name], key, key, validity),
    makeServerCertificate: (authority, addresses, key, validity) =>
      issue(addresses, key, authority.key, validity),
  };
}

/** Reads such a certificate. Any other text is none. */
export const inspectFake: Inspect = (pem, { name, key, issuer }) => {
  const facts = read(pem);
  if (facts === null) return "it is not a certificate in PEM form";
  const signer = issuer === undefined ? null : read(issuer);
  return {
    issuer: facts.issuer.slice(0, 8),
    isSelfSigned: facts.own === facts.issuer,
    validFrom: new Date(facts.from),
    validTo: new Date(facts.until),
    coversName: facts.names.includes(name),
    isOfKey: key === null ? null : halfOf(key) === facts.own,
    isOfIssuer: issuer === undefined ? null : signer?.own === facts.issuer,
  };
};

/** Whole days, so that a run that was interrupted ends as one that was not. */
function dayOf(time: Date): number {
  return Math.floor(time.getTime() / 86_400_000) * 86_400_000;
}

function wrap(body: string): string {
  return `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`;
}

function read(pem: string): Facts | null {
  const [, own = "", issuer = "", rest = ""] =
    /^-----BEGIN CERTIFICATE-----\nMII([0-9a-f]{64})([0-9a-f]{64})([0-9a-f]+)\n/.exec(pem) ?? [];
  if (rest === "") return null;
  const told = JSON.parse(Buffer.from(rest, "hex").toString()) as Omit<Facts, "own" | "issuer">;
  return { own, issuer, ...told };
}

/** As the fake keys derive it (fake-random.ts). */
function halfOf(key: string): string {
  return createHash("sha256")
    .update(key.split("\n")[1] ?? "")
    .digest("hex");
}
