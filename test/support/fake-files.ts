import { posix } from "node:path";
import { OperatorError } from "../../src/errors.ts";
import {
  digestOf,
  type FileStat,
  hashEntries,
  isIncluded,
  type Space,
} from "../../src/machine/file-reader.ts";
import { type Files, TEMPORARY_MARK } from "../../src/machine/file-writer.ts";
import type { WriteGate } from "./write-gate.ts";

/** One path of the fake tree; a symbolic link's text is its target. */
export interface FakeEntry {
  readonly kind: "file" | "directory" | "symlink";
  readonly text: string;
  readonly mode: number;
  /** Root's if left out. */
  readonly uid?: number;
  readonly modifiedAt: Date;
}

const MAX_LINKS = 40;

/** A file system in memory that behaves like the real adapter. Paths are absolute. */
export class FakeFiles implements Files {
  readonly tree = new Map<string, FakeEntry>();
  /** Directories that are mount points: they can be emptied, but not removed. */
  readonly #mounts = new Set<string>();
  /** What `space` returns, for every path. */
  freeBytes = 100 * 1024 ** 3;
  totalBytes = 200 * 1024 ** 3;
  /** Of a million. */
  freeInodes = 900_000;
  readonly #gate: WriteGate;
  readonly #now: () => Date;

  constructor(gate: WriteGate, now: () => Date) {
    this.#gate = gate;
    this.#now = now;
    this.#set("/", { kind: "directory", text: "", mode: 0o755 });
  }

  /** Adds a file without the gate, to prepare a box. */
  put(path: string, text: string, mode = 0o644, uid = 0): void {
    this.#makeParents(path);
    this.#set(this.#resolve(path), { kind: "file", text, mode, uid });
  }

  /** Adds a directory, without the gate. */
  putDirectory(path: string, mode = 0o755, uid = 0): void {
    this.#makeParents(path);
    this.#set(this.#resolve(path), { kind: "directory", text: "", mode, uid });
  }

  /** Gives an existing path to another user, without the gate. A link is not followed. */
  own(path: string, uid: number): void {
    const real = this.#parentResolved(path);
    const entry = this.tree.get(real);
    if (entry === undefined) throw new Error(`nothing at ${path}`);
    this.tree.set(real, { ...entry, uid });
  }

