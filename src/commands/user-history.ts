import { accountExists } from "../accounts/decisions.ts";
import { type HistoryLine, listHistory } from "../accounts/history.ts";
import type { VerbExit } from "../errors.ts";
import { countOf } from "../units.ts";
import type { World } from "../world.ts";
import { noAccount, quoted, readAccount, usage, withAccounts } from "./user.ts";

/** The flags of `user history`. */
export interface HistoryFlags {
  readonly baseDir?: string;
  readonly email?: string;
  readonly account?: string;
  readonly after?: string;
  readonly limit?: string;
}

const DEFAULT_PAGE = "100";
const MAX_PAGE = 1_000;
const MAX_INTEGER = 2_147_483_647;

/** `user history --email E [--limit N] [--after LINE]`: what changed the balance of an account, the newest first. */
export async function userHistory(flags: HistoryFlags, world: World): Promise<VerbExit> {
  const { after, limit = DEFAULT_PAGE } = flags;
  const account = readAccount(flags);
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_PAGE)
    throw usage(
      `--limit is ${quoted(limit)}; it must be a whole number from 1 to ${MAX_PAGE}.`,
      `Pass a number of lines, such as --limit ${DEFAULT_PAGE}.`,
    );
  if (after !== undefined && !(/^-?[1-9][0-9]{0,9}$/.test(after) && Math.abs(Number(after)) <= MAX_INTEGER))
    throw noLine(after);
  const found = await withAccounts(flags, world, async ({ database }) => {
    const [row] = await database.query<{ there: boolean }>(
      `SELECT ${accountExists("$1::varchar")} AS there`,
      [account],
    );
    if (row?.there !== true) throw noAccount(flags);
    const page = { after: after === undefined ? null : Number(after), limit: Number(limit) + 1 };
    return listHistory(database, account, page);
  });
  if (found === null) throw noLine(after ?? "");
  const shown = found.slice(0, Number(limit));
  const next = found.length > shown.length ? (shown.at(-1)?.id ?? null) : null;
  world.reporter.result({
    data: { verb: "user history", account, lines: shown, next },
    lines: [
      shown.length === 0
        ? "Nothing has changed the balance of this account."
        : `${next === null ? "" : "The newest "}${countOf(shown.length, "line")} of ${account}:`,
      ...world.reporter.table(shown.map((line) => [line.created, describe(line)])),
      ...(next === null ? [] : ["More: the same command with", `  --after ${next}`]),
    ],
  });
  return "ok";
}

function describe({ type, fula, balanceAfter, reference, freeBytes, fulaPerGibMonth }: HistoryLine): string {
  const gib = Number(fula) * (-720 / Number(fulaPerGibMonth ?? 0));
  const tariff =
    freeBytes === null || fulaPerGibMonth === null
      ? ""
      : `; ${Number.isFinite(gib) ? `about ${Number(gib.toPrecision(6))} GiB ` : ""}above ${freeBytes} free bytes, at ${fulaPerGibMonth} FULA for a GiB and month`;
  return `${type ?? "unknown"} ${fula} FULA, then ${balanceAfter ?? "unknown"} FULA, ${reference ?? "no reference"}${tariff}`;
}

function noLine(given: string) {
  return usage(
    `The account has no line ${quoted(given)}.`,
    "Pass the number that the page before has at its end.",
  );
}
