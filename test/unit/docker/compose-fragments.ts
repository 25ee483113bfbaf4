import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { type ComposeMap, WRITER_SCRIPTS } from "../../../src/docker/compose-document.ts";
import {
  type Fragments,
  MASTER_FRAGMENTS,
  type MasterOptions,
  parseFragment,
  type Rendered,
  renderMaster,
  renderWriter,
  WRITER_FRAGMENTS,
  type WriterOptions,
} from "../../../src/docker/compose-render.ts";

/** Lower-case hex sha256, as the renderer is given it. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** A file of the package's compose/. */
export function readShipped(name: string): string {
  return readFileSync(new URL(`../../../compose/${name}`, import.meta.url), "utf8");
}

function readFragments<Name extends string>(names: readonly Name[]): Fragments<Name> {
  const parsed = names.map((name) => [name, parseFragment(readShipped(`${name}.yml`))]);
  return Object.fromEntries(parsed) as Fragments<Name>;
}

/** The master's compose file as a new box with a new engine gets it. */
export function masterOf(options: Partial<MasterOptions> = {}): Rendered {
  return renderMaster(readFragments(MASTER_FRAGMENTS), {
    version: "1.2.3",
    hash: sha256,
    startInterval: true,
    postgres: { volume: "fula-master_pgdata", external: false },
    ...options,
  });
}

/** The writer's compose file. */
export function writerOf(options: Partial<WriterOptions> = {}): Rendered {
  const scripts = {
    kubo: readShipped(WRITER_SCRIPTS.kubo),
    "ipfs-cluster": readShipped(WRITER_SCRIPTS["ipfs-cluster"]),
  };
  return renderWriter(readFragments(WRITER_FRAGMENTS), {
    version: "1.2.3",
    hash: sha256,
    startInterval: true,
    scripts,
    ...options,
  });
}

/** The services of a document, by name. */
export function servicesOf({ document }: Rendered): Readonly<Record<string, ComposeMap>> {
  return document.services as Readonly<Record<string, ComposeMap>>;
}
