import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { parseCid } from "../../src/pinning/content-id.ts";
import { adminDocument, pinningDocument } from "../../src/services/openapi/pinning-routes.ts";
import { clientsDocument, storageDocument } from "../../src/services/openapi/storage-routes.ts";

/** An OpenAPI document, as far as tests read it. */
export interface OpenApi {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Described>>>>;
  readonly components: Readonly<Record<string, unknown>>;
}

interface Described {
  readonly operationId: string;
  readonly responses: Readonly<Record<string, { readonly content?: unknown }>>;
}

/** What a service answered; `text` is the body as it came. */
interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** Throws unless an answer is one that the documents of the services describe. Paths and methods that they don't have pass. */
export function expectDescribed(method: string, url: string, answer: Answer): void {
  const path = url.replace(/^https?:\/\/[^/]+/, "").split("?", 1)[0] ?? "";
  for (const check of checks()) check(method.toLowerCase(), path, answer);
}

type Check = (method: string, path: string, answer: Answer) => void;

let made: readonly Check[] | null = null;

function checks(): readonly Check[] {
  made ??= [pinningDocument, adminDocument, storageDocument, clientsDocument].map((document) =>
    checkOf(document("1.2.3") as OpenApi),
  );
  return made;
}

function validatorOf(document: OpenApi): Ajv2020 {
  const keywords = ["openapi", "info", "servers", "paths", "components"];
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, keywords });
  formats.default(ajv);
  ajv.addFormat("cid", (text) => parseCid(text) !== null);
  // Forms of requests: nothing is compared with them here.
  for (const name of [
    "history-cursor",
    "ed25519-peer-id",
    "utc-milliseconds",
    "pool-name",
    "account",
    "multiaddr",
  ])
    ajv.addFormat(name, true);
  return ajv.addSchema(document, "document");
}

/** True if a value is right for a schema of a document. */
export function requestsOf(document: OpenApi, schema: string): (value: unknown) => boolean {
  const validate = validatorOf(document).compile({ $ref: `document#/components/schemas/${schema}` });
  return (value) => validate(value);
}

/** The check of a document whose objects have no other fields than those that it names. */
export function checkOf(open: OpenApi): Check {
  const document = closed(open) as OpenApi;
  const ajv = validatorOf(document);
  const validators = new Map<string, ValidateFunction>();
  const routes = Object.entries(document.paths).map(([path, methods]) => ({
    path,
    pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, "[^/]+")}$`),
    methods,
  }));
  return (method, path, { status, headers, text }) => {
    // A path without parameters comes before one with them.
    const route = routes.find((one) => one.path === path) ?? routes.find(({ pattern }) => pattern.test(path));
    const described = route?.methods[method]?.responses;
    if (route === undefined || described === undefined) return;
    const what = `${method} ${path}: ${status} ${text.slice(0, 300)}`;
    const answer = described[status];
    if (answer === undefined) throw new Error(`no such answer is described: ${what}`);
    if (answer.content === undefined) {
      if (text !== "") throw new Error(`an answer without a body is described: ${what}`);
      return;
    }
    if (!/^application\/json\b/.test(headers.get("content-type") ?? "")) throw new Error(`not JSON: ${what}`);
    const pointer = `/paths/${escaped(route.path)}/${method}/responses/${status}/content/application~1json/schema`;
    const validate = validators.get(pointer) ?? ajv.compile({ $ref: `document#${pointer}` });
    validators.set(pointer, validate);
    if (!validate(JSON.parse(text)))
      throw new Error(`another answer is described: ${what}: ${ajv.errorsText(validate.errors)}`);
  };
}

function escaped(key: string): string {
  return encodeURIComponent(key.replaceAll("~", "~0").replaceAll("/", "~1"));
}

/** No object may have more fields than those that are named. */
function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, one]): [string, unknown] => [key, closed(one)]);
  const isOpen = "type" in value && value.type === "object" && "properties" in value;
  return {
    ...(isOpen ? { additionalProperties: false } : {}),
    ...Object.fromEntries(entries),
  };
}
