import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { isRefusal, registryOf } from "../../src/docker/engine-logins.ts";
import { createDocker } from "../../src/docker/engine-writer.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const directory = mkdtempSync(join(tmpdir(), "fula-node-logins-"));
const HUB = "https://index.docker.io/v1/";
const PASSWORD = "geheim-4711";
const servers: Server[] = [];
let made = 0;

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const auth = (user: string, password: string) => Buffer.from(`${user}:${password}`).toString("base64");

/** A directory with a Docker configuration; a string is its text as it stands. */
function makeConfig(config: object | string | null): string {
  made += 1;
  const path = join(directory, `config-${made}`);
  mkdirSync(path);
  if (config !== null) {
    writeFileSync(join(path, "config.json"), typeof config === "string" ? config : JSON.stringify(config));
  }
  return path;
}

/** A credential helper on a PATH of its own; `body` is what it does with the server's name in $server. */
function makeHelper(name: string, body: string): string {
  const bin = mkdtempSync(join(directory, "bin-"));
  const program = join(bin, `docker-credential-${name}`);
  writeFileSync(program, `#!/bin/sh\n[ "$1" = get ] || exit 9\nread -r server\n${body}\n`);
  chmodSync(program, 0o755);
  return [bin, process.env["PATH"]].join(delimiter);
}

const ANSWER = (user: string) =>
  `printf '{"ServerURL":"%s","Username":"${user}","Secret":"${PASSWORD}-%s"}' "$server" "$server"`;

