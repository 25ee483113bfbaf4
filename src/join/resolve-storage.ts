import { STORAGE_FRAGMENTS } from "../docker/compose-render.ts";
import { OperatorError, type Problem } from "../errors.ts";
import { lookUpPool } from "../federation/pool-lookup.ts";
import { findContradictions, findTrustDrift, type TrustInfo } from "../federation/trust.ts";
import { readContainerEnv } from "../settings/context.ts";
import type { StorageLayout } from "../settings/layout.ts";
import { STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import type { Settings } from "../settings/settings.ts";
import { STORAGE_REQUIRED, STORAGE_SETTINGS } from "../settings/storage.ts";
import { refuseMaster } from "./installed-node.ts";
import type { JoinDeps, StorageFlags } from "./join-run.ts";
import { checkStorageNode } from "./preflight.ts";
import {
  findUnclearKeys,
  openStorageSource,
  parseAssignments,
  readSavedSettings,
  type StorageSource,
} from "./settings-source.ts";

/**
 * Settles the settings of a storage node: flags and environment, an invite or else the pool API, and what
 * `.env` has. Refuses all that is wrong at once, preflight included, and what would change whom the node
 * obeys. Changes nothing.
 */
export async function resolveStorageNode(
  flags: StorageFlags,
  layout: StorageLayout,
  deps: JoinDeps,
): Promise<Settings> {
  // Without root the engine is shut, and preflight refuses: what can be told until then is told.
  const isRoot = deps.host.system.uid() === 0;
  if (isRoot) await refuseMaster(deps.host);
  const given = parseAssignments(flags.set);
  const saved = await readSavedSettings(deps, layout.envFile);
  const source = await openStorageSource(deps, saved);
  const documents = { specs: STORAGE_SETTINGS, fragments: STORAGE_FRAGMENTS };
  const unclear = await findUnclearKeys(deps, saved, documents);
  const told = new Set(isRoot ? (await readContainerEnv(deps.host, STORAGE_RECOVERABLE)).keys() : []);
  const invite = flags.invite === undefined ? null : await readInvite(flags, flags.invite, deps);
  const first = source.resolve(merge(invite, given));
  const contradictions = invite === null ? [] : findContradictions(invite, given);
  const problems = [...first.problems, ...unclear, ...contradictions];
  const lacking = missingOf(first, told);
  const isKnown = !lacking.some((key) => key.startsWith("MASTER_"));
  const hopeless = lacking.filter((key) => !key.startsWith("MASTER_"));
  const cannotSucceed = problems.length + hopeless.length > 0;
  if (cannotSucceed || !isRoot) {
    const settings = first.settings;
    const listed = cannotSucceed ? [...problems, ...describeMissing(lacking)] : [];
    await checkStorageNode({ deps, layout, settings, ignored: flags.ignore, problems: listed });
  }
  const pool =
    invite === null
      ? await learnFromPool(deps, first.settings, { allowHttp: flags.allowHttpPool, isKnown })
      : null;
  refuseDrift(invite ?? pool, source, flags);
  const last = source.resolve(merge(invite ?? onlyLacking(pool, first.settings), given));
  const open = [...last.problems, ...describeMissing(missingOf(last, told))];
  await checkStorageNode({ deps, layout, settings: last.settings, ignored: flags.ignore, problems: open });
  return last.settings;
}

/** Loaded here: most runs are given no invite, and zod is slow to load. */
async function readInvite(flags: StorageFlags, invite: string, deps: JoinDeps): Promise<TrustInfo> {
  const { learnFromInvite } = await import("./storage-invite.ts");
  return learnFromInvite({ ...flags, invite }, deps);
}

/** Flags go before what was learnt: a name of one's own choice, beside an invite. */
function merge(learnt: TrustInfo | null, given: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map([...(learnt?.values ?? []), ...given]);
}

/** A pool's answer never goes before what this run was given by flag or environment. */
function onlyLacking(pool: TrustInfo | null, settings: Settings): TrustInfo | null {
  if (pool === null) return null;
  const isOpen = (key: string) => ["saved", "default", undefined].includes(settings.get(key)?.origin);
  return { ...pool, values: new Map([...pool.values].filter(([key]) => isOpen(key))) };
}

function missingOf(
  { settings, problems }: { readonly settings: Settings; readonly problems: readonly Problem[] },
  told: ReadonlySet<string>,
): readonly string[] {
  const wrong = new Set(problems.map(({ subject }) => subject));
  return STORAGE_REQUIRED.filter((key) => !settings.has(key) && !told.has(key) && !wrong.has(key));
}

function describeMissing(keys: readonly string[]): readonly Problem[] {
  return keys.map((key) => ({
    subject: key,
    what: `${key} is missing.`,
    remedy: `Give an invite of the pool's master (--invite), or --set ${key}=VALUE.`,
  }));
}

/** Halts where the pool says otherwise than `.env`: whom a node obeys is not changed unasked. */
function refuseDrift(learnt: TrustInfo | null, source: StorageSource, flags: StorageFlags): void {
  if (learnt === null || flags.acceptPoolChange) return;
  const problems = findTrustDrift(learnt, (key) => source.saved(key));
  if (problems.length === 0) return;
  throw new OperatorError({
    exit: "drift",
    what: `${learnt.source} now says otherwise than what this node was told first.`,
    why: "It decides whom this node obeys, so it is not changed unasked.",
    remedy: "Ask the masters' operators by another way; if it is right, run again with --accept-pool-change.",
    problems,
  });
}

const PUBLIC_POOLS = "https://pools.fx.land/pools";

/**
 * Asks the pool API whom to obey: where settings lack it, or where POOL_API is set, since a node that was
 * told by it once notices what it says later. Its address is learnt too, so that it stands in `.env`. Null
 * where nothing is to be asked. A pool that does not answer is an error only where something is lacking.
 */
async function learnFromPool(
  { host, reporter }: Pick<JoinDeps, "host" | "reporter">,
  settings: Settings,
  options: { readonly allowHttp: boolean; readonly isKnown: boolean },
): Promise<TrustInfo | null> {
  const name = settings.get("CLUSTERNAME")?.value;
  const given = settings.get("POOL_API")?.value;
  if (given === undefined && (options.isKnown || name === undefined)) return null;
  const url = given ?? `${PUBLIC_POOLS}/${encodeURIComponent(name ?? "")}`;
  try {
    const { trustedPeers, bootstrap } = await lookUpPool(host.http, url, {
      allowHttp: options.allowHttp,
      allowFlag: "--allow-http-pool",
    });
    const count = trustedPeers.length === 1 ? "one master" : `${trustedPeers.length} masters`;
    reporter.note(
      `The pool API ${url} names ${count} to obey: ${trustedPeers.join(", ")}; found at ${bootstrap}`,
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
    const isAway = thrown instanceof OperatorError && thrown.exit === "unavailable";
    if (!isAway || !options.isKnown) throw thrown;
    const text = `${thrown.what} What .env has stays.`;
    reporter.listen({ type: "warning", text });
    return null;
  }
}
