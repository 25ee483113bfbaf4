import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";

/** A certificate and its private key, in PEM form. */
export interface Certificate {
  readonly certificate: string;
  readonly key: string;
}

/** Years from 2020 to 2099, unless something else is given. */
interface IssueOptions {
  readonly expired?: boolean;
  readonly from?: Date;
  readonly until?: Date;
}

/** A certificate authority for tests. */
export interface Authority {
  /** Its own certificate, in PEM form. */
  readonly certificate: string;
  /** Issues a certificate for these names (`DNS:localhost,IP:127.0.0.1`). */
  issue(names: string, options?: IssueOptions): Promise<Certificate>;
  close(): Promise<void>;
}

const SHORT = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** Creates an authority with openssl, in its own directory. */
export async function createAuthority(): Promise<Authority> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-ca-"));
  const openssl = (...words: readonly string[]) => execa("openssl", words, { cwd: directory });
  const text = (name: string) => readFile(join(directory, name), "utf8");
  await openssl(
    "req",
    "-x509",
    ...SHORT,
    "-days",
    "30",
    "-subj",
    "/CN=test CA",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
  );
  await writeFile(join(directory, "index"), "");
  await writeFile(join(directory, "serial"), "01\n");
  await writeFile(join(directory, "ca.conf"), CA_CONF);
  return {
    certificate: await text("ca.pem"),
    async issue(names, { expired = false, from, until: given } = {}) {
      await writeFile(join(directory, "names"), `subjectAltName=${names}\n`);
      await openssl("req", ...SHORT, "-subj", "/CN=postgres", "-keyout", "server.key", "-out", "server.csr");
      const until = expired ? "20200102000000Z" : given === undefined ? "20991231000000Z" : asn1(given);
      const dates = ["-startdate", from === undefined ? "20200101000000Z" : asn1(from), "-enddate", until];
      const files = ["-in", "server.csr", "-out", "server.pem", "-extfile", "names"];
      await openssl("ca", "-batch", "-notext", "-config", "ca.conf", ...dates, ...files);
      return { certificate: await text("server.pem"), key: await text("server.key") };
    },
    close: () => rm(directory, { recursive: true }),
  };
}

/** As `openssl ca` takes a time. */
function asn1(time: Date): string {
  return `${time.toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`;
}

const CA_CONF = `
[ca]
default_ca = own
[own]
database = index
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
serial = serial
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
`;
