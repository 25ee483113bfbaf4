import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { once } from "node:events";

/** How a stand-in server answers. It may also send nothing, or close the connection. */
export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** A server that gives the answers of a test, and records the requests. */
export interface StandIn {
  readonly url: string;
  answer: Answer;
  /** `METHOD PATH`, in order. */
  readonly asked: string[];
  readonly authorizations: (string | undefined)[];
  close(): Promise<void>;
}

/** Starts one on a free port of the loopback interface. */
export async function startStandIn(answer: Answer): Promise<StandIn> {
  const asked: string[] = [];
  const authorizations: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    authorizations.push(request.headers.authorization);
    standIn.answer(request, response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const standIn: StandIn = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answer,
    asked,
    authorizations,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return standIn;
}

/** Reads the request, then answers with this status and body. */
export function answering(status: number, body: unknown): Answer {
  return (request, response) => {
    request.resume().once("end", () => {
      response.writeHead(status).end(typeof body === "string" ? body : JSON.stringify(body));
    });
  };
}

/** Reads the request and never answers. */
export const silent: Answer = (request) => void request.resume();

/** Closes the connection instead of answering. */
export const hangingUp: Answer = (request) => void request.socket.destroy();