  /** Mounts a file system on a directory, without the gate. */
  mount(path: string): void {
    this.putDirectory(path);
    this.#mounts.add(path);
    const lines = [...this.#mounts].map((at, index) => `${index} 1 8:${index} / ${at} rw - ext4 /dev/sdb rw`);
    this.put("/proc/self/mountinfo", `${lines.join("\n")}\n`);
  }

  /** Adds a symbolic link, without the gate. */
  putLink(target: string, path: string): void {
    this.#makeParents(path);
    this.#set(this.#parentResolved(path), { kind: "symlink", text: target, mode: 0o777 });
  }

  /** Removes a path and everything below it, without the gate. */
  drop(path: string): void {
    for (const [key] of this.#whole(this.#parentResolved(path))) this.tree.delete(key);
  }

  /** The text of a file, for assertions. Throws if there is none. */
  textOf(path: string): string {
    const entry = this.tree.get(this.#resolve(path));
    if (entry?.kind !== "file") throw new Error(`no file at ${path}`);
    return entry.text;
  }

  async readText(path: string): Promise<string | null> {
    this.#gate.look();
    const entry = this.tree.get(this.#resolve(path));
    if (entry === undefined) return null;
    if (entry.kind === "directory") throw cannot("read", path, "it is a directory");
    return entry.text;
  }

  async stat(path: string): Promise<FileStat | null> {
    this.#gate.look();
    const entry = this.tree.get(this.#parentResolved(path));
    if (entry === undefined) return null;
    const { kind, mode, modifiedAt, uid = 0 } = entry;
    return { kind, mode, sizeBytes: Buffer.byteLength(entry.text), uid, modifiedAt };
  }

  async list(path: string): Promise<readonly string[] | null> {
    this.#gate.look();
    const real = this.#resolve(path);
    const entry = this.tree.get(real);
    if (entry === undefined) return null;
    if (entry.kind !== "directory") throw cannot("list", path, "it is not a directory");
    return this.#children(real);
  }

  async readLink(path: string): Promise<string | null> {
    this.#gate.look();
    const entry = this.tree.get(this.#parentResolved(path));
    return entry?.kind === "symlink" ? entry.text : null;
  }

  async realPath(path: string): Promise<string | null> {
    this.#gate.look();
    let real = path.startsWith("/") ? "/" : "/root";
    for (const part of path.split("/").filter((one) => one !== "" && one !== ".")) {
      real = part === ".." ? posix.dirname(real) : this.#resolve(posix.join(real, part));
      if (!this.tree.has(real)) return null;
    }
    return real;
  }

  async hashTree(path: string, only?: readonly string[]): Promise<string | null> {
    this.#gate.look();
    const real = this.#resolve(path);
    const entry = this.tree.get(real);
    if (entry === undefined) return null;
    if (entry.kind !== "directory") throw cannot("list", path, "it is not a directory");
    const below = this.#whole(real).filter(([, { kind }]) => kind !== "directory");
    const entries = below.map(([key, { kind, text }]) => ({
      path: key.slice(insideOf(real).length),
      kind: kind === "symlink" ? ("symlink" as const) : ("file" as const),
      digest: digestOf(text),
    }));
    return hashEntries(entries.filter(({ path: inside }) => isIncluded(inside, only)));
  }

  async space(): Promise<Space> {
    this.#gate.look();
    const { freeBytes, totalBytes, freeInodes } = this;
    return { freeBytes, totalBytes, freeInodes, totalInodes: 1_000_000 };
  }

  async writeAtomic(path: string, text: string, options: { readonly mode: number }): Promise<void> {
    const temporary = this.#temporary(path);
    const entry = { kind: "file", text, mode: options.mode } as const;
    await this.#gate.write(
      `files.writeAtomic ${path} ${options.mode.toString(8)}`,
      () => {
        if (this.tree.get(this.#parentResolved(path))?.kind === "directory") {
          throw cannot("write", path, "it is a directory");
        }
        this.#makeParents(path);
        this.#dropLeftovers(path);
        this.#set(this.#parentResolved(path), entry);
      },
      () => {
        this.#makeParents(path);
        this.#set(temporary, { ...entry, text: text.slice(0, Math.floor(text.length / 2)) });
      },
    );
  }

  async append(path: string, line: string, options: { readonly mode: number }): Promise<void> {
    const add = (text: string) => {
      this.#makeParents(path);
      const real = this.#resolve(path);
      const there = this.tree.get(real);
      if (there?.kind === "directory") throw cannot("write", path, "it is a directory");
      const lines = (there?.text ?? "").replace(/[^\n]+$/, "");
      const whole = lines + text;
      this.#set(real, { kind: "file", text: whole, mode: there?.mode ?? options.mode });
    };
    await this.#gate.write(
      `files.append ${path}`,
      () => add(`${line}\n`),
      () => add(line.slice(0, Math.floor(line.length / 2))),
    );
  }

  async makeDirectory(path: string, options: { readonly mode: number }): Promise<void> {
    await this.#gate.write(`files.makeDirectory ${path} ${options.mode.toString(8)}`, () => {
      const real = this.#resolve(path);
      const there = this.tree.get(real);
      if (there !== undefined && there.kind !== "directory") {
        throw cannot("make the directory", path, "something else stands there");
      }
      this.putDirectory(path, options.mode);
    });
  }

  async chmod(path: string, mode: number): Promise<void> {
    await this.#gate.write(`files.chmod ${path} ${mode.toString(8)}`, () => {
      const real = this.#resolve(path);
      const entry = this.tree.get(real);
      if (entry === undefined) throw cannot("change the mode of", path, "it does not exist");
      this.tree.set(real, { ...entry, mode });
    });
  }

  async chown(path: string, uid: number): Promise<void> {
    await this.#gate.write(`files.chown ${path} ${uid}`, () => {
      if (!this.tree.has(this.#parentResolved(path)))
        throw cannot("change the owner of", path, "it does not exist");
      this.own(path, uid);
    });
  }

  /** A kill during it leaves a tree in which some entries have the new owner, but not the directory itself. */
  async giveTree(path: string, { uid }: { readonly uid: number }): Promise<void> {
    const all = () => {
      const real = this.#resolve(path);
      if (this.tree.get(real)?.kind !== "directory")
        throw cannot("change the owner of", path, "it is not a directory");
      const inMount = (key: string) =>
        [...this.#mounts].some((at) => at.startsWith(`${real}/`) && `${key}/`.startsWith(`${at}/`));
      return this.#whole(real)
        .filter(([key]) => !inMount(key))
        .toSorted(([a], [b]) => b.length - a.length);
    };
    const give = (entries: readonly [string, FakeEntry][]) => {
      for (const [key, entry] of entries) this.tree.set(key, { ...entry, uid });
    };
    await this.#gate.write(
      `files.giveTree ${path} ${uid}`,
      () => {
        give(all());
        const real = this.#resolve(path);
        const root = this.tree.get(real);
        if (root !== undefined) this.tree.set(real, { ...root, mode: 0o700 });
      },
      () => give(all().slice(0, -1).slice(0, 2)),
    );
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#gate.write(`files.rename ${from} ${to}`, () => {
      const source = this.#parentResolved(from);
      const target = this.#parentResolved(to);
      if (!this.tree.has(source)) throw cannot("rename", from, "it does not exist");
      if (!this.tree.has(posix.dirname(target))) throw cannot("rename to", to, "its directory is not there");
      this.#move(source, target);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#gate.write(
      `files.remove ${path}`,
      () => {
        const mount = [...this.#mounts].find((one) => one === path || one.startsWith(`${path}/`));
        if (mount !== undefined) throw cannot("remove", path, `a file system is mounted on ${mount}`);
        this.drop(path);
      },
      () => {
        const real = this.#parentResolved(path);
        const children = this.#children(real);
        if (children[0] !== undefined) this.drop(posix.join(real, children[0]));
      },
    );
  }

  async removeEmptyDirectory(path: string): Promise<void> {
    await this.#gate.write(`files.removeEmptyDirectory ${path}`, () => {
      const real = this.#parentResolved(path);
      const there = this.tree.get(real);
      const isEmpty = there?.kind === "directory" && this.#children(real).length === 0;
      if (isEmpty && !this.#mounts.has(real)) this.tree.delete(real);
    });
  }

