import { createHash } from "node:crypto";
import { OperatorError } from "../../src/errors.ts";
import type { Host } from "../../src/host.ts";
import type { WriteGate } from "./write-gate.ts";

const SHORTEST_SECRET = 16;
const PRIVATE_PEM = /^-----BEGIN PRIVATE KEY-----\n(?<body>[\w-]+)\n-----END PRIVATE KEY-----\n$/;

/** Randomness and keys of a fake host: no two alike, and every run of a test gets the same. */
export class FakeRandom {
  readonly random: Host["random"];
  readonly signing: Host["signing"];
  readonly #generated: string[] = [];
  readonly #derived = new Set<string>();

  constructor(gate: WriteGate) {
    this.random = {
      hex: (bytes) => this.#generate("hex", bytes * 2),
      token: (characters) => this.#generate("base64url", characters),
    };
    this.signing = {
      generate: async () =>
        `-----BEGIN PRIVATE KEY-----\n${this.#generate("base64url", 43)}\n-----END PRIVATE KEY-----\n`,
      publicKey: async (pem, path) => {
        gate.look();
        return this.#publicKey(pem, path);
      },
      sign: async (pem, path, text) => {
        gate.look();
        return createHash("sha512")
          .update(`${this.#publicKey(pem, path).id} ${text}`)
          .digest("hex");
      },
    };
  }

  /** Every random text that was generated and is long enough to be a secret, in order. */
  get secrets(): readonly string[] {
    return this.#generated.filter(({ length }) => length >= SHORTEST_SECRET);
  }

  /** The text with each generated secret, and each public half of one, replaced by its kind. */
  mask(text: string): string {
    let masked = text;
    for (const secret of this.secrets) masked = masked.replaceAll(secret, `<generated ${secret.length}>`);
    for (const half of this.#derived) masked = masked.replaceAll(half, "<public half>");
    return masked;
  }

  #generate(encoding: "hex" | "base64url", length: number): string {
    let text = "";
    for (let block = 0; text.length < length; block += 1) {
      text += createHash("sha256").update(`${this.#generated.length}.${block}`).digest(encoding);
    }
    const secret = text.slice(0, length);
    this.#generated.push(secret);
    return secret;
  }

  #publicKey(pem: string, path: string): { readonly id: string; readonly publicPem: string } {
    const body = PRIVATE_PEM.exec(pem)?.groups?.["body"];
    if (body === undefined) throw new OperatorError({ exit: "settings", what: `${path} is no ed25519 key.` });
    const half = createHash("sha256").update(body).digest("hex");
    this.#derived.add(half);
    return {
      id: half.slice(0, 16),
      publicPem: `-----BEGIN PUBLIC KEY-----\n${half}\n-----END PUBLIC KEY-----\n`,
    };
  }
}
