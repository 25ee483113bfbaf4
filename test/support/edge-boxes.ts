import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { BED_PROGRAMS } from "./bed.ts";
import type { Box, ExecResult } from "./box.ts";
import { type Authority, createAuthority } from "./certificates.ts";
import { eventually } from "./cluster-real.ts";

/** The public name of the master's box. */
export const PUBLIC_HOST = "master";

const LOG = "/root/pebble.log";
const CONFIG = {
  pebble: {
    listenAddress: "0.0.0.0:14000",
    managementListenAddress: "0.0.0.0:15000",
    certificate: "/root/pebble/cert.pem",
    privateKey: "/root/pebble/key.pem",
    httpPort: 80,
    tlsPort: 443,
    externalAccountBindingRequired: false,
  },
};
/** Where the box has the roots: of the CA's own address, and of what it issues. */
export const ROOTS = "/root/pebble/roots.pem";

/** An ACME CA (pebble) on a box, which reaches the edge of that box by its name. */
export class AcmeCa {
  readonly authority: Authority;
  readonly #box: Box;

  private constructor(box: Box, authority: Authority) {
    this.#box = box;
    this.authority = authority;
  }

  static async on(box: Box): Promise<AcmeCa> {
    const ca = new AcmeCa(box, await createAuthority());
    const { certificate, key } = await ca.authority.issue("DNS:localhost,IP:127.0.0.1");
    await box.copyIn(await realpath(join(BED_PROGRAMS, "pebble")), "/usr/local/bin/pebble");
    await box.writeFile("/root/pebble/cert.pem", certificate);
    await box.writeFile("/root/pebble/key.pem", key, 0o600);
    await box.writeFile("/root/pebble/config.json", JSON.stringify(CONFIG));
    await ca.start();
    const issuing = await box.run("curl -sfk https://127.0.0.1:15000/roots/0");
    await box.writeFile(ROOTS, `${ca.authority.certificate}\n${issuing.stdout}\n`);
    return ca;
  }

  async start(): Promise<void> {
    const run = `exec pebble -strict=false -config /root/pebble/config.json >>${LOG} 2>&1`;
    const environment = ["-E", "PEBBLE_VA_NOSLEEP=1", "-E", "PEBBLE_WFE_NONCEREJECT=0"];
    await this.#box.run(["systemd-run", "--unit=pebble", "--collect", ...environment, "bash", "-c", run]);
    await eventually("the CA answers", async () => {
      const { exitCode } = await this.#box.exec("curl -sfk https://127.0.0.1:14000/dir");
      return exitCode === 0;
    });
  }

  async stop(): Promise<void> {
    await this.#box.run("systemctl stop pebble");
  }

  /** How many certificates were asked for. */
  async orders(): Promise<number> {
    const { stdout } = await this.#box.exec(`grep -c 'Added order' ${LOG}`);
    return Number(stdout);
  }
}

/** The settings with which a master's edge gets its certificate from that CA. */
export const ACME_SETTINGS = [
  `PUBLIC_HOST=${PUBLIC_HOST}`,
  "EDGE_ACME_CA=https://127.0.0.1:14000/dir",
  `EDGE_ACME_ROOT=${ROOTS}`,
].flatMap((setting) => ["--set", setting]);

/** Sends bytes over TLS as they are, and prints the first line of the answer. */
const RAW = `
const [text, name] = process.argv.slice(1);
const socket = require("node:tls").connect(443, "master", { servername: name, rejectUnauthorized: false });
socket.setTimeout(10000, () => socket.destroy(new Error("no answer")));
let answer = "";
socket.on("secureConnect", () => socket.write(text));
socket.on("data", (part) => { answer += part; if (answer.includes("\\r\\n")) { console.log(answer.split("\\r\\n")[0]); socket.destroy(); } });
socket.on("error", (error) => { console.log(error.message); process.exitCode = 1; });
`;

/** Sends a request, exactly as it is written, to the edge of the master from another box. Returns the status. */
export async function sendRaw(from: Box, text: string): Promise<number> {
  const { stdout } = await from.exec(["node", "-e", RAW, text, PUBLIC_HOST]);
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(stdout)?.[1] ?? Number.NaN);
}

/** curl to the edge. The path goes as it is. */
export function curl(from: Box, path: string, options = ""): Promise<ExecResult> {
  return from.exec(`curl -sk -m 20 --path-as-is ${options} 'https://${PUBLIC_HOST}${path}'`);
}

/** The status of that request. */
export async function statusOf(from: Box, path: string, options = ""): Promise<number> {
  const { stdout } = await curl(from, path, `-o /dev/null -w '%{http_code}' ${options}`);
  return Number(stdout);
}

const ECHO = `require("node:http").createServer((asked, answer) => {
  asked.resume().on("end", () => answer.end(JSON.stringify({ headers: asked.rawHeaders, trailers: asked.trailers, url: asked.url })));
}).listen(Number(process.argv[1]), "127.0.0.1")`;

/** Stands in for a service behind the edge: it answers with what it got. `work` is done meanwhile. */
export async function withEcho<T>(
  box: Box,
  { container, port }: { readonly container: string; readonly port: number },
  work: () => Promise<T>,
): Promise<T> {
  await box.run(["docker", "stop", container]);
  await box.run(["systemd-run", "--unit=echo", "--collect", "node", "-e", ECHO, String(port)]);
  try {
    await eventually("the echo listens", async () => {
      const { exitCode } = await box.exec(`curl -sf http://127.0.0.1:${port}/`);
      return exitCode === 0;
    });
    return await work();
  } finally {
    await box.exec(["systemctl", "stop", "echo"]);
    await box.run(["docker", "start", container]);
    await eventually("the service is healthy again", async () => {
      const { stdout } = await box.exec([
        "docker",
        "inspect",
        "--format",
        "{{.State.Health.Status}}",
        container,
      ]);
      return stdout === "healthy";
    });
  }
}
