import { once } from "node:events";
import { createServer, request as ask } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { openChain } from "../../src/billing/chain-node.ts";
import { startFakeChain } from "../support/fake-chain.ts";

/** A proxy that passes every request on to one port of this machine. With `status`, it refuses them all. */
async function startProxy(toPort: number, status = 200) {
  const seen: { readonly url: string; readonly authorization: string | undefined }[] = [];
  const proxy = createServer((request, response) => {
    seen.push({ url: request.url ?? "", authorization: request.headers["proxy-authorization"] });
    if (status !== 200) {
      response.writeHead(status).end();
      return;
    }
    const path = new URL(request.url ?? "").pathname;
    const passed = ask({ port: toPort, method: "POST", path, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    request.pipe(passed);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  onTestFinished(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return { url: `http://user:pass-word@127.0.0.1:${(proxy.address() as AddressInfo).port}`, seen };
}

const FAR = "http://rpc.invalid/v1/secret-key";

test("an RPC endpoint that only a proxy reaches is asked through it", async () => {
  const node = await startFakeChain();
  const proxy = await startProxy(Number(new URL(node.url).port));
  const chain = openChain(FAR, { answerMs: 2_000, proxy: proxy.url });
  expect(await chain.look(900)).toMatchObject({ chainId: 8_453, head: 1_000 });
  chain.close();
  expect(proxy.seen).toEqual([
    { url: FAR, authorization: `Basic ${Buffer.from("user:pass-word").toString("base64")}` },
  ]);
});

test("an endpoint on this machine is asked directly", async () => {
  const node = await startFakeChain();
  const proxy = await startProxy(1);
  const chain = openChain(node.url, { answerMs: 2_000, proxy: proxy.url });
  expect(await chain.look(900)).toMatchObject({ head: 1_000 });
  chain.close();
  expect(proxy.seen).toEqual([]);
});

test.each([
  ["that refuses", 407, /^it does not answer: Proxy Authentication Required/],
  ["that is not there", null, /^it does not answer: /],
])("a proxy %s is a fault of the scan, without its password or the address", async (_, status, why) => {
  const url = status === null ? "http://user:pass-word@127.0.0.1:1" : (await startProxy(1, status)).url;
  const chain = openChain(FAR, { answerMs: 2_000, proxy: url });
  const fault: unknown = await chain.look(900).catch((thrown: unknown) => thrown);
  chain.close();
  expect((fault as Error).message).toMatch(why);
  expect((fault as Error).message).not.toMatch(/pass-word|secret-key/);
});
