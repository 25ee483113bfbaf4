import { readFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";

const SERVICES = [
  ["webui.yml", "webui", "WEBUI_PORT"],
  ["pinning-api.yml", "pinning-api", "PORT"],
  ["ingest.yml", "ingest", "INGEST_PORT"],
] as const;

/** The script that Docker runs in the container, as Compose hands it on. */
function scriptOf(file: string, service: string): string {
  const text = readFileSync(new URL(`../../compose/${file}`, import.meta.url), "utf8");
  const { services } = parse(text) as {
    readonly services: Readonly<
      Record<string, { readonly healthcheck?: { readonly test: readonly string[] } }>
    >;
  };
  const [kind, program, flag, script = ""] = services[service]?.healthcheck?.test ?? [];
  expect([kind, program, flag]).toEqual(["CMD", "node", "-e"]);
  return script.replaceAll("$$", "$");
}

/** How the healthcheck ends where this answers on the service's port. */
async function check(script: string, portKey: string, answer: RequestListener): Promise<number | undefined> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  try {
    const env = { [portKey]: String(port), INGEST_BIND: "0.0.0.0" };
    return (await execa(process.execPath, ["-e", script], { env, reject: false })).exitCode;
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

describe.each(SERVICES)("the healthcheck of %s", (file, service, portKey) => {
  const script = scriptOf(file, service);
  const says =
    (status: number, body: string): RequestListener =>
    (_request, response) =>
      response.writeHead(status).end(body);

  test("is good where the service says that it works", async () => {
    expect(await check(script, portKey, says(200, '{"status":"ok","version":"1.0.0","checks":{}}\n'))).toBe(
      0,
    );
  });

  test("is bad where it says that it does not", async () => {
    expect(await check(script, portKey, says(503, '{"status":"degraded","checks":{}}\n'))).toBe(1);
    expect(await check(script, portKey, says(503, '{"status":"ok","kubo":false}\n'))).toBe(1);
  });

  test("is bad where another program answers on its port", async () => {
    expect(await check(script, portKey, says(200, ""))).toBe(1);
    expect(await check(script, portKey, says(200, "<html>ok</html>"))).toBe(1);
  });

  test("is bad where the answer is cut off, and where nobody answers", async () => {
    const cut: RequestListener = (_request, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write('{"status":"ok"', () => response.destroy());
    };
    expect(await check(script, portKey, cut)).toBe(1);
    expect(await check(script, portKey, (request) => request.socket.destroy())).toBe(1);
  });
});
