import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { type RequestEntry, watchRequests } from "../../src/services/requests.ts";

test("CONNECT, which asks for a tunnel, is answered 405 in the form of the service, with an id, and logged", async () => {
  const entries: RequestEntry[] = [];
  const server = createServer();
  watchRequests(server, {
    routes: [],
    isOutside: false,
    onRequest: (entry) => void entries.push(entry),
    describeUnread: (reason, details) => ({ error: { reason, details } }),
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.write("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n");
  let text = "";
  socket.on("data", (part: Buffer) => void (text += part.toString()));
  await once(socket, "end");
  socket.destroy();
  expect(text).toMatch(/^HTTP\/1\.1 405 Method Not Allowed\r\n/);
  expect(text).toMatch(/\r\nx-request-id: \S+\r\n/);
  expect(JSON.parse(text.split("\r\n\r\n", 2)[1] ?? "")).toMatchObject({
    error: { reason: "METHOD_NOT_ALLOWED" },
  });
  expect(entries).toMatchObject([{ method: "CONNECT", status: 405 }]);
});
