import { readFile } from "node:fs/promises";
import * as z from "zod";
import { messageOf } from "../errors.ts";
import { isAbsence } from "../machine/file-errors.ts";
import { type ProgramEnvironment, runProgram } from "../machine/run-program.ts";

/** The login for one registry that `docker login` saved. */
export interface RegistryLogin {
  /** The registry's name, as for `docker login`: `registry.example.com:5000`, `docker.io`. */
  readonly registry: string;
  /** What the engine receives (Engine API, AuthConfig). It contains the secret. Null if there is no login. */
  readonly credentials: Readonly<Record<string, string>> | null;
  /** The registry's key in the engine's list of several logins. */
  readonly key: string;
  /** Where it was found or searched for: a path, and the credential helper if there is one. */
  readonly place: string;
  /** Why a login could not be read, without any secret; null if there was no problem. */
  readonly problem: string | null;
}

/** Docker Hub's name in the Docker CLI's configuration (docker/cli, registry.IndexServer). */
const HUB_KEY = "https://index.docker.io/v1/";
const HUB = "docker.io";
const HUB_NAMES: ReadonlySet<string> = new Set([HUB, "index.docker.io", "registry-1.docker.io"]);
/** The user name that a helper returns with an identity token (docker/docker-credential-helpers). */
const TOKEN_USER = "<token>";
/** What a helper prints when it fails because it has no login (docker-credential-helpers, ErrCredentialsNotFound). */
const NOT_FOUND = /credentials not found in native keychain/;
const HELPER_TIMEOUT_MS = 60_000;
/** How registries and the engine refuse a user who is unknown or has no permission to read an image. */
const REFUSAL =
  /\b40[13]\b|(?<!permission )denied|unauthori[sz]ed|forbidden|no basic auth credentials|authentication required|incorrect username or password/i;

const HELPER = z.string().regex(/^[\w.-]*$/, "is not a valid name of a credential helper");
const ENTRY = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
  registrytoken: z.string().optional(),
});
const CONFIG = z.object({
  auths: z.record(z.string(), ENTRY).optional(),
  credsStore: HELPER.optional(),
  credHelpers: z.record(z.string(), HELPER).optional(),
});
const HELPER_ANSWER = z.object({ Username: z.string(), Secret: z.string() });

/** The registry that an image's reference names (docker/cli, reference.ParseNormalizedNamed). */
export function registryOf(reference: string): string {
  const [first = "", ...rest] = reference.split("/");
  if (rest.length === 0 || !/[.:]|^localhost$/.test(first)) return HUB;
  return HUB_NAMES.has(first) ? HUB : first;
}

/**
 * Reads the logins of the Docker CLI: `auths`, `credsStore` and `credHelpers` of `config.json` in
 * DOCKER_CONFIG, otherwise in `~/.docker`. Never throws: like `docker pull`, fula-node continues without a login,
 * because only the registry knows whether one is needed.
 */
export async function readRegistryLogin(registry: string, env: ProgramEnvironment): Promise<RegistryLogin> {
  const path = `${env["DOCKER_CONFIG"] ?? `${env["HOME"] ?? "/root"}/.docker`}/config.json`;
  const key = registry === HUB ? HUB_KEY : registry;
  const none = { registry, key, credentials: null, place: path, problem: null } as const;
  let config: z.infer<typeof CONFIG>;
  try {
    config = CONFIG.parse(JSON.parse(await readFile(path, "utf8")));
  } catch (thrown) {
    if (isAbsence(thrown)) return none;
    return { ...none, problem: `cannot read ${path}: ${describeProblem(thrown)}` };
  }
  const helper = entryOf(config.credHelpers, registry) ?? config.credsStore ?? "";
  const fromHelper = helper === "" ? null : await askHelper(helper, key, env);
  const entry = entryOf(config.auths, registry);
  const place = fromHelper?.login === undefined ? path : `docker-credential-${helper}, which ${path} names`;
  const login = fromHelper?.login ?? (entry === undefined ? undefined : loginIn(entry));
  const problem = fromHelper?.problem ?? null;
  if (login === undefined)
    return { ...none, place: helper === "" ? path : `${path} or docker-credential-${helper}`, problem };
  return { registry, key, credentials: { ...login, serveraddress: key }, place, problem };
}

