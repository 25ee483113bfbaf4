import { OperatorError } from "../errors.ts";
import { remedyOfTls, tlsFaultBehind, type trusting } from "../machine/http.ts";
import { visible } from "../units.ts";
import { endless, type NodeFacts, type ReportRow } from "./judge-storage.ts";
import type { Ask } from "./look-at-node.ts";
import { type HttpAnswer, LATE, type Late } from "./part.ts";

/** Asks the storage API as an uploader does. */
export async function askStorageApi(
  http: ReturnType<typeof trusting>,
  url: string,
  ask: Ask,
): Promise<GateAnswer> {
  const options = { timeoutMs: 10_000, isRemote: true, authorization: `Bearer ${NO_KEY}` };
  try {
    return await ask(() => http.json(`${url}/api/v1/storage`, options));
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const tlsFault = tlsFaultBehind(thrown);
    return tlsFault === null ? null : { tlsFault };
  }
}

/** A key that no master has. To refuse it, a storage API must look it up in its database; without a key it would not. */
export const NO_KEY = "fula-node-status";

/** Why uploads can't be checked; null if they can. A storage API that works answers 401 to NO_KEY. */
export function faultOfGate(answer: GateAnswer): string | null {
  if (answer !== LATE && answer !== null && "tlsFault" in answer) return `${TLS_FAILED}${answer.tlsFault}`;
  if (answer === LATE || answer === null) return "does not answer";
  const { status, body } = answer;
  if (status === 401) return null;
  const { error } = (body ?? {}) as { readonly error?: unknown };
  if (typeof error !== "string" || error === "") return `answers ${status}`;
  return `answers ${status} (${visible(error, { oneLine: true }).slice(0, 200)})`;
}

/** An answer of the storage API, or why the TLS connection to it failed. */
export type GateAnswer = HttpAnswer | Late | { readonly tlsFault: string };

const TLS_FAILED = "can't be trusted: ";

function todoOfGate(fault: string): string {
  if (fault.startsWith(TLS_FAILED)) return endless(remedyOfTls(fault));
  return fault.startsWith("answers 5")
    ? "the fault is at the master: ask its operator"
    : "check STORAGE_API_URL, and ask the master's operator";
}

/** The storage API that decides who may upload. */
export function judgeGate({ mode, gate }: NodeFacts["ingest"]): ReportRow {
  const about = "quota gate";
  if (gate.fault === null) return { about, state: "ok", sentence: `${gate.url} answers` };
  const effect = mode === "open" ? "accepts every upload without a quota check" : "refuses every upload";
  const sentence = `${gate.url} ${gate.fault}, so the ingest ${effect}`;
  return {
    about,
    state: "attention",
    sentence,
    todo: todoOfGate(gate.fault),
  };
}
