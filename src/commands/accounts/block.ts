import { actorOf, readReason } from "../../accounts/decisions.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import { readInstalledMaster } from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import {
  type BlockedRequest,
  blockContent,
  endRequestsFor,
  listBlocked,
  requestsFor,
  unblockContent,
} from "../../pinning/blocked.ts";
import {
  contentOf,
  type ParsedCid,
  parseCid,
  spellingsOfContent,
  usualSpellingsOf,
} from "../../pinning/content-id.ts";
import { wrap } from "../../ui/text.ts";
import { countOf, visible } from "../../units.ts";
import type { World } from "../../world.ts";

interface BaseFlags {
  readonly baseDir?: string;
}

/** The flags of `block remove`. */
export interface BlockFlags extends BaseFlags {
  readonly reason: string;
}

/** The flags of `block add`. */
export interface AddFlags extends BlockFlags {
  readonly redirect?: boolean;
  readonly unpin?: boolean;
}

/** How many requests a result names. */
const NAMED = 20;

/**
 * `block add CID --reason TEXT [--redirect] [--unpin]`: no account can pin the content any more. Requests that have it
 * already are listed; with `--unpin` they end.
 */
export async function blockAdd(text: string, flags: AddFlags, world: World): Promise<VerbExit> {
  const cid = readCid(text);
  const mode = flags.redirect === true ? "redirect" : "block";
  const decision = decisionOf(cid, flags, world);
  const spellings = spellingsOfContent(cid);
  const done = await withDatabase(flags, world, async (database) => {
    const outcome = await blockContent(database, { ...decision, mode });
    const found = await requestsFor(database, spellings, NAMED);
    return { outcome, found, ended: flags.unpin === true ? await endRequestsFor(database, spellings) : 0 };
  });
  const { outcome, found, ended } = done;
  world.reporter.result({
    data: {
      verb: "block add",
      cid: decision.cid,
      mode,
      changed: outcome !== "unchanged",
      activeRequests: found.count,
      requests: found.requests,
      ended,
    },
    lines: [
      ...wrap(headline(outcome, ended)),
      `  ${decision.cid}`,
      ...wrap("No account can pin it any more, in any spelling of its CID."),
      ...requestLines(found, flags.unpin === true ? ended : null, text),
    ],
  });
  return "ok";
}

function headline(outcome: "added" | "updated" | "unchanged", ended: number): string {
  if (outcome === "added") return "Blocked:";
  if (outcome === "updated")
    return "This was blocked already; now it has the mode and the reason of this run:";
  return ended === 0 ? "Nothing to do: this is blocked already:" : "This was blocked already:";
}

function requestLines(
  { count, requests }: { readonly count: number; readonly requests: readonly BlockedRequest[] },
  ended: number | null,
  cid: string,
): readonly string[] {
  const own =
    "A pin that you made yourself stays: docker exec ipfs_cluster ipfs-cluster-ctl --force-http pin rm CID.";
  if (ended === 0) return wrap(`No active request for it is left. ${own}`);
  if (ended !== null)
    return wrap(
      `Ended ${countOf(ended, "request")} for it: failed, with the reason BLOCKED. The queue unpins it; nodes free the space with their next garbage collection. ${own}`,
    );
  if (count === 0) return [];
  return [
    `${countOf(count, "active request")} for it ${count === 1 ? "stays" : "stay"}:`,
    ...requests.flatMap(({ requestid, account, status }) => [
      `  ${requestid}  ${status}`,
      `      ${account}`,
    ]),
    ...(count > requests.length ? [`  and ${count - requests.length} more`] : []),
    "To end them and unpin the content:",
    `  fula-node block add ${cid} --unpin --reason TEXT`,
    ...wrap(own),
  ];
}

/** `block remove CID --reason TEXT`: ends a block, in whatever spelling it was written. */
export async function blockRemove(text: string, flags: BlockFlags, world: World): Promise<VerbExit> {
  const decision = decisionOf(readCid(text), flags, world);
  const removed = await withDatabase(flags, world, (database) => unblockContent(database, decision));
  world.reporter.result({
    data: { verb: "block remove", cid: decision.cid, changed: removed > 0 },
    lines: [
      removed > 0 ? "No longer blocked:" : "Nothing to do: this is not blocked:",
      `  ${decision.cid}`,
      ...(removed > 0 ? wrap("Requests that failed because of the block stay failed.") : []),
    ],
  });
  return "ok";
}

/** The flags of `block list`. */
export interface BlockListFlags extends BaseFlags {
  readonly after?: string;
  readonly limit?: string;
}

const MAX_PAGE = 1_000;

/** `block list [--after ID] [--limit N]`: what is blocked, in the order in which it was. */
export async function blockList(flags: BlockListFlags, world: World): Promise<VerbExit> {
  const { after = "0", limit = "100" } = flags;
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_PAGE)
    throw usage(`--limit must be a whole number from 1 to ${MAX_PAGE}.`);
  if (!/^[0-9]{1,9}$/.test(after)) throw usage("--after must be the number of an entry.");
  const most = Number(limit);
  const found = await withDatabase(flags, world, (database) =>
    listBlocked(database, { after: Number(after), limit: most + 1 }),
  );
  const entries = found.slice(0, most);
  const next = found.length > most ? (entries.at(-1)?.id ?? null) : null;
  world.reporter.result({
    data: { verb: "block list", entries, next },
    lines: [
      entries.length === 0 ? "Nothing is blocked." : `${countOf(entries.length, "blocked content")}:`,
      ...entries.flatMap(({ cid, mode, reason, blockedBy, created, isEffective }) => {
        const facts = [
          ...(isEffective ? [] : ["has no effect: this is not a CID"]),
          ...(mode === "redirect" ? ["redirect"] : []),
          `since ${created}`,
          ...(blockedBy === null ? [] : [`by ${blockedBy}`]),
          ...(reason === null ? [] : [reason]),
        ].join(", ");
        return [
          `  ${visible(cid, { oneLine: true })}`,
          ...wrap(visible(facts, { oneLine: true }), 74).map((line) => `      ${line}`),
        ];
      }),
      ...(next === null ? [] : [`More: fula-node block list --after ${next}`]),
    ],
  });
  return "ok";
}

function decisionOf(cid: ParsedCid, { reason }: BlockFlags, world: World) {
  // As upstream writes it.
  const text = usualSpellingsOf(cid)[0] ?? cid.text;
  return { cid: text, content: contentOf(cid), reason: readReason(reason), actor: actorOf(world) };
}

function readCid(text: string): ParsedCid {
  const cid = parseCid(text);
  if (cid !== null) return cid;
  throw usage(
    `${JSON.stringify(text.slice(0, 80))} is not a CID.`,
    "Pass the CID alone, without /ipfs/: such as bafy... or Qm...",
  );
}

function usage(what: string, remedy?: string): OperatorError {
  return new OperatorError({ exit: "usage", what, ...(remedy === undefined ? {} : { remedy }) });
}

async function withDatabase<Result>(
  { baseDir }: BaseFlags,
  world: World,
  work: Parameters<typeof withMasterDatabase<Result>>[3],
): Promise<Result> {
  return withMasterDatabase(world, await readInstalledMaster(world, baseDir), "block", work);
}
