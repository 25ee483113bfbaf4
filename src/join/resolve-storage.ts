import { OperatorError, type Problem } from "../errors.ts";
import { lookUpName, notInvited } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import { lookUpPool } from "../federation/pool-lookup.ts";
import { findNodeUrlProblem } from "../federation/storage-api-url.ts";
import { storageApiCaOf } from "../federation/storage-context.ts";
import { findContradictions, findTrustDrift, type TrustInfo } from "../federation/trust.ts";
import type { HostReader } from "../host.ts";
import { trusting } from "../machine/http.ts";
import { isPlainHttpElsewhere, onlyPrivateHosts } from "../settings/address.ts";
import { readContainerEnv } from "../settings/context.ts";
import type { EnvFile } from "../settings/env-file.ts";
import type { StorageLayout } from "../settings/layout.ts";
import { RULES } from "../settings/rules.ts";
import { STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import type { Settings } from "../settings/settings.ts";
import { STORAGE_REQUIRED, STORAGE_SETTINGS } from "../settings/storage.ts";
import { ADOPTIONS, findKeptConflicts, takeOverSettings } from "./adopted-services.ts";
import { readAssignments } from "./assignments.ts";
import { refuseOtherKind } from "./installed-node.ts";
import type { JoinDeps, StorageFlags } from "./join-run.ts";
import { checkStorageNode } from "./preflight.ts";
import {
  findUnclearKeys,
  markOffered,
  openStorageSource,
  readSavedSettings,
  type StorageSource,
  warnOfIgnored,
} from "./settings-source.ts";
import { whySilent } from "./silent-docker.ts";

/**
 * Resolves the settings of a storage node from flags, environment, an invite or else the pool API, and `.env`.
 * Throws one error with all problems, preflight included. Also refuses to change the trusted masters without
 * consent. Changes nothing.
 */
export async function resolveStorageNode(
  flags: StorageFlags,
  layout: StorageLayout,
  deps: JoinDeps,
): Promise<Settings> {
  // Without root, Docker can't be read and preflight refuses the run. Problems found before that are still reported.
  const isRoot = deps.host.system.uid() === 0;
  if (isRoot) await refuseOtherKind(deps.host, "storage-node");
  const given = await readAssignments(flags, deps);
  const saved = await readSavedSettings(deps, layout.envFile);
  const source = await openStorageSource(deps, saved);
  const unclear = await findUnclearKeys(deps, saved, "storage-node");
  const { recoverable, recovered } = isRoot
    ? await findRecoverable(deps.host, saved)
    : { recoverable: new Set<string>(), recovered: new Map<string, { readonly value: string }>() };
  refuseOtherPool(given, (key) => source.saved(key) ?? recovered.get(key)?.value, flags);
  const invite = flags.invite === undefined ? null : await readInvite(flags, flags.invite, deps);
  const takeOver = async <Resolved extends { readonly settings: Settings }>(
    resolved: Resolved,
  ): Promise<Resolved> =>
    isRoot
      ? { ...resolved, settings: await adoptSettings(deps, flags, layout, resolved.settings) }
      : resolved;
  const first = await takeOver(source.resolve(merge(invite, given)));
  const contradictions = invite === null ? [] : findContradictions(invite, given);
  const plainHttp = flags.allowHttp ? [] : findPlainHttp(first.settings, source, invite);
  const problems = [...first.problems, ...unclear, ...contradictions, ...plainHttp];
  const missing = findMissing(first, recoverable);
  const areMastersKnown = !missing.some((key) => key.startsWith("MASTER_"));
  const unobtainable = missing.filter((key) => !key.startsWith("MASTER_"));
  const cannotSucceed = problems.length + unobtainable.length > 0;
  if (cannotSucceed || !isRoot) {
    const settings = first.settings;
    const listed = cannotSucceed ? [...problems, ...describeMissing(missing)] : [];
    await checkStorageNode({ deps, layout, settings, ignored: flags.ignore, problems: listed });
  }
  const pool =
    invite === null
      ? await readPool(deps, first.settings, { allowHttp: flags.allowHttp, areMastersKnown })
      : null;
  refuseDrift(invite ?? pool, source, flags);
  const trust = invite ?? withoutGiven(pool, first.settings);
  const resolved = source.resolve(merge(trust, given));
  const offered = {
    values: trust?.values ?? new Map<string, string>(),
    by: invite === null ? "pool API" : "--invite",
  };
  const last = await takeOver({ ...resolved, settings: markOffered(resolved.settings, offered, given) });
  warnOfIgnored(deps, last);
  const remaining = [
    ...last.problems,
    ...describeMissing(findMissing(last, recoverable)),
    ...(isRoot ? await conflictsOfAdopted(deps, flags, layout, last.settings) : []),
  ];
  await checkStorageNode({
    deps,
    layout,
    settings: last.settings,
    ignored: flags.ignore,
    problems: remaining,
  });
  const dials = last.settings.get(PRIVATE_NETWORK);
  const isDecided =
    dials?.value === "true" || dials?.origin === "flag" || recovered.get(PRIVATE_NETWORK)?.value === "true";
  // A refusal comes first: what else there is to say helps nobody then.
  if (flags.register && isRoot) await refuseUnadmitted(deps, last.settings, (key) => source.saved(key));
  if (invite !== null && !isDecided) warnOfPrivate(deps, invite);
  if (!flags.register) await warnOfStorageApi(deps, last.settings);
  return last.settings;
}

/** Why STORAGE_API_URL is of no use; null if it is, or is not set. */
export async function findApiProblem(host: HostReader, settings: Settings): Promise<string | null> {
  const values = (key: string) => settings.get(key)?.value;
  const [url, pool] = [values("STORAGE_API_URL"), values("CLUSTERNAME")];
  if (url === undefined || pool === undefined) return null;
  return findNodeUrlProblem(trusting(host.http, storageApiCaOf(values)), url, pool);
}

/** No directory is asked without a name to register, so nothing else would notice an address that leads nowhere. */
async function warnOfStorageApi(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  settings: Settings,
): Promise<void> {
  const problem = await findApiProblem(host, settings);
  if (problem === null) return;
  const text = `STORAGE_API_URL: ${problem}. Until it does, the ingest can't ask whether an upload is allowed. If the address is wrong: --set STORAGE_API_URL=URL, or a new invite.`;
  reporter.listen({ type: "warning", text });
}

const PRIVATE_NETWORK = "KUBO_PRIVATE_NETWORK";

/** An invite whose addresses are all private, for a node whose kubo would not dial them. */
function warnOfPrivate({ reporter }: Pick<JoinDeps, "reporter">, { values }: TrustInfo): void {
  const hosts = onlyPrivateHosts((values.get("MASTER_CLUSTER_BOOTSTRAP") ?? "").split(","));
  if (hosts === null) return;
  const text = `The invite has private addresses only (${hosts.join(", ")}), and this node's kubo does not connect over them, so no content would arrive. If the node is in that network, run again with --set ${PRIVATE_NETWORK}=true.`;
  reporter.listen({ type: "warning", text });
}

/** The settings, with those of the containers that this run adopts. */
async function adoptSettings(
  deps: JoinDeps,
  { adopt }: StorageFlags,
  layout: StorageLayout,
  settings: Settings,
): Promise<Settings> {
  if (adopt.length === 0) return settings;
  const saved = await readSavedSettings(deps, layout.envFile);
  return takeOverSettings(deps.host, {
    adoption: ADOPTIONS.storage,
    layout,
    adopt: new Set(adopt),
    settings,
    saved,
  });
}

async function conflictsOfAdopted(
  { host }: JoinDeps,
  { adopt }: StorageFlags,
  layout: StorageLayout,
  settings: Settings,
): Promise<readonly Problem[]> {
  if (adopt.length === 0) return [];
  return findKeptConflicts(host, { adoption: ADOPTIONS.storage, layout, adopt: new Set(adopt), settings });
}

/** The keys that the containers still have. While Docker is silent, that may be every one: it is looked at again. */
async function findRecoverable(
  host: HostReader,
  saved: EnvFile & { ok: true },
): Promise<{
  readonly recoverable: ReadonlySet<string>;
  readonly recovered: ReadonlyMap<string, { readonly value: string }>;
}> {
  if ((await whySilent(host)) !== null)
    return { recoverable: new Set(STORAGE_REQUIRED), recovered: new Map() };
  const options = { recoverable: STORAGE_RECOVERABLE, specs: STORAGE_SETTINGS, saved };
  const recovered = await readContainerEnv(host, options);
  return { recoverable: new Set(recovered.keys()), recovered };
}

/**
 * A storage API over plain http to another host: it decides who may upload, uploaders' keys pass through it, and so does
 * the node's invite. A saved address was accepted before, so a repair goes on with it.
 */
function findPlainHttp(
  settings: Settings,
  source: StorageSource,
  invite: TrustInfo | null,
): readonly Problem[] {
  const key = "STORAGE_API_URL";
  const url = settings.get(key)?.value;
  if (url === undefined || !RULES.apiUrl.holds(url) || !isPlainHttpElsewhere(url)) return [];
  if (source.saved(key) === url) return [];
  const from = invite?.values.get(key) === url ? `${invite.source} has ${key}` : `${key} is`;
  return [
    {
      subject: key,
      what: `${from} ${url}, which uses plain http to another host: anyone on the network path could read and change what is sent.`,
      remedy: "Use https://. If you trust the network in between, run again with --allow-http.",
    },
  ];
}

/**
 * Throws (`settings`) if the master would not register this node's name: it manages another pool, or the invite does not
 * hold for this name. The last step would be refused, after everything else was changed. That step also reports a master
 * that does not answer, and a name that another node has.
 */
async function refuseUnadmitted(
  { host }: Pick<JoinDeps, "host">,
  settings: Settings,
  saved: (key: string) => string | undefined,
): Promise<void> {
  const valueOf = (key: string) => settings.get(key)?.value;
  const [pool, name] = [valueOf("CLUSTERNAME"), valueOf("CLUSTER_PEERNAME")];
  const url = valueOf("STORAGE_API_URL")?.replace(/\/+$/, "");
  if (pool === undefined || url === undefined || name === undefined) return;
  const invite = valueOf("NODE_INVITE") ?? null;
  const peerId = (await readNodeIdentity(host))?.peerId ?? null;
  try {
    const http = trusting(
      host.http,
      storageApiCaOf((key) => settings.get(key)?.value),
    );
    const claim = { pool, peerId, invite };
    const { needsInvite, refusal } = await lookUpName(http, url, name, "--no-register", claim);
    // Without a readable key, this node itself may be the one that used its saved invite.
    const isMaybeOwn = peerId === null && invite !== null && invite === saved("NODE_INVITE");
    const isMissing = invite === null && (needsInvite || refusal?.code === "invite-missing");
    if (!isMissing) {
      if (refusal !== null && !(isMaybeOwn && refusal.code === "invite-used")) throw refusal.error;
      return;
    }
  } catch (thrown) {
    if (thrown instanceof OperatorError && thrown.exit === "unavailable") return;
    throw thrown;
  }
  throw notInvited(name, "it registers invited nodes only, and this node has no invite.", "invite-missing");
}

/** Imported only here: most runs have no invite, and zod is slow to load. */
async function readInvite(flags: StorageFlags, invite: string, deps: JoinDeps): Promise<TrustInfo> {
  const { readInviteTrust } = await import("./storage-invite.ts");
  return readInviteTrust({ ...flags, invite }, deps);
}

/** Flags override an invite or a pool: the operator may choose another name than the invite has. */
function merge(trust: TrustInfo | null, given: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map([...(trust?.values ?? []), ...given]);
}

/** Removes values that were given by flag or environment: these override the answer of a pool. */
function withoutGiven(pool: TrustInfo | null, settings: Settings): TrustInfo | null {
  if (pool === null) return null;
  const isNotGiven = (key: string) => ["saved", "default", undefined].includes(settings.get(key)?.origin);
  return { ...pool, values: new Map([...pool.values].filter(([key]) => isNotGiven(key))) };
}

function findMissing(
  { settings, problems }: { readonly settings: Settings; readonly problems: readonly Problem[] },
  recoverable: ReadonlySet<string>,
): readonly string[] {
  const invalid = new Set(problems.map(({ subject }) => subject));
  return STORAGE_REQUIRED.filter((key) => !settings.has(key) && !recoverable.has(key) && !invalid.has(key));
}

function describeMissing(keys: readonly string[]): readonly Problem[] {
  return keys.map((key) => ({
    subject: key,
    what: `${key} is missing.`,
    remedy: `Pass an invite from a master of the pool (--invite), or --set ${key}=VALUE.`,
  }));
}

/** Throws (`drift`) if the invite or the pool differs from `.env`: trusted masters never change without consent. */
function refuseDrift(trust: TrustInfo | null, source: StorageSource, flags: StorageFlags): void {
  if (trust === null || flags.acceptPoolChange) return;
  const problems = findTrustDrift(trust, (key) => source.saved(key));
  if (problems.length === 0) return;
  throw new OperatorError({
    exit: "drift",
    what: `${trust.source} differs from the settings that this node already has.`,
    why: "These settings decide which masters this node trusts, so they are not changed without your consent.",
    remedy:
      "Ask the operators of the masters over another channel (phone, chat). If the change is correct, run again with --accept-pool-change.",
    problems,
  });
}

/** What decides which pool a node's data belongs to. */
const POOL_KEYS = ["CLUSTERNAME", "CLUSTER_SECRET"] as const;

/** Throws (`drift`) if flags would move a node that has data of one pool to another one, without consent. */
function refuseOtherPool(
  given: ReadonlyMap<string, string>,
  current: (key: string) => string | undefined,
  flags: StorageFlags,
): void {
  if (flags.acceptPoolChange) return;
  const values = new Map(POOL_KEYS.flatMap((key) => (given.has(key) ? [[key, given.get(key) ?? ""]] : [])));
  const problems = findTrustDrift({ source: "--set", isSigned: false, values }, current);
  if (problems.length === 0) return;
  throw new OperatorError({
    exit: "drift",
    what: "--set names another pool than the one that this node belongs to.",
    why: "Its ipfs-cluster has the pinset and the trust of that pool, and its name is registered there.",
    remedy:
      "To leave the pool, run fula-node leave, and then join with an invite to the other one. If it is the same pool, and its name or secret has changed, run again with --accept-pool-change.",
    problems,
  });
}

const PUBLIC_POOLS = "https://pools.fx.land/pools";

/**
 * Asks the pool API which masters to trust, if settings are missing or POOL_API is set: a node that once used the
 * pool API notices later changes. The result includes the URL, so that `.env` contains it. Null if there is
 * nothing to ask. A pool that does not answer is an error only if settings are missing.
 */
async function readPool(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  settings: Settings,
  options: { readonly allowHttp: boolean; readonly areMastersKnown: boolean },
): Promise<TrustInfo | null> {
  const name = settings.get("CLUSTERNAME")?.value;
  const given = settings.get("POOL_API")?.value;
  if (given === undefined && (options.areMastersKnown || name === undefined)) return null;
  const url = given ?? `${PUBLIC_POOLS}/${encodeURIComponent(name ?? "")}`;
  try {
    const { trustedPeers, bootstrap } = await lookUpPool(host.http, url, {
      allowHttp: options.allowHttp,
      allowFlag: "--allow-http",
    });
    const count = trustedPeers.length === 1 ? "one master" : `${trustedPeers.length} masters`;
    reporter.note(
      `The pool API ${url} lists ${count} to trust: ${trustedPeers.join(", ")}; bootstrap: ${bootstrap}`,
    );
    return {
      source: `The pool API ${url}`,
      isSigned: false,
      values: new Map([
        ["MASTER_CLUSTER_PEERIDS", trustedPeers.join(",")],
        ["MASTER_CLUSTER_BOOTSTRAP", bootstrap],
        ["POOL_API", url],
      ]),
    };
  } catch (thrown) {
    const isUnavailable = thrown instanceof OperatorError && thrown.exit === "unavailable";
    if (!isUnavailable || !options.areMastersKnown) throw thrown;
    const text = `${thrown.what} The masters in .env stay in use.`;
    reporter.listen({ type: "warning", text });
    return null;
  }
}