/** True if the engine's message says that the registry requires a login or a different login. */
export function isRefusal(message: string): boolean {
  return REFUSAL.test(message);
}

/** The remedy for a registry's refusal. It names the registry, and where a login was found or searched for. */
export function refusalRemedy({ registry, credentials, place, problem }: RegistryLogin): string {
  const command = registry === HUB ? "docker login" : `docker login ${registry}`;
  const state =
    credentials === null
      ? `No login for ${registry} was found in ${place}${problem === null ? "" : ` (${problem})`}.`
      : `The login for ${registry} from ${place} was used.`;
  return `${state} Check the image's name, or log in with an account that may read it (${command}). Then run again.`;
}

/** The format of the engine's headers: JSON in base64url, with padding. */
export function encodeCredentials(credentials: object): string {
  return Buffer.from(JSON.stringify(credentials))
    .toString("base64")
    .replaceAll("+", "-")
    .replaceAll("/", "_");
}

/** A name in the configuration may be a URL, with or without a path. */
function entryOf<T>(entries: Readonly<Record<string, T>> | undefined, registry: string): T | undefined {
  const pairs = Object.entries(entries ?? {});
  const exact = pairs.find(([name]) => name === registry || (registry === HUB && name === HUB_KEY));
  return (exact ?? pairs.find(([name]) => normalise(name) === registry))?.[1];
}

function normalise(name: string): string {
  const host = name.replace(/^https?:\/\//, "").replace(/\/.*$/s, "");
  return HUB_NAMES.has(host) ? HUB : host;
}

function loginIn(entry: z.infer<typeof ENTRY>): Readonly<Record<string, string>> | undefined {
  const { auth, identitytoken, registrytoken } = entry;
  const text = Buffer.from(auth ?? "", "base64").toString("utf8");
  const colon = text.indexOf(":");
  const username = colon === -1 ? entry.username : text.slice(0, colon);
  const password = colon === -1 ? entry.password : text.slice(colon + 1).replace(/\0+$/, "");
  const login = Object.entries({ username, password, identitytoken, registrytoken }).filter(
    (pair): pair is [string, string] => pair[1] !== undefined && pair[1] !== "",
  );
  return login.length === 0 ? undefined : Object.fromEntries(login);
}

interface HelperResult {
  readonly login?: Readonly<Record<string, string>>;
  readonly problem?: string;
}

/** Runs a credential helper: `get`, the server's name on standard input; JSON or a reason on standard output. */
async function askHelper(helper: string, key: string, env: ProgramEnvironment): Promise<HelperResult> {
  const program = `docker-credential-${helper}`;
  const result = await runProgram([program, "get"], { env, input: key, timeoutMs: HELPER_TIMEOUT_MS });
  if (result.exitCode !== 0) {
    const output = result.lastLines.join(" ").trim();
    if (NOT_FOUND.test(output)) return {};
    return {
      problem: result.stopped ?? `${program} failed: ${output === "" ? "it printed nothing" : output}`,
    };
  }
  try {
    const { Username: username, Secret: secret } = HELPER_ANSWER.parse(JSON.parse(result.stdout));
    if (username === TOKEN_USER) return { login: { identitytoken: secret } };
    return username === "" ? {} : { login: { username, password: secret } };
  } catch {
    // The reason would quote the output, which may be a secret.
    return { problem: `the output of ${program} is not a login in JSON` };
  }
}

/** Leaves out the text that could not be parsed: JSON.parse quotes it, and it may contain secrets. */
function describeProblem(thrown: unknown): string {
  if (thrown instanceof SyntaxError) return "it is not JSON";
  if (!(thrown instanceof z.ZodError)) return messageOf(thrown);
  return thrown.issues.map(({ path, message }) => `${path.join(".")} ${message}`).join(", ");
}
