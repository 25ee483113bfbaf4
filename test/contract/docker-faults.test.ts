import { linkSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createNetServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { chooseApi, DockerApi } from "../../src/docker/docker-api.ts";
import { dockerSocket } from "../../src/docker/docker-endpoint.ts";
import { unframe } from "../../src/docker/docker-logs.ts";
import { splitReference } from "../../src/docker/docker-writer.ts";
import { createDocker } from "../../src/docker/docker.ts";

const directory = mkdtempSync(join(tmpdir(), "fula-node-engine-"));
const servers: Server[] = [];
let made = 0;

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

type Handler = (url: string, answer: ServerResponse, request: IncomingMessage) => void;

const VERSION = { Version: "26.1.5", ApiVersion: "1.45", MinAPIVersion: "1.24" };

/** An engine on a socket of its own that answers /version, and the rest as told. */
function startEngine(handle: Handler, version: object = VERSION): Promise<string> {
  made += 1;
  const socket = join(directory, `${made}.sock`);
  const server = createServer((request, answer) => {
    if (request.url === "/version") answer.end(JSON.stringify(version));
    else handle(request.url ?? "", answer, request);
  });
  servers.push(server);
  return new Promise((resolve) => server.listen(socket, () => resolve(socket)));
}

async function makeDocker(handle: Handler, version?: object) {
  return createDocker({ DOCKER_HOST: `unix://${await startEngine(handle, version)}` });
}

const noReport = () => {};

describe("the engine's address", () => {
  it("is the usual socket, or the one that DOCKER_HOST names", () => {
    expect(dockerSocket(undefined)).toBe("/var/run/docker.sock");
    expect(dockerSocket("")).toBe("/var/run/docker.sock");
    expect(dockerSocket("unix:///run/user/1000/docker.sock")).toBe("/run/user/1000/docker.sock");
  });

  it.each(["tcp://10.0.0.1:2375", "ssh://me@there", "unix://relative", "fd://"])("%s is refused", (host) => {
    expect(() => createDocker({ DOCKER_HOST: host })).toThrow(OperatorError);
  });
});

describe("the API version", () => {
  it("is the newest that both sides know", () => {
    expect(chooseApi("1.41", "1.12")).toBe("1.41");
    expect(chooseApi("1.44", "1.24")).toBe("1.44");
    expect(chooseApi("1.52", "1.40")).toBe("1.44");
    expect(chooseApi("1.60", "1.50")).toBe("1.50");
  });

  it("is asked once, and again after a failure", async () => {
    const urls: string[] = [];
    let broken = true;
    const socket = await startEngine((url, answer) => {
      urls.push(url);
      answer.end("[]");
    });
    servers[0]?.removeAllListeners("request");
    servers[0]?.on("request", (request: IncomingMessage, answer: ServerResponse) => {
      urls.push(request.url ?? "");
      if (request.url !== "/version") return answer.end("[]");
      if (!broken) return answer.end(JSON.stringify({ ...VERSION, ApiVersion: "1.41" }));
      broken = false;
      return answer.writeHead(500).end('{"message":"starting"}');
    });
    const api = new DockerApi(socket);
    await expect(api.json({ path: "/containers/json" })).rejects.toMatchObject({ why: "starting" });
    await api.json({ path: "/containers/json" });
    await api.json({ path: "/containers/json", query: { all: "1" } });
    expect(urls).toEqual(["/version", "/version", "/v1.41/containers/json", "/v1.41/containers/json?all=1"]);
  });
});

describe("an engine that does not do as asked", () => {
  it("refused connection: there is none", async () => {
    const socket = join(directory, "dead.sock");
    const server = createNetServer();
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const file = `${socket}.kept`;
    linkSync(socket, file);
    await new Promise((resolve) => server.close(resolve));
    const docker = createDocker({ DOCKER_HOST: `unix://${file}` });
    expect(await docker.version()).toBeNull();
    expect(await docker.unreachable()).toBe(`connection refused at ${file}`);
  });

  it("an error answer is an error, not an absence", async () => {
    const docker = await makeDocker((_url, answer) => answer.writeHead(500).end('{"message":"no luck"}'));
    for (const look of [docker.containers(), docker.container("x"), docker.image("x"), docker.version()]) {
      await expect(look).rejects.toMatchObject({ exit: "unavailable", why: "no luck" });
    }
  });

  it("an answer that is no JSON is an error", async () => {
    const docker = await makeDocker((_url, answer) => answer.end("<html>"));
    await expect(docker.containers()).rejects.toMatchObject({ why: "the answer is no JSON" });
  });

  it("an answer that breaks off is an error", async () => {
    const docker = await makeDocker((_url, answer) => {
      answer.write('[{"Id":');
      setImmediate(() => answer.destroy());
    });
    await expect(docker.containers()).rejects.toMatchObject({ exit: "unavailable" });
  });

  it("silence is borne for so long only, before and within an answer", async () => {
    const api = new DockerApi(await startEngine((_url, answer) => answer.on("error", noReport)));
    await expect(api.json({ path: "/x", idleMs: 50 })).rejects.toMatchObject({
      why: expect.stringContaining("no sign of life"),
    });
    const slow = new DockerApi(await startEngine((_url, answer) => void answer.write('{"a":')));
    await expect(slow.json({ path: "/x", idleMs: 50 })).rejects.toMatchObject({
      why: expect.stringContaining("no sign of life"),
    });
  });

  it("a kept connection that the engine has closed is opened again", async () => {
    let calls = 0;
    const socket = await startEngine((_url, answer) => {
      calls += 1;
      if (calls === 2) answer.socket?.destroy();
      else answer.end("[]");
    });
    const api = new DockerApi(socket);
    await api.json({ path: "/containers/json" });
    expect(await api.json({ path: "/containers/json" })).toEqual([]);
    expect(calls).toBe(3);
  });

  it("a container that goes away while it is listed is left out", async () => {
    const docker = await makeDocker((url, answer) => {
      if (url.includes("/containers/json")) answer.end('[{"Id":"gone"}]');
      else answer.writeHead(404).end('{"message":"No such container"}');
    });
    expect(await docker.containers()).toEqual([]);
  });
});

describe("a pull", () => {
  const pulls = (lines: readonly object[], end = (answer: ServerResponse) => void answer.end()) => {
    const urls: string[] = [];
    const handle: Handler = (url, answer) => {
      urls.push(url);
      if (url.includes("/json")) return void answer.end('{"Id":"sha256:1"}');
      for (const line of lines) answer.write(`${JSON.stringify(line)}\r\n`);
      return end(answer);
    };
    return { urls, handle };
  };

  it("names one tag, and tells how far the layers are", async () => {
    const layer = (id: string, current: number) => ({
      status: "Downloading",
      id,
      progressDetail: { current, total: 50_000_000 },
    });
    const { urls, handle } = pulls([
      { status: "Pulling from library/postgres", id: "16-alpine" },
      layer("a", 1_000_000),
      layer("b", 1_000_000),
      layer("a", 20_000_000),
      layer("a", 21_000_000),
      layer("b", 50_000_000),
      { status: "Extracting", id: "a", progressDetail: { current: 5, total: 50_000_000 } },
      { status: "Status: Downloaded newer image for postgres:16-alpine" },
    ]);
    const told: string[] = [];
    await (await makeDocker(handle)).pull("postgres:16-alpine", (line) => told.push(line));
    expect(urls[0]).toBe("/v1.44/images/create?fromImage=postgres&tag=16-alpine");
    expect(told).toEqual([
      "pull postgres:16-alpine: 21 of 100 MB",
      "pull postgres:16-alpine: 71 of 100 MB",
      "Status: Downloaded newer image for postgres:16-alpine",
    ]);
  });

  it("fails where any line has errorDetail, though the status was 200", async () => {
    const { handle } = pulls([
      { status: "Pulling" },
      { errorDetail: { message: "toomanyrequests" }, error: "x" },
    ]);
    await expect((await makeDocker(handle)).pull("postgres", noReport)).rejects.toMatchObject({
      exit: "unavailable",
      why: "toomanyrequests",
      remedy: expect.stringContaining("docker pull postgres"),
    });
  });

  it("fails where the stream breaks off", async () => {
    const { handle } = pulls([{ status: "Pulling" }], (answer) => void setImmediate(() => answer.destroy()));
    await expect((await makeDocker(handle)).pull("postgres", noReport)).rejects.toMatchObject({
      exit: "unavailable",
    });
  });

  it("fails where the image is not there afterwards", async () => {
    const docker = await makeDocker((url, answer) => {
      if (url.includes("/json")) answer.writeHead(404).end("{}");
      else answer.end('{"status":"Status: fine"}\n');
    });
    await expect(docker.pull("postgres", noReport)).rejects.toMatchObject({
      what: expect.stringContaining("does not have it"),
    });
  });

  it("takes names apart as the API wants them", () => {
    expect(splitReference("postgres")).toEqual({ fromImage: "postgres", tag: "latest" });
    expect(splitReference("ipfs/kubo:v0.42.0")).toEqual({ fromImage: "ipfs/kubo", tag: "v0.42.0" });
    expect(splitReference("localhost:5000/a/b")).toEqual({ fromImage: "localhost:5000/a/b", tag: "latest" });
    expect(splitReference("localhost:5000/a:1")).toEqual({ fromImage: "localhost:5000/a", tag: "1" });
    expect(splitReference("a@sha256:ff")).toEqual({ fromImage: "a@sha256:ff" });
  });
});

describe("a load", () => {
  it("streams the whole archive, and fails where nothing was loaded", async () => {
    const archive = join(directory, "archive.tar");
    writeFileSync(archive, Buffer.alloc(3_000_000, "x"));
    let received = 0;
    let says = '{"stream":"Loaded image: a:1\\n"}\n';
    const docker = await makeDocker((_url, answer, request) => {
      request.on("data", (chunk: Buffer) => (received += chunk.length));
      request.on("end", () => answer.end(says));
    });
    await docker.load(archive, noReport);
    expect(received).toBe(3_000_000);
    says = "";
    await expect(docker.load(archive, noReport)).rejects.toMatchObject({ exit: "settings" });
    says = '{"errorDetail":{"message":"unexpected EOF"}}\n';
    await expect(docker.load(archive, noReport)).rejects.toMatchObject({ why: "unexpected EOF" });
  });

  it("gives the engine's reason when that hangs up in the middle", async () => {
    const archive = join(directory, "large.tar");
    writeFileSync(archive, Buffer.alloc(8_000_000, "x"));
    const docker = await makeDocker((_url, answer) => {
      answer.writeHead(400, { connection: "close" }).end('{"message":"invalid tar header"}');
    });
    await expect(docker.load(archive, noReport)).rejects.toMatchObject({ exit: "unavailable" });
  });
});

describe("a log's frames", () => {
  const frame = (stream: number, text: string) => {
    const head = Buffer.alloc(8);
    head[0] = stream;
    head.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([head, Buffer.from(text)]);
  };

  it("are joined in order; a cut one gives what is there", () => {
    const whole = Buffer.concat([frame(1, "out\n"), frame(2, "ärr\n"), frame(1, ""), frame(1, "end")]);
    expect(unframe(whole)).toBe("out\närr\nend");
    expect(unframe(whole.subarray(0, whole.length - 2))).toBe("out\närr\ne");
    expect(unframe(whole.subarray(0, 5))).toBe("");
  });
});
