import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createNetServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { chooseApi, dockerSocket, Engine } from "../../src/docker/engine-client.ts";
import { createDocker, splitReference } from "../../src/docker/engine-writer.ts";
import { OperatorError } from "../../src/errors.ts";

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

/** An engine on a socket of its own that answers /version, and the rest as given. */
function startEngine(handle: Handler, version: object = VERSION): Promise<string> {
  made += 1;
  const socket = join(directory, `${made}.sock`);
  const server = createServer((request, answer) => {
    answer.setHeader("content-type", "application/json");
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
    const socket = await startEngine(() => {});
    servers[0]?.removeAllListeners("request");
    servers[0]?.on("request", (request: IncomingMessage, answer: ServerResponse) => {
      urls.push(request.url ?? "");
      answer.setHeader("content-type", "application/json");
      if (request.url !== "/version") return answer.end("[]");
      if (!broken) return answer.end(JSON.stringify({ ...VERSION, ApiVersion: "1.41" }));
      broken = false;
      return answer.writeHead(500).end('{"message":"starting"}');
    });
    const docker = createDocker({ DOCKER_HOST: `unix://${socket}` });
    await expect(docker.containers()).rejects.toMatchObject({ why: "starting" });
    await docker.containers();
    await docker.listImages();
    expect(urls).toEqual(["/version", "/version", "/v1.41/containers/json?all=true", "/v1.41/images/json"]);
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

  it.each([
    ["text/html", "<html>"],
    ["application/json", "<html>"],
    ["application/json", ""],
    ["application/json", '{"Containers":[]}'],
    ["application/json", '[{"Id":1}]'],
  ])("an answer that is not the API's is an error: %s %s", async (type, body) => {
    const docker = await makeDocker((_url, answer) => answer.setHeader("content-type", type).end(body));
    await expect(docker.containers()).rejects.toMatchObject({ exit: "unavailable", why: expect.any(String) });
  });

  it("an answer that breaks off is an error", async () => {
    const docker = await makeDocker((_url, answer) => {
      answer.write('[{"Id":');
      setImmediate(() => answer.destroy());
    });
    await expect(docker.containers()).rejects.toMatchObject({ exit: "unavailable" });
  });

  it.each<[string, Handler, string]>([
    ["before it", (_url, answer) => answer.on("error", noReport), "no data for 0 s"],
    ["within it", (_url, answer) => void answer.write('{"a":'), "no data for 0 s"],
    ["within an error", (_url, answer) => void answer.writeHead(500).write('{"a":'), "aborted"],
  ])("the silence of an answer has an end: %s", async (_where, handle, why) => {
    const docker = await new Engine(await startEngine(handle)).open(50);
    const what = "The Docker request GET /info failed.";
    await expect(docker.info()).rejects.toMatchObject({ exit: "unavailable", what, why });
  });

  it("every call has a connection of its own, so none is used that the engine has closed", async () => {
    const connections = new Set<unknown>();
    const docker = await makeDocker((_url, answer, { socket }) => {
      connections.add(socket);
      answer.end("[]");
    });
    await docker.containers();
    await docker.containers();
    expect(connections.size).toBe(2);
  });

  it("a container that goes away while it is listed is left out", async () => {
    const docker = await makeDocker((url, answer) => {
      if (url.includes("/containers/json")) answer.end('[{"Id":"gone"}]');
      else answer.writeHead(404).end('{"message":"No such container"}');
    });
    expect(await docker.containers()).toEqual([]);
  });
});

describe("a removal", () => {
  it("goes on from a container that is stopped already (304), and gives its volume no thought", async () => {
    const calls: string[] = [];
    const docker = await makeDocker((url, answer, { method }) => {
      calls.push(`${method} ${url}`);
      answer.writeHead(method === "POST" ? 304 : 204).end();
    });
    await docker.removeContainer("a/b");
    expect(calls).toEqual(["POST /v1.44/containers/a%2Fb/stop", "DELETE /v1.44/containers/a%2Fb?force=true"]);
  });

  it("that the engine refuses is an error with its words", async () => {
    const docker = await makeDocker((_url, answer) =>
      answer.writeHead(409).end('{"message":"volume is in use - [1]"}'),
    );
    await expect(docker.removeVolume("v")).rejects.toMatchObject({
      exit: "unavailable",
      what: "The Docker request DELETE /volumes/v failed.",
      why: "volume is in use - [1]",
    });
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

  it("names one tag, and reports the progress of the layers", async () => {
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
    const lines: string[] = [];
    await (await makeDocker(handle)).pull("postgres:16-alpine", (line) => lines.push(line));
    expect(urls[0]).toBe("/v1.44/images/create?fromImage=postgres&tag=16-alpine");
    expect(lines).toEqual([
      "pull postgres:16-alpine: 21 of 100 MB",
      "pull postgres:16-alpine: 71 of 100 MB",
      "Status: Downloaded newer image for postgres:16-alpine",
    ]);
  });

  it("fails if any line has errorDetail, though the status was 200", async () => {
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

  it.each([
    ["stays open", () => {}],
    ["is reset", (answer: ServerResponse) => void setTimeout(() => answer.socket?.resetAndDestroy(), 20)],
  ])("listens no more after an error, if the connection %s", async (_how, then) => {
    let closed: Promise<void> | undefined;
    const docker = await makeDocker((url, answer) => {
      if (url.includes("/json")) {
        answer.statusCode = 404;
        answer.end("{}");
        return;
      }
      closed = new Promise((resolve) => answer.once("close", resolve));
      answer.write('{"errorDetail":{"message":"no space"}}\n');
      then(answer);
    });
    await expect(docker.pull("postgres", noReport)).rejects.toMatchObject({ why: "no space" });
    await closed;
  });

  it("fails if the stream breaks off", async () => {
    const { handle } = pulls([{ status: "Pulling" }], (answer) => void setImmediate(() => answer.destroy()));
    await expect((await makeDocker(handle)).pull("postgres", noReport)).rejects.toMatchObject({
      exit: "unavailable",
    });
  });

  it("fails if the image is not there afterwards", async () => {
    const docker = await makeDocker((url, answer) => {
      if (url.includes("/json")) answer.writeHead(404).end("{}");
      else answer.end('{"status":"Status: fine"}\n');
    });
    await expect(docker.pull("postgres", noReport)).rejects.toMatchObject({
      what: expect.stringContaining("but the image is missing"),
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
  it("streams the whole archive, and fails if nothing was loaded", async () => {
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

  it("fails if the stream breaks off, whatever it said before", async () => {
    const archive = join(directory, "cut.tar");
    writeFileSync(archive, "x");
    const docker = await makeDocker((_url, answer, request) => {
      request.resume().on("end", () => {
        answer.write('{"stream":"Loaded image: a:1\\n"}\n');
        setImmediate(() => answer.destroy());
      });
    });
    await expect(docker.load(archive, noReport)).rejects.toMatchObject({ exit: "unavailable" });
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

describe("a build", () => {
  const context = mkdtempSync(join(directory, "context-"));
  mkdirSync(join(context, "docker"));
  writeFileSync(join(context, "docker", "Dockerfile"), "FROM node:20\n");
  writeFileSync(join(context, "secret-owner"), "x");
  const options = {
    context,
    dockerfile: join(context, "docker", "Dockerfile"),
    tag: "fula-node:1.0.0",
    labels: { "land.fx.fula-node.owner": "fula-node" },
    buildArgs: { BASE: "node:20" },
  };
  /** An engine that builds as requested once it has the whole context. */
  const builds = (handle: Handler) =>
    makeDocker((url, answer, request) => {
      if (url.includes("/json")) return void answer.end('{"Id":"sha256:1"}');
      return void request.resume().on("end", () => handle(url, answer, request));
    });
  const whyOf = async (handle: Handler) =>
    (await builds(handle)).build(options, noReport).then(
      () => null,
      (thrown: unknown) => thrown,
    );

  it("gets its context and every option, and reports its lines", async () => {
    const parts: Buffer[] = [];
    const urls: URL[] = [];
    const lines: string[] = [];
    const docker = await builds((url, answer) => {
      urls.push(new URL(url, "http://engine"));
      answer.end('{"stream":"Step 1/1 : FROM node:20"}\n{"stream":"\\n"}\n{"aux":{"ID":"sha256:1"}}\n');
    });
    servers[0]?.on("request", (request: IncomingMessage) => {
      if (request.method === "POST") request.on("data", (part: Buffer) => parts.push(part));
    });
    await docker.build(options, (line) => lines.push(line));
    expect(lines).toEqual(["Step 1/1 : FROM node:20"]);
    expect(urls[0]?.pathname).toBe("/v1.44/build");
    expect(Object.fromEntries(urls[0]?.searchParams ?? [])).toEqual({
      t: "fula-node:1.0.0",
      dockerfile: "docker/Dockerfile",
      labels: '{"land.fx.fula-node.owner":"fula-node"}',
      buildargs: '{"BASE":"node:20"}',
      forcerm: "true",
    });
    await docker.build({ ...options, noCache: true }, noReport);
    expect(urls[1]?.searchParams.get("nocache")).toBe("true");
    const archive = join(directory, "context.tar");
    writeFileSync(archive, Buffer.concat(parts));
    const listed = execFileSync("tar", ["--list", "--verbose", "--numeric-owner", "--file", archive], {
      encoding: "utf8",
    });
    for (const name of ["docker/Dockerfile", "secret-owner"])
      expect(listed).toMatch(new RegExp(` 0/0 .* ${name}$`, "m"));
  });

  it.each<[string, Handler, string | RegExp]>([
    [
      "a line with errorDetail",
      (_u, answer) => answer.end('{"errorDetail":{"message":"no space"}}\n'),
      "no space",
    ],
    ["an error before the first line", (_u, answer) => answer.writeHead(500).end('{"message":"no"}'), "no"],
    ["a status alone", (_u, answer) => answer.writeHead(503).end("{}"), "HTTP 503"],
    ["a line that is no JSON", (_u, answer) => answer.end("<html>\n"), /JSON/],
    ["a line of another kind", (_u, answer) => answer.end('{"stream":7}\n'), /stream/],
    [
      "a stream that breaks off after the last line",
      (_u, answer) => {
        answer.write('{"stream":"Successfully tagged fula-node:1.0.0\\n"}\n');
        setImmediate(() => answer.destroy());
      },
      "aborted",
    ],
  ])("fails with %s", async (_name, handle, why) => {
    expect(await whyOf(handle)).toMatchObject({
      exit: "unavailable",
      what: "The image fula-node:1.0.0 could not be built.",
      why: typeof why === "string" ? why : (expect.stringMatching(why) as unknown),
      remedy: `Fix the reported problem, then run again. The same command by hand: docker build --file ${options.dockerfile} --tag fula-node:1.0.0 --label land.fx.fula-node.owner=fula-node --build-arg BASE=node:20 ${context}`,
    });
  });

  it("fails if the image is not there afterwards", async () => {
    const docker = await makeDocker((url, answer, request) => {
      if (url.includes("/json")) answer.writeHead(404).end('{"message":"No such image"}');
      else request.resume().on("end", () => answer.end('{"stream":"built"}\n'));
    });
    await expect(docker.build(options, noReport)).rejects.toMatchObject({
      what: "Docker reported that it built fula-node:1.0.0, but the image is missing.",
    });
  });

  it("fails if its context can't be read", async () => {
    const docker = await builds((_url, answer) => void answer.end());
    const broken = { ...options, context: join(directory, "none") };
    await expect(docker.build(broken, noReport)).rejects.toMatchObject({
      why: expect.stringContaining("ENOENT"),
    });
    const without = { ...options, dockerfile: join(directory, "none", "Dockerfile") };
    await expect(docker.build(without, noReport)).rejects.toMatchObject({ why: "it does not exist" });
  });
});

describe("a log", () => {
  const frame = (stream: number, text: string) => {
    const head = Buffer.alloc(8);
    head[0] = stream;
    head.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([head, Buffer.from(text)]);
  };
  const STREAM = "application/vnd.docker.multiplexed-stream";
  const RUN = { Status: "exited", ExitCode: 0, Pid: 0, StartedAt: "2026-01-01T00:00:00Z" };

  const logOf = async (bytes: Buffer, { Tty = false, lines = 100_000 } = {}) => {
    const container = { Id: "1", Name: "/c", Image: "i", State: RUN, Config: { Image: "i", Tty } };
    const docker = await makeDocker((url, answer) => {
      if (url.includes("/logs?")) answer.setHeader("content-type", STREAM).end(bytes);
      else answer.end(JSON.stringify({ ...container, HostConfig: { NetworkMode: "host" } }));
    });
    return docker.logs("c", lines);
  };

  it("has its frames joined in order; one that is cut short does not count", async () => {
    const whole = Buffer.concat([frame(1, "out\n"), frame(2, "ärr\n"), frame(1, ""), frame(1, "end")]);
    expect(await logOf(whole)).toBe("out\närr\nend");
    expect(await logOf(whole.subarray(0, whole.length - 2))).toBe("out\närr");
    expect(await logOf(Buffer.alloc(0))).toBe("");
  });

  it("may have a great many frames, and large ones", async () => {
    const small = Array.from({ length: 50_000 }, () => frame(1, "\n"));
    const text = `${"x".repeat(100_000)}ä`;
    expect(await logOf(Buffer.concat([...small, frame(2, text)]), { lines: 0 })).toBe(text);
  });

  it("has no frames if the container has a terminal, and may look like JSON", async () => {
    expect(await logOf(Buffer.from('{"level":"info"}\r\n'), { Tty: true })).toBe('{"level":"info"}');
  });
});
