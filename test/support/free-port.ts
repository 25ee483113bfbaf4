import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/** Below 32768, from where Linux takes the ports of those who ask for any. */
const FIRST_PORT = 16_384;
/** Files that run at the same time have parts of their own. */
const PARTS = 16;
const PART = (32_768 - FIRST_PORT) / PARTS;
const part = Number(process.env["VITEST_POOL_ID"] ?? 0) % PARTS;
let tried = randomInt(PART);

/** A port of 127.0.0.1 that nobody uses now, and that nobody is given before who asked for it uses it. */
export async function freePort(): Promise<number> {
  for (let left = PART; left > 0; left -= 1) {
    tried = (tried + 1) % PART;
    const port = FIRST_PORT + part * PART + tried;
    if (await isFree(port)) return port;
  }
  throw new Error("no free port");
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch (thrown) {
    if (thrown instanceof Error && "code" in thrown && thrown.code === "EADDRINUSE") return false;
    throw thrown;
  }
  server.close();
  await once(server, "close");
  return true;
}