  async copyTree(from: string, to: string, only?: readonly string[]): Promise<void> {
    const temporary = this.#temporary(to);
    await this.#gate.write(
      `files.copyTree ${from} ${to}`,
      () => {
        this.#makeParents(to);
        this.#dropLeftovers(to);
        this.#copy(this.#resolve(from), temporary, only);
        this.drop(to);
        this.#move(temporary, this.#parentResolved(to));
      },
      () => {
        this.#makeParents(to);
        this.#set(temporary, { kind: "directory", text: "", mode: 0o755 });
      },
    );
  }

  async link(target: string, path: string): Promise<void> {
    await this.#gate.write(`files.link ${target} ${path}`, () => {
      if (this.tree.get(this.#parentResolved(path))?.kind === "directory") {
        throw cannot("link", path, "it is a directory");
      }
      this.#dropLeftovers(path);
      this.putLink(target, path);
    });
  }

  #set(path: string, entry: Omit<FakeEntry, "modifiedAt">): void {
    this.tree.set(path, { ...entry, modifiedAt: this.#now() });
  }

  #temporary(path: string): string {
    const real = this.#parentResolved(path);
    return posix.join(
      posix.dirname(real),
      `.${posix.basename(real)}${TEMPORARY_MARK}${this.#gate.generation}.x`,
    );
  }

  #dropLeftovers(path: string): void {
    const prefix = this.#temporary(path).replace(/\d+\.x$/, "");
    for (const key of this.tree.keys()) {
      if (key.startsWith(prefix)) this.tree.delete(key);
    }
  }

  #whole(real: string): [string, FakeEntry][] {
    return [...this.tree].filter(([key]) => key === real || key.startsWith(insideOf(real)));
  }

  #children(real: string): string[] {
    const prefix = insideOf(real);
    return [...this.tree.keys()]
      .filter((key) => key.startsWith(prefix) && key !== "/" && !key.slice(prefix.length).includes("/"))
      .map((key) => key.slice(prefix.length))
      .sort();
  }

  #copy(from: string, to: string, only: readonly string[] | undefined): void {
    const source = this.tree.get(from);
    if (source?.kind !== "directory") throw cannot("copy", from, "it is not a directory");
    for (const [key, entry] of this.#whole(from)) {
      const inside = key.slice(insideOf(from).length);
      if (key === from || isIncluded(inside, only)) this.#set(to + key.slice(from.length), entry);
    }
  }

  #move(from: string, to: string): void {
    for (const [key, entry] of this.#whole(from)) {
      this.tree.delete(key);
      this.tree.set(to + key.slice(from.length), entry);
    }
  }

  #makeParents(path: string): void {
    const parent = posix.dirname(posix.normalize(path));
    if (parent === "/") return;
    this.#makeParents(parent);
    const real = this.#resolve(parent);
    const there = this.tree.get(real);
    if (there === undefined) this.#set(real, { kind: "directory", text: "", mode: 0o755 });
    else if (there.kind !== "directory") throw cannot("write", path, `${parent} is not a directory`);
  }

  #parentResolved(path: string): string {
    const normal = trimmed(path);
    if (normal === "/") return "/";
    return posix.join(this.#resolve(posix.dirname(normal)), posix.basename(normal));
  }

  #resolve(path: string, links = 0): string {
    if (links > MAX_LINKS) throw cannot("read", path, "too many symbolic links");
    const normal = trimmed(path);
    if (normal === "/") return "/";
    const parent = this.#resolve(posix.dirname(normal), links);
    const here = posix.join(parent, posix.basename(normal));
    const entry = this.tree.get(here);
    if (entry?.kind !== "symlink") return here;
    return this.#resolve(posix.resolve(parent, entry.text), links + 1);
  }
}

function trimmed(path: string): string {
  if (!path.startsWith("/")) throw new Error(`a path must be absolute: ${path}`);
  const normal = posix.normalize(path);
  return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

function insideOf(directory: string): string {
  return directory === "/" ? "/" : `${directory}/`;
}

function cannot(verb: string, path: string, why: string): OperatorError {
  return new OperatorError({ exit: "unavailable", what: `Cannot ${verb} ${path}.`, why });
}