/** An engine that keeps the headers of what it is asked for, and answers a pull or a build with one line. */
async function startEngine(line: object = { status: "Status: done" }) {
  made += 1;
  const socket = join(directory, `${made}.sock`);
  const asked: { readonly url: string; readonly headers: IncomingHttpHeaders }[] = [];
  const server = createServer((request, answer) => {
    request.resume();
    answer.setHeader("content-type", "application/json");
    const url = request.url ?? "";
    if (url === "/version") {
      answer.end('{"Version":"26.1.5","ApiVersion":"1.45","MinAPIVersion":"1.24"}');
    } else if (request.method === "POST") {
      asked.push({ url, headers: request.headers });
      request.on("end", () => answer.end(`${JSON.stringify(line)}\n`));
    } else answer.end('{"Id":"sha256:1"}');
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return { host: `unix://${socket}`, asked };
}

/** What the engine reads out of a header (moby, base64.URLEncoding: it wants the padding). */
function decode(header: string | string[] | undefined): unknown {
  if (typeof header !== "string") return null;
  expect(header).toMatch(/^[\w-]+={0,2}$/);
  expect(header.length % 4).toBe(0);
  return JSON.parse(Buffer.from(header, "base64url").toString("utf8"));
}

/** Pulls with one configuration, and gives the login that went to the engine and what was reported. */
async function pullWith(reference: string, config: object | string | null, path = process.env["PATH"]) {
  const engine = await startEngine();
  const lines: string[] = [];
  const env = { DOCKER_HOST: engine.host, DOCKER_CONFIG: makeConfig(config), PATH: path };
  await createDocker(env).pull(reference, (line) => lines.push(line));
  return { login: decode(engine.asked[0]?.headers["x-registry-auth"]), lines };
}

describe("the registry of an image", () => {
  it.each([
    ["postgres", "docker.io"],
    ["ipfs/kubo:v0.42.0", "docker.io"],
    ["docker.io/library/postgres:16", "docker.io"],
    ["index.docker.io/library/postgres:16", "docker.io"],
    ["localhost/a", "localhost"],
    ["127.0.0.1:5000/a/b:1", "127.0.0.1:5000"],
    ["ghcr.io/a/b@sha256:ff", "ghcr.io"],
  ])("%s: %s", (reference, registry) => expect(registryOf(reference)).toBe(registry));
});

describe("a pull's login", () => {
  const own = { username: "operator", password: "p:ss/word>>~", serveraddress: "registry.example:5000" };
  const entry = { auth: auth(own.username, own.password) };

  it.each(["registry.example:5000", "https://registry.example:5000", "http://registry.example:5000/v1/"])(
    "is the one of auths under %s",
    async (name) => {
      const { login } = await pullWith("registry.example:5000/a:1", {
        auths: { "other.example": {}, [name]: entry },
      });
      expect(login).toEqual(own);
    },
  );

  it.each([HUB, "index.docker.io", "docker.io"])("is that of Docker Hub under %s", async (name) => {
    const { login } = await pullWith("postgres:16-alpine", { auths: { [name]: entry } });
    expect(login).toEqual({ ...own, serveraddress: HUB });
  });

  it("may be an identity token, or lie open", async () => {
    const tokens = { auths: { "r.example": { auth: auth("u", ""), identitytoken: "t" } } };
    expect((await pullWith("r.example/a", tokens)).login).toEqual({
      username: "u",
      identitytoken: "t",
      serveraddress: "r.example",
    });
    const open = { auths: { "r.example": { username: "u", password: "p" } } };
    expect((await pullWith("r.example/a", open)).login).toMatchObject({ username: "u", password: "p" });
  });

  it("is asked from the registry's own helper before the one for all, and that before auths", async () => {
    const config = {
      auths: { "r.example": entry, "s.example": entry, [HUB]: {} },
      credHelpers: { "r.example": "own" },
      credsStore: "all",
    };
    const path = `${makeHelper("own", ANSWER("owner"))}${delimiter}${makeHelper("all", ANSWER("<token>"))}`;
    expect((await pullWith("r.example/a", config, path)).login).toEqual({
      username: "owner",
      password: `${PASSWORD}-r.example`,
      serveraddress: "r.example",
    });
    expect((await pullWith("postgres", config, path)).login).toEqual({
      identitytoken: `${PASSWORD}-${HUB}`,
      serveraddress: HUB,
    });
  });

  it("is null without any, and nothing is reported about it", async () => {
    const helper = makeHelper("all", "echo 'credentials not found in native keychain'; exit 1");
    for (const config of [
      null,
      {},
      { auths: {} },
      { auths: { "r.example": {} } },
      { auths: { "other.example": entry } },
      { credHelpers: { "other.example": "own" } },
      { credsStore: "all" },
    ]) {
      const { login, lines } = await pullWith("r.example/a", config, helper);
      expect({ login, lines }).toEqual({ login: null, lines: ["Status: done"] });
    }
  });

  it("that can't be read is none, and that is reported without what it holds", async () => {
    const loud = makeHelper("loud", `echo '{"Secret":"${PASSWORD}"'`);
    const broken = makeHelper("broken", "echo 'gpg: no secret key'; exit 1");
    const cases = [
      [`{"auths":{"r.example":{"auth":"${PASSWORD}"`, loud, "config.json: it is not JSON"],
      [{ auths: { "r.example": { auth: 7 } } }, loud, "auths.r.example.auth"],
      [{ credsStore: "../x" }, loud, "credsStore is not a valid name of a credential helper"],
      [{ credsStore: "loud" }, loud, "the output of docker-credential-loud is not a login in JSON"],
      [{ credsStore: "broken" }, broken, "docker-credential-broken failed: gpg: no secret key"],
      [{ credsStore: "none" }, broken, "docker-credential-none is not installed"],
    ] as const;
    for (const [config, path, reason] of cases) {
      const { login, lines } = await pullWith("r.example/a", config, path);
      expect(login).toBeNull();
      expect(lines[0]).toContain("the login for r.example is not used: ");
      expect(lines[0]).toContain(reason);
      expect(lines.join("\n")).not.toContain(PASSWORD);
    }
  });
});

describe("a build's logins", () => {
  it("are those of the images in its FROM lines, and no others", async () => {
    const engine = await startEngine({ stream: "Successfully built" });
    const entry = { auth: auth("operator", "p>>~?") };
    const config = makeConfig({ auths: { [HUB]: entry, "r.example": entry, "other.example": entry } });
    const context = mkdtempSync(join(directory, "context-"));
    const text =
      "ARG BASE\nARG SECOND=r.example/b\nFROM --platform=linux/amd64 ${BASE} AS one\nFROM $SECOND\n";
    writeFileSync(join(context, "Dockerfile"), text);
    await createDocker({ ...process.env, DOCKER_HOST: engine.host, DOCKER_CONFIG: config }).build(
      {
        context,
        dockerfile: join(context, "Dockerfile"),
        tag: "t:1",
        labels: {},
        buildArgs: { BASE: "node:20" },
      },
      () => {},
    );
    const login = { username: "operator", password: "p>>~?" };
    expect(decode(engine.asked[0]?.headers["x-registry-config"])).toEqual({
      [HUB]: { ...login, serveraddress: HUB },
      "r.example": { ...login, serveraddress: "r.example" },
    });
  });
});

describe("a registry that refuses", () => {
  const refuse = (words: string, config: object | null) =>
    startEngine({ errorDetail: { message: words } }).then(({ host }) =>
      createDocker({ ...process.env, DOCKER_HOST: host, DOCKER_CONFIG: makeConfig(config) }).pull(
        "r.example/a:1",
        () => {},
      ),
    );

  it("is known by its words", () => {
    for (const words of [
      "pull access denied for r.example/a, repository does not exist or may require 'docker login'",
      'Head "https://r.example/v2/a/manifests/1": no basic auth credentials',
      "unauthorized: authentication required",
      'denied: Permission "downloadArtifacts" denied on resource',
      'Head "https://r.example/v2/a/manifests/1": unknown: 403 Forbidden',
      "Get https://r.example/v2/: received unexpected HTTP status: 401 Unauthorized",
    ])
      expect(isRefusal(words), words).toBe(true);
    for (const words of [
      "manifest unknown",
      "no such host",
      "toomanyrequests",
      "dial tcp 10.0.40.1:4013: refused",
      "mkdir /var/lib/docker/tmp: permission denied",
    ])
      expect(isRefusal(words), words).toBe(false);
  });

  it("is named, with the login that was or was not found, and never the secret", async () => {
    await expect(refuse("unauthorized: authentication required", null)).rejects.toMatchObject({
      exit: "unavailable",
      what: "The registry r.example refused access to the image r.example/a:1.",
      why: "unauthorized: authentication required",
      remedy: expect.stringMatching(
        /^No login for r\.example was found in .*config\.json\..*\(docker login r\.example\)/,
      ),
    });
    const config = { auths: { "r.example": { auth: auth("operator", PASSWORD) } } };
    const thrown = await refuse("denied: requested access to the resource is denied", config).catch(
      (error: unknown) => error,
    );
    expect(thrown).toMatchObject({
      remedy: expect.stringMatching(/^The login for r\.example from .*config\.json was used\./),
    });
    expect(JSON.stringify(thrown)).not.toContain(PASSWORD);
  });
});

const REGISTRY_IMAGE = "fula-node-test/registry:2";

function isRegistryThere(): boolean {
  try {
    return isEngineThere() && docker("image", "inspect", "--format", "{{.Id}}", REGISTRY_IMAGE) !== "";
  } catch {
    return false;
  }
}

const there = isRegistryThere();

describe.runIf(there)(`a real registry that wants a login${there ? "" : " (skipped: no test bed)"}`, () => {
  const id = `fula-node-logins-${process.pid}`;
  const port = 30_000 + (process.pid % 10_000);
  const registry = `127.0.0.1:${port}`;
  const image = `${registry}/${id}:1`;
  const built = `${id}/built:1`;
  // bcrypt of the password, as htpasswd -B makes it.
  const user = "operator:$2y$05$abcdefghijklmnopqrstuuI9Ve74svfU50aEQdy91gepBOB8Ceywa";
  const right = { auths: { [registry]: { auth: auth("operator", PASSWORD) } } };
  const wrong = { auths: { [registry]: { auth: auth("operator", "hunter2") } } };
  const pull = (config: object | null, path = process.env["PATH"]) =>
    createDocker({ ...process.env, PATH: path, DOCKER_CONFIG: makeConfig(config) }).pull(image, () => {});
  const here = () => createDocker({ ...process.env }).image(image);

  beforeAll(async () => {
    const settings = [
      "REGISTRY_AUTH=htpasswd",
      "REGISTRY_AUTH_HTPASSWD_REALM=test",
      "REGISTRY_AUTH_HTPASSWD_PATH=/tmp/users",
      `REGISTRY_HTTP_ADDR=${registry}`,
      `USERS=${user}`,
    ].flatMap((setting) => ["--env", setting]);
    const serve = 'echo "$USERS" > /tmp/users; exec docker-registry serve /etc/docker/registry/config.yml';
    const where = ["--name", id, "--network", "host", "--entrypoint", "/bin/sh"];
    docker("run", "--detach", ...where, ...settings, REGISTRY_IMAGE, "-c", serve);
    makeTinyImage(image, []);
    const config = makeConfig(right);
    for (const deadline = Date.now() + 30_000; ;) {
      try {
        docker("--config", config, "push", "--quiet", image);
        break;
      } catch (thrown) {
        if (Date.now() > deadline) throw thrown;
      }
    }
  });
  afterAll(() => {
    docker("rm", "--force", "--volumes", id);
    docker("image", "rm", "--force", image, built);
  });

  it("refuses a pull without one, and one with a wrong one", async () => {
    docker("image", "rm", "--force", image);
    await expect(pull(null)).rejects.toMatchObject({
      what: `The registry ${registry} refused access to the image ${image}.`,
      remedy: expect.stringContaining(`No login for ${registry} was found`),
    });
    await expect(pull(wrong)).rejects.toMatchObject({
      what: `The registry ${registry} refused access to the image ${image}.`,
      remedy: expect.stringContaining(`The login for ${registry} from`),
    });
    expect(await here()).toBeNull();
  });

  it("gives the image to a login of auths, and to one of a helper", async () => {
    await pull(right);
    expect(await here()).not.toBeNull();
    docker("image", "rm", "--force", image);
    const helper = makeHelper("test", `printf '{"Username":"operator","Secret":"${PASSWORD}"}'`);
    await pull({ credHelpers: { [registry]: "test" } }, helper);
    expect(await here()).not.toBeNull();
  });

  it("gives a build its base image", async () => {
    docker("image", "rm", "--force", image);
    const context = mkdtempSync(join(directory, "context-"));
    const dockerfile = join(context, "Dockerfile");
    writeFileSync(dockerfile, 'ARG BASE\nFROM ${BASE}\nCMD ["/bin/sh"]\n');
    const build = (config: object) =>
      createDocker({ ...process.env, DOCKER_CONFIG: makeConfig(config) }).build(
        { context, dockerfile, tag: built, labels: {}, buildArgs: { BASE: image } },
        () => {},
      );
    await expect(build({})).rejects.toMatchObject({
      what: `The image ${built} could not be built.`,
      remedy: expect.stringContaining(`No login for ${registry} was found`),
    });
    await build(right);
    expect(await createDocker({ ...process.env }).image(built)).not.toBeNull();
  });
});
