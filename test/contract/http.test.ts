import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createNetServer } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { afterEach, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { http, type HttpReader } from "../../src/machine/http.ts";
import { FakeHost } from "../support/fake-host.ts";

const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** A server on a port of its own; its address. */
function serve(handle: (request: IncomingMessage, answer: ServerResponse) => void): Promise<string> {
  const server = createServer(handle);
  servers.push(server);
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(`http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`);
    });
  });
}

it("a TLS connection that fails is told in a few words, and with what may have changed at a master", async () => {
  const server = createTlsServer({}, () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const address = server.address();
  const url = `https://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  try {
    const asked = http.json(`${url}/api/v1/pool`, { isRemote: true });
    await expect(asked).rejects.toMatchObject({
      exit: "unavailable",
      what: expect.stringMatching(/^TLS with https:\/\/127\.0\.0\.1:\d+ failed: [a-z0-9 /]+\.$/) as string,
      why: "The address, the CA or the certificate of the master may have changed.",
      remedy: expect.stringContaining("Ask its operator for a new invite") as string,
    });
    await expect(http.json(url)).rejects.toMatchObject({ remedy: undefined });
  } finally {
    server.close();
  }
});

/** A port on which nothing listens. */
async function deadAddress(): Promise<string> {
  const server = createNetServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
}

const answers = {
  "/ok": [200, '{"a":1}'],
  "/broken": [503, '{"status":"ok","kubo":false}'],
  "/html": [200, "<p>"],
} as const;

const subjects: readonly (readonly [
  string,
  () => Promise<{ readonly reader: HttpReader; readonly base: string }>,
])[] = [
  [
    "the fake",
    async () => {
      const host = new FakeHost();
      for (const [path, [status, text]] of Object.entries(answers)) {
        host.http.routes.set(`http://there${path}`, {
          status,
          body: path === "/html" ? null : JSON.parse(text),
        });
      }
      host.http.streams.set("http://there/lines", 3);
      return { reader: host.http, base: "http://there" };
    },
  ],
  [
    "the real one",
    async () => {
      const base = await serve((request, answer) => {
        if (request.url === "/lines") return answer.end('{"a":1}\n{"a":2}\n{"a":3}\n');
        const [status, text] = answers[request.url as keyof typeof answers];
        return answer.writeHead(status).end(text);
      });
      return { reader: http, base };
    },
  ],
];

describe.each(subjects)("http: %s", (_name, make) => {
  it("gives status and body, whatever the status is", async () => {
    const { reader, base } = await make();
    expect(await reader.json(`${base}/ok`)).toEqual({ status: 200, body: { a: 1 } });
    expect(await reader.json(`${base}/broken`)).toEqual({ status: 503, body: { status: "ok", kubo: false } });
    expect(await reader.json(`${base}/html`)).toEqual({ status: 200, body: null });
    expect(await reader.countLines(`${base}/lines`, { timeoutMs: 5000 })).toEqual({
      lines: 3,
      complete: true,
    });
  });

  it("gives null where nobody is", async () => {
    const { reader } = await make();
    const nobody = await deadAddress();
    expect(await reader.json(`${nobody}/ok`)).toBeNull();
    expect(await reader.countLines(`${nobody}/ok`, { timeoutMs: 5000 })).toBeNull();
  });
});

describe("http: what only the real one can meet", () => {
  it("sends the method and the password it is given", async () => {
    const seen: unknown[] = [];
    const base = await serve((request, answer) => {
      seen.push([request.method, request.headers.authorization]);
      answer.end("{}");
    });
    await http.json(`${base}/api/v0/id`, { method: "POST", basicAuth: "me:pä:ss" });
    await http.json(base);
    expect(seen).toEqual([
      ["POST", `Basic ${Buffer.from("me:pä:ss").toString("base64")}`],
      ["GET", undefined],
    ]);
  });

  it("gives the status of a body that is too long, and no body", async () => {
    const base = await serve((_request, answer) =>
      answer.writeHead(203).end(JSON.stringify("x".repeat(100))),
    );
    expect(await http.json(base, { maxBytes: 100 })).toEqual({ status: 203, body: null });
    expect(await http.json(base, { maxBytes: 102 })).toEqual({ status: 203, body: "x".repeat(100) });
  });

  it("counts as nobody: silence, silence in the middle, a connection that breaks", async () => {
    const silent = await serve(() => {});
    expect(await http.json(silent, { timeoutMs: 50 })).toBeNull();
    const slow = await serve((_request, answer) => void answer.write('{"a":'));
    expect(await http.json(slow, { timeoutMs: 50 })).toBeNull();
    const broken = await serve((_request, answer) => answer.destroy());
    expect(await http.json(broken)).toBeNull();
    expect(await http.json("http://no-such-host.invalid/")).toBeNull();
  });

  it("says why there is no answer, to who wants to know it", async () => {
    const why = async (url: string, timeoutMs = 5_000) => {
      const said: string[] = [];
      expect(await http.json(url, { timeoutMs, onNoAnswer: (reason) => void said.push(reason) })).toBeNull();
      return said.join();
    };
    expect(await why(await deadAddress())).toContain("the connection is refused");
    expect(await why("http://no-such-host.invalid/")).toMatch(/host name/);
    expect(await why(await serve(() => {}), 50)).toBe("no answer within 0.05 s");
  });

  it("throws where something answers that is no HTTP, or the address is none", async () => {
    const server = createNetServer((socket) => {
      socket.on("error", () => {});
      socket.resume().end("SSH-2.0-OpenSSH\r\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : 0;
    await expect(http.json(`http://127.0.0.1:${port}/`)).rejects.toMatchObject({ exit: "unavailable" });
    await new Promise((resolve) => server.close(resolve));
    for (const bad of ["", "/api", "ftp://x", "http://"]) {
      await expect(http.json(bad)).rejects.toBeInstanceOf(OperatorError);
    }
    await expect(http.json("ftp://me:hunter2@x/")).rejects.toMatchObject({
      why: "It is ftp://<redacted>@x/.",
    });
  });

  it("counts what came before the time was up or the stream broke, and says it is not all", async () => {
    const endless = await serve((_request, answer) => void answer.write("1\n2\n3"));
    expect(await http.countLines(endless, { timeoutMs: 2_000 })).toEqual({ lines: 2, complete: false });
    const cut = await serve((_request, answer) => {
      answer.write("1\n");
      setImmediate(() => answer.destroy());
    });
    expect(await http.countLines(cut, { timeoutMs: 5000 })).toMatchObject({ complete: false });
    const unended = await serve((_request, answer) => answer.end("1\n2"));
    expect(await http.countLines(unended, { timeoutMs: 5000 })).toEqual({ lines: 2, complete: true });
    const empty = await serve((_request, answer) => answer.writeHead(204).end());
    expect(await http.countLines(empty, { timeoutMs: 5000 })).toEqual({ lines: 0, complete: true });
    const refused = await serve((_request, answer) => answer.writeHead(401).end("no\nno\n"));
    expect(await http.countLines(refused, { timeoutMs: 5000 })).toBeNull();
  });
});
