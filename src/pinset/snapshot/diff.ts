import { describeDifferences, readWholePin, type WholePin } from "../../cluster/pin.ts";
import type { ExitName } from "../../errors.ts";
import { MARKS } from "../marks.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { compare, eachMarked, type PinsetSource } from "./verify.ts";

/** One pin in which two pinsets differ. */
export interface PinDifference {
  readonly kind: "only-left" | "only-right" | "differs";
  readonly cid: string;
  readonly name: string;
  /** What differs, if both pinsets have the pin: `name: "a" -> "b"`. */
  readonly changes: readonly string[];
}

/** How two pinsets differ. */
export interface PinsetDiff {
  /** `pending` if they differ. */
  readonly exit: ExitName;
  readonly left: string;
  readonly right: string;
  readonly onlyLeft: number;
  readonly onlyRight: number;
  readonly differing: number;
  readonly same: number;
  /** At most `limit` pins of each kind. */
  readonly examples: readonly PinDifference[];
}

/** Compares two pinsets and gives up to `limit` examples of each kind of difference. */
export async function diffPinsets(
  left: PinsetSource,
  right: PinsetSource,
  options: { readonly workspace: PinsetWorkspace; readonly limit: number },
): Promise<PinsetDiff> {
  const { workspace, limit } = options;
  const match = await compare(left, right, workspace);
  const onlyLeft = match.left.count(MARKS.missing);
  const onlyRight = match.right.count(MARKS.missing);
  const differing = match.left.count(MARKS.differs) + match.left.count(MARKS.blocked);
  const examples: PinDifference[] = [];
  const before = new Map<string, WholePin>();

  const oneSided = { left: 0, right: 0 };
  await eachMarked(left, match.left, [MARKS.missing, MARKS.differs, MARKS.blocked], (line, mark) => {
    const pin = readWholePin(JSON.parse(line));
    if (pin === null) return;
    if (mark !== MARKS.missing && before.size < limit) before.set(pin.cid, pin);
    if (mark === MARKS.missing && oneSided.left++ < limit) examples.push(toOneSided("only-left", pin));
  });
  await eachMarked(right, match.right, [MARKS.missing, MARKS.differs, MARKS.blocked], (line, mark) => {
    if (mark === MARKS.missing && oneSided.right >= limit) return;
    const pin = readWholePin(JSON.parse(line));
    if (pin === null) return;
    if (mark === MARKS.missing && oneSided.right++ < limit) examples.push(toOneSided("only-right", pin));
    const old = before.get(pin.cid);
    if (mark === MARKS.missing || old === undefined) return;
    const changes = describeDifferences(old.options, pin.options);
    examples.push({ kind: "differs", cid: pin.cid, name: pin.options.name, changes });
  });
  return {
    exit: onlyLeft + onlyRight + differing > 0 ? "pending" : "ok",
    left: left.title,
    right: right.title,
    onlyLeft,
    onlyRight,
    differing,
    same: match.left.size - onlyLeft - differing,
    examples,
  };
}

function toOneSided(kind: "only-left" | "only-right", { cid, options }: WholePin): PinDifference {
  return { kind, cid, name: options.name, changes: [] };
}
