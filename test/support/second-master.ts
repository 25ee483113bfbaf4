import { SHARED_SECRETS } from "../../src/federation/master-invite.ts";
import { fulaNode } from "./artifact.ts";
import type { Box, ExecResult } from "./box.ts";
import { expectExit, readEnv, rejoin } from "./master-box.ts";
import { PRIVATE_NETWORK } from "./storage-boxes.ts";

/** The join of a second master with its writer. */
export function joinSecond(second: Box, args: readonly string[] = []): Promise<ExecResult> {
  return fulaNode(second, ["join-as-master", "--yes", "--provision-writer", ...args]);
}

/** Opens the first master's database to others, and makes the other box a master of its pool, which nobody trusts yet. */
export async function bringSecond(first: Box, second: Box): Promise<void> {
  expectExit(await rejoin(first, ["--set", `POSTGRES_BIND=${await first.address()}`]), 0);
  const made = await fulaNode(first, ["invite", "create", "--master", "--json"]);
  expectExit(made, 0);
  const { token, fingerprint } = JSON.parse(made.stdout) as { token: string; fingerprint: string };
  const env = await readEnv(first);
  for (const key of SHARED_SECRETS) await second.writeFile(`/root/for-master/${key}`, env[key] ?? "", 0o600);
  const files = SHARED_SECRETS.flatMap((key) => ["--set-file", `${key}=/root/for-master/${key}`]);
  expectExit(
    await joinSecond(second, ["--invite", token, "--fingerprint", fingerprint, ...PRIVATE_NETWORK, ...files]),
    0,
  );
}
