import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What a container needs at least in a test: this machine's own shell and a few programs. */
const PROGRAMS = ["/bin/sh", "/bin/sleep", "/bin/cat"];

/** Runs the Docker CLI and returns its output. */
export function docker(...args: string[]): string {
  return execFileSync("docker", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
}

/** True if an engine answers and the Docker CLI, which tests use to prepare things, is there. */
export function isEngineThere(): boolean {
  try {
    docker("version", "--format", "{{.Server.Version}}");
    return true;
  } catch {
    return false;
  }
}

/** Creates an image of a few megabytes without a registry. */
export function makeTinyImage(reference: string, changes: readonly string[]): void {
  const directory = mkdtempSync(join(tmpdir(), "fula-node-tiny-"));
  const archive = join(directory, "root.tar");
  try {
    const libraries = PROGRAMS.flatMap((program) => {
      const listed = execFileSync("ldd", [program], { encoding: "utf8" });
      return listed.match(/\/\S+/g) ?? [];
    });
    const paths = [...new Set([...PROGRAMS, ...libraries])].map((path) => path.slice(1));
    execFileSync("tar", ["--create", "--dereference", "--file", archive, "--directory", "/", ...paths]);
    docker("import", ...changes.flatMap((change) => ["--change", change]), archive, reference);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
