import { randomUUID } from "node:crypto";
import { createClient, http } from "viem";
import * as z from "zod";
import { messageOf } from "../errors.ts";
import { AnswerTooLong, HttpClient, HttpFailure, parseJson, readWhole } from "../machine/http-client.ts";
import { proxyFor } from "../machine/proxy.ts";
import { wordsFor } from "./rpc-words.ts";
import { ChainFault, QUANTITY } from "./transfer.ts";

/** One question to a node of a chain. */
export interface Question {
  readonly method: string;
  readonly params: readonly unknown[];
}

/** A node of a chain, or several behind one address. */
export interface JsonRpc {
  /**
   * Asks several questions in one request, which one node answers. Throws a ChainFault if the answer to any of them is not
   * usable.
   */
  ask(questions: readonly Question[]): Promise<readonly unknown[]>;
  close(): void;
}

const MAX_ANSWER_BYTES = 8 * 1024 ** 2;

/** How an endpoint is asked. */
export interface RpcOptions {
  readonly answerMs: number;
  /** How many questions go in one request. */
  readonly batch: number;
  readonly stop: AbortSignal | undefined;
  /** RPC_PROXY_URL. An endpoint on this machine is reached without it. */
  readonly proxy: string | null;
}

/** Opens a JSON-RPC endpoint: viem asks, over this program's own HTTP client, which limits time and size of an answer. */
export function openJsonRpc(url: string, { answerMs, batch, stop, proxy }: RpcOptions): JsonRpc {
  const { origin, pathname, search, username, password } = new URL(url);
  const login = decodeURIComponent(`${username}:${password}`);
  const headers = {
    "content-type": "application/json",
    accept: "application/json",
    ...(username === "" ? {} : { authorization: `Basic ${Buffer.from(login).toString("base64")}` }),
  };
  const words = wordsFor(url);
  const client = new HttpClient({
    url: origin,
    connections: 2,
    connectTimeoutMs: answerMs,
    signal: stop,
    proxy: proxy === null ? null : proxyFor(url, { ALL_PROXY: proxy }),
  });
  const send = (body: string) => {
    const request = { method: "POST", path: pathname + search, headers, body: Buffer.from(body) } as const;
    return client.exchange(request, readWhole(MAX_ANSWER_BYTES), answerMs);
  };
  const answersOne = async (): Promise<boolean> => {
    const { text } = await send('{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}');
    return ONE_ANSWER.safeParse(parseJson(text)).success;
  };
  const post = async (body: string): Promise<unknown> => {
    const { status, text } = await send(body);
    const answer = parseJson(text);
    // An error of JSON-RPC may come with any status.
    if (Array.isArray(answer)) return answer;
    const { error } = REFUSAL.safeParse(answer).data ?? {};
    const says =
      error === undefined
        ? status === 200
          ? "it answers with something that is not a list of JSON-RPC answers"
          : `it answers with the HTTP status ${status}`
        : `it refuses the request: ${words(error.message)} (${error.code})`;
    const isTooMuch = error === undefined && status === 413;
    const hint =
      !isTooMuch && (await answersOne()) ? "; single questions it answers: it may not take batches" : "";
    throw new ChainFault(says + hint, { isTooMuch, lasts: error === undefined && LASTING.has(status) });
  };
  // viem joins questions of one address in one request, whatever client they come from.
  const transport = http(`http://${randomUUID()}.invalid`, {
    batch: { batchSize: batch, wait: 0 },
    retryCount: 0,
    timeout: 2 * answerMs,
    fetchFn: async (_url, init) => Response.json(await post(typeof init?.body === "string" ? init.body : "")),
  });
  const request = createClient({ transport }).request as (question: Question) => Promise<unknown>;
  return {
    async ask(questions) {
      const answers = await Promise.allSettled(questions.map((question) => request(question)));
      return answers.map((answer, n) => {
        if (answer.status === "fulfilled") return answer.value;
        throw faultOf(answer.reason, questions[n]?.method ?? "", words);
      });
    },
    close: () => client.close(),
  };
}

const ONE_ANSWER = z.object({ result: QUANTITY });
const REFUSAL = z.object({ error: z.object({ code: z.number(), message: z.string() }) });

/** The address or its key is wrong. */
const LASTING: ReadonlySet<number> = new Set([401, 403, 404, 405, 410]);

/** What went wrong, without the address. */
function faultOf(thrown: unknown, method: string, words: (text: string) => string): ChainFault {
  for (let cause: unknown = thrown; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ChainFault) return cause;
    if (cause instanceof AnswerTooLong)
      return new ChainFault(`its answer is longer than ${MAX_ANSWER_BYTES / 1024 ** 2} MiB`, {
        isTooMuch: true,
        cause,
      });
    if (cause instanceof HttpFailure)
      return new ChainFault(`it does not answer: ${words(messageOf(cause))}`, { cause });
    const { code } = cause as { readonly code?: unknown };
    if (cause.name === "RpcRequestError" && typeof code === "number") {
      const says = "details" in cause && typeof cause.details === "string" ? cause.details : "";
      return new ChainFault(`it refuses ${method}: ${words(says)} (${code})`, {
        // Nodes have no common code for a range that is too long. One that is asked too often is left alone.
        isTooMuch: method === "eth_getLogs" && !/\brate\b|too many requests/i.test(says),
        cause,
      });
    }
  }
  return new ChainFault("it does not answer as a JSON-RPC node does", { cause: thrown });
}
