import type { Change, Evidence, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { Host, HostReader } from "../../host.ts";
import { type MasterContext, readValues } from "../../settings/context.ts";
import { type MasterLayout, POSTGRES_TLS_FILES } from "../../settings/layout.ts";
import { postgresBindOf } from "../../settings/postgres-target.ts";

interface Seen {
  /** Null: no other machine reaches this database. */
  readonly address: string | null;
  readonly makeAuthority: boolean;
  readonly makeCertificate: boolean;
  readonly writeRules: boolean;
  /** Keys that others could read. */
  readonly open: readonly string[];
}

type TlsChange = Change & {
  readonly kind: "make-authority" | "make-certificate" | "write-rules" | "restrict-key";
  readonly path: string;
};

const DAY_MS = 86_400_000;
/** Masters trust the CA by their invites, so it lasts. */
const AUTHORITY_DAYS = 30 * 365;
const CERTIFICATE_DAYS = 3 * 365;
/** A join renews what ends within this time. */
const RENEW_DAYS = 365;
/** A clock that is a little slow must accept it, too. */
const EARLIER_DAYS = 1;

/** Inside the container, only itself is on its loopback. Everybody else, also this machine, comes over its network. */
const RULES = `# Written by fula-node: who may connect to this Postgres, and how.
local   all all                trust
host    all all 127.0.0.1/32   scram-sha-256
host    all all ::1/128        scram-sha-256
hostssl all all all            scram-sha-256
`;

/** The CA and the certificate of a Postgres that other machines reach, and who may connect. */
export function postgresTls(context: MasterContext): StepSpec<Seen, TlsChange> {
  const paths = pathsOf(context.layout);
  return {
    id: "postgres-tls",
    title: "TLS of the database",
    touches:
      "If POSTGRES_BIND is set, creates a CA, a certificate for that address and the rules of access in `postgres-tls`. Renews the certificate in the year before it ends.",

    probe: (host) => probe(host, context),

    plan({ seen }) {
      const { makeAuthority, makeCertificate, writeRules, open } = seen;
      return [
        ...open.map((path) => change("restrict-key", path, "make readable by root only:")),
        ...(makeAuthority ? [change("make-authority", paths.authority, "create the database's CA")] : []),
        ...(makeCertificate
          ? [change("make-certificate", paths.certificate, `create a certificate for ${seen.address ?? ""}:`)]
          : []),
        ...(writeRules ? [change("write-rules", paths.rules, "write")] : []),
      ];
    },

    apply: (one, host) => apply(one, host, context),

    async verify(host) {
      const finding = await probe(host, context);
      if (finding.state === "ours") return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The files in ${context.layout.postgresTlsDir} are not as they were just written.`,
        remedy: "Another program changes them. Find that program, then run again.",
      });
    },
  };
}

function change(kind: TlsChange["kind"], path: string, what: string): TlsChange {
  return { kind, path, summary: `${what} ${path}` };
}

/** Where the files are. The key of the CA is in no container. */
function pathsOf({ postgresTlsDir }: MasterLayout) {
  const { directory, certificate, key, rules } = POSTGRES_TLS_FILES;
  return {
    authority: `${postgresTlsDir}/ca.pem`,
    authorityKey: `${postgresTlsDir}/ca.key`,
    certificate: `${postgresTlsDir}/${directory}/${certificate}`,
    key: `${postgresTlsDir}/${directory}/${key}`,
    rules: `${postgresTlsDir}/${directory}/${rules}`,
  };
}

async function probe(host: HostReader, context: MasterContext): Promise<Finding<Seen>> {
  const paths = pathsOf(context.layout);
  const address = postgresBindOf(await readValues(host, context));
  if (address === null) {
    const seen = { address, makeAuthority: false, makeCertificate: false, writeRules: false, open: [] };
    return { state: "ours", seen, evidence: { database: "other machines do not reach it" } };
  }
  const [authority, rules, open] = await Promise.all([
    lookAtAuthority(host, paths),
    host.files.readText(paths.rules),
    findOpen(host, [paths.authorityKey, paths.key]),
  ]);
  if (authority.state === "foreign") {
    const { evidence, why, remedy } = authority;
    return { state: "foreign", evidence, why, remedy };
  }
  const certificate = authority.isGood
    ? await lookAtCertificate(host, paths, address, authority.pem)
    : authority.isNew
      ? "absent"
      : "it is renewed with its CA";
  const seen: Seen = {
    address,
    makeAuthority: !authority.isGood,
    makeCertificate: certificate !== null,
    writeRules: rules !== RULES,
    open,
  };
  const evidence: Evidence = {
    [paths.authority]: authority.what,
    [paths.certificate]: certificate ?? `for ${address}, of this CA`,
    [paths.rules]: rules === null ? "absent" : seen.writeRules ? "differs" : "as written by fula-node",
  };
  const isNew = authority.isNew && rules === null;
  if (isNew) return { state: "absent", seen, evidence };
  const drift = [
    ...(seen.makeAuthority ? [`${paths.authority}: ${authority.what}`] : []),
    ...(certificate === null ? [] : [`${paths.certificate}: ${certificate}`]),
    ...(seen.writeRules ? [`${paths.rules} ${rules === null ? "is missing" : "differs"}`] : []),
    ...seen.open.map((path) => `other users can read ${path}`),
  ];
  return drift.length === 0 ? { state: "ours", seen, evidence } : { state: "drifted", seen, drift, evidence };
}

type Paths = ReturnType<typeof pathsOf>;

type Authority =
  | {
      readonly state: "ours";
      readonly isGood: boolean;
      readonly isNew: boolean;
      readonly what: string;
      readonly pem: string;
    }
  | { readonly state: "foreign"; readonly evidence: Evidence; readonly why: string; readonly remedy: string };

/** A CA is never replaced while it holds: every other master would refuse the database. */
async function lookAtAuthority(host: HostReader, paths: Paths): Promise<Authority> {
  const [pem, key] = await Promise.all([
    host.files.readText(paths.authority),
    host.files.readText(paths.authorityKey),
  ]);
  // The key is written first, so it may be there alone after an interruption. It is used then.
  if (pem === null) return { state: "ours", isGood: false, isNew: true, what: "absent", pem: "" };
  const facts = await host.tls.inspect(pem, { name: "", key });
  const fault =
    typeof facts === "string"
      ? `${paths.authority}: ${facts}`
      : key === null
        ? `${paths.authorityKey} is missing`
        : facts.isOfKey === true
          ? null
          : `${paths.authorityKey} is not the key of ${paths.authority}`;
  if (fault !== null || typeof facts === "string")
    return {
      state: "foreign",
      evidence: { [paths.authority]: fault ?? "" },
      why: `The CA of the database can't be used: ${fault ?? ""}. Other masters trust this CA, and no other one.`,
      remedy: `Restore both files from your backup. If there is no copy, move ${paths.authority} away and run again: it makes a new CA, and every other master then needs a new invite.`,
    };
  const ends = facts.validTo.toISOString().slice(0, 10);
  const isGood = !endsSoon(facts.validTo, host.clock.now());
  // With the same key, masters that trust the former one accept the server until that day.
  const what = isGood ? `valid until ${ends}` : `it ends on ${ends}; other masters need a new invite by then`;
  return { state: "ours", isGood, isNew: false, what, pem };
}

/** Why a new certificate is needed; null if it is not. */
async function lookAtCertificate(
  host: HostReader,
  paths: Paths,
  address: string,
  authority: string,
): Promise<string | null> {
  const [pem, key] = await Promise.all([
    host.files.readText(paths.certificate),
    host.files.readText(paths.key),
  ]);
  if (pem === null || key === null) return "absent";
  const facts = await host.tls.inspect(pem, { name: address, key, issuer: authority });
  if (typeof facts === "string") return facts;
  if (facts.isOfKey !== true) return `${paths.key} is not its key`;
  if (facts.isOfIssuer !== true) return "it is not of this CA";
  if (!facts.coversName) return `it is not for ${address}`;
  const ends = facts.validTo.toISOString().slice(0, 10);
  return endsSoon(facts.validTo, host.clock.now()) ? `it ends on ${ends}` : null;
}

async function findOpen({ files }: HostReader, paths: readonly string[]): Promise<readonly string[]> {
  const stats = await Promise.all(paths.map((path) => files.stat(path)));
  return paths.filter((_, index) => ((stats[index]?.mode ?? 0) & 0o077) !== 0);
}

async function apply({ kind, path }: TlsChange, host: Host, context: MasterContext): Promise<void> {
  const paths = pathsOf(context.layout);
  if (kind === "restrict-key") return await host.files.chmod(path, 0o600);
  if (kind === "write-rules") return await host.files.writeAtomic(path, RULES, { mode: 0o644 });
  const values = await readValues(host, context);
  if (kind === "make-authority") {
    const name = `fula-node database of pool ${values("CLUSTERNAME") ?? "fula"}`.slice(0, 64);
    const key = await keyAt(host, paths.authorityKey);
    const made = await host.certificates.makeAuthority(name, key, validityOf(host, AUTHORITY_DAYS));
    return await host.files.writeAtomic(path, made, { mode: 0o644 });
  }
  const [certificate, authorityKey] = await Promise.all([
    host.files.readText(paths.authority),
    host.files.readText(paths.authorityKey),
  ]);
  const address = postgresBindOf(values);
  if (certificate === null || authorityKey === null || address === null)
    throw new OperatorError({
      exit: "interrupted",
      what: `The CA in ${context.layout.postgresTlsDir} changed during this run.`,
      remedy: "Run again.",
    });
  const made = await host.certificates.makeServerCertificate(
    { certificate, key: authorityKey },
    [address, "127.0.0.1"],
    await keyAt(host, paths.key),
    validityOf(host, CERTIFICATE_DAYS),
  );
  await host.files.writeAtomic(path, made, { mode: 0o644 });
}

/** The key in that file. If there is none, a new one is written there. */
async function keyAt({ files, certificates }: Host, path: string): Promise<string> {
  const present = await files.readText(path);
  if (present !== null && (await certificates.isKey(present))) return present;
  const key = await certificates.makeKey();
  await files.writeAtomic(path, key, { mode: 0o600 });
  return key;
}

function endsSoon(end: Date, now: Date): boolean {
  return end.getTime() - now.getTime() <= RENEW_DAYS * DAY_MS;
}

function validityOf({ clock }: Pick<HostReader, "clock">, days: number) {
  const now = clock.now();
  const after = (some: number) => new Date(now.getTime() + some * DAY_MS);
  return { from: after(-EARLIER_DAYS), until: after(days) };
}
