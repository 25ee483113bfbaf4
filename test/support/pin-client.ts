import { createHmac } from "node:crypto";
import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { BED_PROGRAMS } from "./bed.ts";
import type { Box, ExecResult } from "./box.ts";
import { eventually } from "./cluster-real.ts";

/** One pin request as the pinning API shows it. */
export interface Request {
  readonly requestid: string;
  readonly status: string;
  readonly pin: { readonly cid: string; readonly name: string };
  readonly delegates: readonly string[];
}

/** Where a client has the root of the edge's private CA. */
const ROOT = "/root/root.crt";
const ENVIRONMENT = { HOME: "/root", SSL_CERT_FILE: ROOT, CURL_CA_BUNDLE: ROOT };
/** No other peers than those that a test connects to. */
const QUIET: readonly (readonly [string, unknown])[] = [
  ["AutoConf.Enabled", false],
  ["Bootstrap", []],
  ["DNS.Resolvers", {}],
  ["Discovery.MDNS.Enabled", false],
  ["Ipns.DelegatedPublishers", []],
  ["Routing.DelegatedRouters", []],
  ["Routing.Type", "none"],
];

/** A user's machine: curl, and a kubo of its own. It trusts the private CA of a master's edge. */
export class PinClient {
  readonly #box: Box;
  readonly #url: string;

  private constructor(box: Box, url: string) {
    this.#box = box;
    this.#url = url;
  }

  /** Starts kubo on the box. `root` is the certificate of the private CA. */
  static async on(box: Box, url: string, root: string): Promise<PinClient> {
    await box.copyIn(await realpath(join(BED_PROGRAMS, "ipfs")), "/usr/local/bin/ipfs");
    await box.writeFile(ROOT, root);
    const client = new PinClient(box, url);
    await client.run("ipfs init");
    for (const [key, value] of QUIET)
      await client.run(`ipfs config --json ${key} '${JSON.stringify(value)}'`);
    const environment = Object.entries(ENVIRONMENT).flatMap(([key, value]) => ["-E", `${key}=${value}`]);
    await box.run(["systemd-run", "--unit=kubo", "--collect", ...environment, "ipfs", "daemon"]);
    await eventually("the client's kubo answers", async () => {
      const { exitCode } = await box.exec("curl -sfX POST http://127.0.0.1:5001/api/v0/id");
      return exitCode === 0;
    });
    return client;
  }

  /** Runs what a user types. Throws if it fails. */
  run(script: string, environment: Readonly<Record<string, string>> = {}): Promise<ExecResult> {
    const env = { ...ENVIRONMENT, ...environment };
    return this.#box.run(["bash", "-ec", script], { env, timeoutMs: 120_000 });
  }

  /** Adds content that nobody else has to this kubo. */
  async add(bytes: number): Promise<string> {
    const { stdout } = await this.run(`head -c ${bytes} /dev/urandom | ipfs add -Q --cid-version=1`);
    return stdout.trim();
  }

  /** A request to the edge by curl: its status (0 without an answer) and its body. */
  async send(
    method: string,
    path: string,
    { headers = [], body }: { readonly headers?: readonly string[]; readonly body?: unknown } = {},
  ): Promise<{ readonly status: number; readonly body: string }> {
    const sent =
      body === undefined ? [] : ["-d", JSON.stringify(body), "-H", "Content-Type: application/json"];
    const all = [...headers.flatMap((header) => ["-H", header]), ...sent];
    const { stdout } = await this.#box.exec(
      [
        "curl",
        "-s",
        "-m",
        "30",
        "--path-as-is",
        "-X",
        method,
        "-w",
        "\\n%{http_code}",
        ...all,
        this.#url + path,
      ],
      { env: ENVIRONMENT },
    );
    const at = stdout.lastIndexOf("\n");
    return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
  }
}

/** A valid trusted header for an account, which only services on the master may send. */
export function trustedHeader(secret: string, account: string): string {
  const id = Buffer.from(account).toString("base64url");
  const text = `v1.${id}.${Math.floor(Date.now() / 1000) + 600}`;
  return `X-Fula-Service-Auth: ${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}
