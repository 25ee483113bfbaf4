import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { onTestFinished } from "vitest";
import { TRANSFER_TOPIC } from "../../src/billing/transfer.ts";
import { TOKEN } from "./fake-chain.ts";
import { until } from "./migrations.ts";
import { freePort } from "./free-port.ts";

/** A real EVM chain on this machine. */
export interface Anvil {
  readonly url: string;
  /** Sends one transaction, in a block of its own, with several transfers. Returns its hash. */
  pay(
    transfers: readonly { readonly from: string; readonly to: string; readonly units: bigint }[],
  ): Promise<string>;
  mine(blocks: number): Promise<void>;
  head(): Promise<number>;
  /** Replaces the newest blocks by empty ones. */
  reorganise(depth: number): Promise<void>;
}

const require = createRequire(import.meta.url);

/** The program of npm's package, or why there is none. */
export function findAnvil(): { readonly program: string } | string {
  const name = `@foundry-rs/anvil-linux-${process.arch === "x64" ? "amd64" : process.arch}`;
  try {
    const own = createRequire(require.resolve("@foundry-rs/anvil/package.json"));
    return { program: own.resolve(`${name}/package.json`).replace(/package\.json$/, "bin/anvil") };
  } catch {
    return `${name} is not installed`;
  }
}

/**
 * A contract that emits Transfer(from, to, value) for each 96 bytes of its call data, as a token does that is asked for
 * several transfers in one transaction.
 */
const CODE = [
  "6000", // PUSH1 0: where the next transfer begins
  "5b", // JUMPDEST (2)
  "803611", // is it before the end of the data?
  "15604557", // else jump to the end (0x45)
  "8060400135600052", // the value goes to the memory
  "80602001358135", // to, from
  `7f${TRANSFER_TOPIC.slice(2)}`,
  "60206000a3", // LOG3
  "606001", // the next transfer
  "600256", // JUMP 2
  "5b00", // JUMPDEST (0x45), STOP
].join("");

/** Starts it with the token's contract at TOKEN. It ends with the test. */
export async function startAnvil(program: string, chainId = 8_453): Promise<Anvil> {
  const port = await freePort();
  const child = spawn(program, ["--port", String(port), "--chain-id", String(chainId)], { stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const url = `http://127.0.0.1:${port}`;
  const ask = async <Result>(method: string, ...params: readonly unknown[]): Promise<Result> => {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const answer = await fetch(url, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" },
    });
    const { result, error } = (await answer.json()) as { result: Result; error?: { message: string } };
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result;
  };
  await until("anvil answers", () =>
    ask("eth_chainId").then(
      () => true,
      () => false,
    ),
  );
  const [sender] = await ask<readonly string[]>("eth_accounts");
  await ask("anvil_setCode", TOKEN, `0x${CODE}`);
  const word = (text: string): string => text.replace(/^0x/, "").padStart(64, "0");
  return {
    url,
    async pay(transfers) {
      const data = transfers.map(({ from, to, units }) => word(from) + word(to) + word(units.toString(16)));
      const hash = await ask<string>("eth_sendTransaction", {
        from: sender,
        to: TOKEN,
        data: `0x${data.join("")}`,
      });
      await until(
        "the transaction is in a block",
        async () => (await ask("eth_getTransactionReceipt", hash)) !== null,
      );
      return hash;
    },
    mine: async (blocks) => void (await ask("anvil_mine", `0x${blocks.toString(16)}`)),
    head: async () => Number(await ask<string>("eth_blockNumber")),
    reorganise: async (depth) => void (await ask("anvil_reorg", depth, [])),
  };
}
