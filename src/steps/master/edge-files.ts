import { isOurCaddyfile } from "../../edge/caddyfile.ts";
import { type EdgeFile, readEdgeFiles } from "../../edge/files.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { type MasterContext, readValues } from "../../settings/context.ts";
import { CONTAINER_USER } from "../../settings/layout.ts";

interface Seen {
  readonly write: readonly string[];
  readonly remove: readonly string[];
}

type EdgeFilesChange =
  | (Change & { readonly kind: "write-edge-file"; readonly path: string })
  | (Change & { readonly kind: "remove-edge-file"; readonly path: string });

/** The files of the edge: its Caddyfile, and copies of the operator's certificate, key and roots. */
export function edgeFiles(context: MasterContext): StepSpec<Seen, EdgeFilesChange> {
  const { layout, hash } = context;
  const read = async (host: HostReader) =>
    readEdgeFiles(host, { layout, hash, values: await readValues(host, context) });

  return {
    id: "edge-files",
    title: "files of the edge",
    touches:
      "If PUBLIC_HOST is set, writes `edge/Caddyfile`, and copies of EDGE_CERT, EDGE_KEY and EDGE_ACME_ROOT next to it.",

    async probe(host): Promise<Finding<Seen>> {
      const { files, missing, caddyfile } = await read(host);
      if (missing.length > 0) throw noFile(missing);
      const found = await Promise.all(files.map((file) => lookAt(host, file)));
      const evidence =
        caddyfile === null
          ? { edge: "off: PUBLIC_HOST is not set" }
          : Object.fromEntries(found.map(({ path, what }) => [path, what]));
      const foreign = found.find(({ isForeign }) => isForeign);
      const wrong = found.filter(({ isRight }) => !isRight);
      const seen = {
        write: wrong.flatMap(({ path, text }) => (text === null ? [] : [path])),
        remove: wrong.flatMap(({ path, text }) => (text === null ? [path] : [])),
      };
      const drift = wrong.map(({ path, what }) => `${path}: ${what}`);
      if (foreign !== undefined)
        return {
          state: "foreign",
          evidence,
          why: `${foreign.path} was not written by fula-node.`,
          remedy: "If it is not needed, move it away.",
          claim: { state: "drifted", seen, drift, evidence },
        };
      if (wrong.length === 0) return { state: "ours", seen, evidence };
      const isNew = wrong.every(({ what }) => what === ABSENT);
      return isNew ? { state: "absent", seen, evidence } : { state: "drifted", seen, drift, evidence };
    },

    plan: ({ seen: { write, remove } }) => [
      ...remove.map((path) => ({ kind: "remove-edge-file", summary: `remove ${path}`, path }) as const),
      ...write.map((path) => ({ kind: "write-edge-file", summary: `write ${path}`, path }) as const),
    ],

    async apply({ kind, path }, host) {
      if (kind === "remove-edge-file") return await host.files.remove(path);
      const { files, missing } = await read(host);
      const file = files.find((one) => one.path === path);
      if (file === undefined || file.text === null) throw noFile(missing);
      await host.files.writeAtomic(path, file.text, { mode: file.mode });
      if (file.uid !== 0) await host.files.chown(path, file.uid, CONTAINER_USER.gid);
    },

    async verify(host) {
      const { files } = await read(host);
      const found = await Promise.all(files.map((file) => lookAt(host, file)));
      const wrong = found.find(({ isRight }) => !isRight);
      if (wrong === undefined) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${wrong.path} is not as it was just written: ${wrong.what}.`,
        remedy: "Another program changes it. Find that program, then run again.",
      });
    },
  };
}

const ABSENT = "absent";

async function lookAt(
  host: HostReader,
  file: EdgeFile,
): Promise<EdgeFile & { readonly what: string; readonly isRight: boolean; readonly isForeign: boolean }> {
  const { path, text, mode, uid } = file;
  const [stat, present] = await Promise.all([host.files.stat(path), host.files.readText(path)]);
  const judged = (what: string, isRight = false) => ({ ...file, what, isRight, isForeign: false });
  if (stat === null || present === null) return judged(ABSENT, text === null);
  if (path.endsWith("/Caddyfile") && !isOurCaddyfile(present))
    return { ...judged("no fula-node marker in its first line"), isForeign: true };
  if (text === null) return judged("no longer used");
  if (present !== text) return judged("differs");
  if (stat.uid !== uid) return judged(`it belongs to uid ${stat.uid}, not ${uid}`);
  if (stat.mode !== mode) return judged(`its mode is ${stat.mode.toString(8)}, not ${mode.toString(8)}`);
  return judged("as written by fula-node", true);
}

function noFile(missing: readonly string[]): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `A file of the edge is missing: ${missing.join(", ")}.`,
    why: "EDGE_CERT, EDGE_KEY or EDGE_ACME_ROOT names it.",
    remedy: "Put it back, or change the setting, then run again.",
  });
}
