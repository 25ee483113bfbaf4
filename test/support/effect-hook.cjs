// Loaded with NODE_OPTIONS=--require into a run in a box. It sees every call of the run that changes something at the border of its
// process: files, child processes, and what it sends to Docker, Postgres and other servers. Each is one effect with a key
// that is the same in every run: kind, name without what is random, and how often it came. It writes a trace to
// EFFECTS_TRACE, and kills the run with SIGKILL at the point that EFFECTS_KILL names (test/support/effects.ts has the form).
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const childProcess = require("node:child_process");
const { syncBuiltinESMExports } = require("node:module");
const { asName, headOf, openAnswers } = require("./effect-names.cjs");

const { openSync, writeSync, existsSync, lstatSync, readFileSync, readdirSync, readlinkSync } = fs;
const kill = process.env.EFFECTS_KILL === undefined ? null : JSON.parse(process.env.EFFECTS_KILL);
/** What the run itself started a fula-node for, such as `in snapshot take: `; empty in the run. */
const inner = process.env.EFFECTS_INNER ?? "";
const traceFile = process.env.EFFECTS_TRACE;
// Only a fula-node that the run starts is watched, too: its effects are effects of the run.
const passedOn = {};
for (const name of ["EFFECTS_TRACE", "EFFECTS_KILL", "EFFECTS_INNER", "NODE_OPTIONS"]) {
  if (process.env[name] !== undefined) passedOn[name] = process.env[name];
  delete process.env[name];
}
const trace = openSync(traceFile, "a", 0o600);
const note = (line) => writeSync(trace, `${JSON.stringify(line)}\n`);
const startOf = (pid) =>
  readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ")[19];
note({ at: "start", pid: process.pid, started: startOf(process.pid) });

/** How often each kind and name came. */
const seen = new Map();
/** The effects of writes that a rename will end, by their temporary name. */
const temporaries = new Map();
/** Effects on whole trees that are open: changes below them are their parts. */
const trees = new Map();

/** All processes that this one started, and theirs. */
function descendants() {
  const parents = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      parents.set(
        Number(pid),
        Number(
          readFileSync(`/proc/${pid}/stat`, "utf8")
            .replace(/^.*\) /, "")
            .split(" ")[1],
        ),
      );
    } catch {
      // It has ended since the directory was read.
    }
  }
  const mine = [process.pid];
  for (const pid of mine) for (const [child, parent] of parents) if (parent === pid) mine.push(child);
  return mine.slice(1);
}

function die(effect, at) {
  const children = descendants().map((pid) => {
    let started = "";
    try {
      started = startOf(pid);
    } catch {
      // It has just ended.
    }
    return { pid, started };
  });
  note({
    at: "kill",
    when: at,
    key: effect.key,
    pid: process.pid,
    children,
    withChildren: kill.children === true,
  });
  if (kill.children === true)
    for (const { pid } of children)
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        /* ended */
      }
  // A kill in a fula-node that the run started is a kill of both.
  if (inner !== "") process.kill(process.ppid, "SIGKILL");
  process.kill(process.pid, "SIGKILL");
}

/** One effect: `during` is where it is killed in its middle. */
class Effect {
  constructor(kind, name, more = {}) {
    const same = `${inner}${kind} ${asName(name)}`;
    const count = (seen.get(same) ?? 0) + 1;
    seen.set(same, count);
    this.key = `${same} #${count}`;
    this.parts = 0;
    this.isOver = false;
    // Nothing of the effect has happened yet, and no line of the trace says that it has begun.
    if (this.isAt("before")) die(this, "before");
    note({ at: "begin", key: this.key, ...more });
  }

  isAt(when) {
    return kill !== null && kill.when === when && kill.key === this.key;
  }

  during(part = 1) {
    if (!this.isOver && this.isAt("during") && part >= (kill.part ?? 1)) die(this, "during");
  }

  end(more = {}) {
    if (this.isOver) return;
    this.isOver = true;
    note({ at: "end", key: this.key, parts: this.parts, ...more });
    if (this.isAt("after")) die(this, "after");
  }
}

// --- files

const real = { ...fs.promises };
const inside = (name) => {
  const full = String(name);
  const fd = /^\/proc\/self\/fd\/\d+/.exec(full)?.[0];
  if (fd === undefined) return path.resolve(full);
  return `${readlinkSync(fd)}${full.slice(fd.length)}`;
};
/** The part of a path that a rename will replace, and the name that it will have. */
function temporaryOf(full) {
  const words = full.split("/");
  for (let at = words.length - 1; at > 0; at -= 1) {
    const final = /^\.(.+?)(?:\.fula-node-tmp\..+|\.partial)$/.exec(words[at])?.[1];
    if (final === undefined) continue;
    return { root: words.slice(0, at + 1).join("/"), final: [...words.slice(0, at), final].join("/") };
  }
  return null;
}
const isThere = (full) => {
  try {
    return lstatSync(full);
  } catch {
    return null;
  }
};
const treeOf = (full) =>
  [...trees].find(([root]) => full === root || full.startsWith(`${root}/`))?.[1] ?? null;

/** The effect to which a change of a path belongs: one that a rename ends, or a tree's, or none. */
function partOf(full) {
  const temporary = temporaryOf(full);
  if (temporary === null) {
    const tree = treeOf(full);
    if (tree !== null) tree.during((tree.parts += 1));
    return tree;
  }
  let effect = temporaries.get(temporary.root);
  if (effect === undefined) {
    effect = new Effect("write", temporary.final);
    temporaries.set(temporary.root, effect);
  }
  effect.parts += 1;
  return effect;
}

/** Wraps a call that changes one path. It is in flight when it is killed in its middle. */
function wrapCall(name, kind, isNoChange) {
  fs.promises[name] = async (target, ...rest) => {
    const call = () => real[name](target, ...rest);
    const full = inside(["link", "copy"].includes(kind) ? rest[0] : target);
    if (isNoChange(full, rest)) return await call();
    if (partOf(full) !== null) return await call();
    const effect = new Effect(kind, full);
    const done = call();
    effect.during();
    try {
      return await done;
    } finally {
      effect.end();
    }
  };
}
const isMissing = (full) => isThere(full) === null;
wrapCall("mkdir", "mkdir", existsSync);
wrapCall("unlink", "remove", isMissing);
wrapCall("rmdir", "remove", isMissing);
wrapCall("chmod", "chmod", (full, [mode]) => (isThere(full)?.mode & 0o7777) === mode);
wrapCall("chown", "chown", (full, [uid, gid]) => isThere(full)?.uid === uid && isThere(full)?.gid === gid);
wrapCall("lchown", "chown", (full, [uid, gid]) => isThere(full)?.uid === uid && isThere(full)?.gid === gid);
wrapCall("symlink", "link", () => false);
wrapCall("copyFile", "copy", () => false);
wrapCall("utimes", "utimes", () => false);
wrapCall("truncate", "truncate", () => false);

fs.promises.rm = async (target, ...rest) => {
  const full = path.resolve(String(target));
  if (isMissing(full)) return await real.rm(target, ...rest);
  const temporary = temporaryOf(full);
  // A temporary of a killed run has no effect here that it could belong to.
  if (temporary !== null && temporaries.has(temporary.root)) {
    const removed = await real.rm(target, ...rest);
    temporaries.get(temporary.root).end({ removed: true });
    temporaries.delete(temporary.root);
    return removed;
  }
  const effect = new Effect("remove", full);
  const done = real.rm(target, ...rest);
  effect.during();
  try {
    return await done;
  } finally {
    effect.end();
  }
};

fs.promises.rename = async (from, to) => {
  const [old, full] = [inside(from), inside(to)];
  const root = temporaryOf(old)?.root;
  const effect = root === old ? temporaries.get(old) : undefined;
  if (effect === undefined) {
    const moved = new Effect("rename", old);
    const done = real.rename(from, to);
    moved.during();
    try {
      return await done;
    } finally {
      moved.end();
    }
  }
  // Everything is written, nothing has its name yet.
  effect.during();
  try {
    return await real.rename(from, to);
  } finally {
    temporaries.delete(old);
    effect.end({ to: asName(full) });
  }
};

const WRITING = fs.constants.O_WRONLY | fs.constants.O_RDWR;
const isWriting = (flags) =>
  typeof flags === "number" ? (flags & WRITING) !== 0 : /[wa+]/.test(flags ?? "r");
const mustBeNew = (flags) =>
  typeof flags === "number" ? (flags & fs.constants.O_EXCL) !== 0 : String(flags).includes("x");

fs.promises.open = async (target, flags, ...rest) => {
  const full = inside(target);
  if (!isWriting(flags)) return watchReadOnly(await real.open(target, flags, ...rest), full);
  // This fails, and changes nothing.
  if (mustBeNew(flags) && isThere(full) !== null) return await real.open(target, flags, ...rest);
  if (partOf(full) !== null) return await real.open(target, flags, ...rest);
  const effect = new Effect("write", full);
  const handle = await real.open(target, flags, ...rest);
  const half = (data) => {
    const bytes = Buffer.from(data);
    if (!effect.isAt("during")) return;
    // A line that was cut off in its middle.
    writeSync(handle.fd, bytes.subarray(0, Math.ceil(bytes.length / 2)));
    die(effect, "during");
  };
  for (const name of ["writeFile", "appendFile", "write"]) {
    const call = handle[name].bind(handle);
    handle[name] = (data, ...more) => {
      half(data);
      // What the journal says of this moment: only its step and kind, never a value.
      if (full.endsWith("/journal.ndjson")) note({ at: "journal", ...headOf(data) });
      return call(data, ...more);
    };
  }
  const close = handle.close.bind(handle);
  handle.close = async () => {
    effect.during();
    await close();
    effect.end();
  };
  return handle;
};

/** A directory that is open only for reading can be given to another owner, with everything in it. */
function watchReadOnly(handle, full) {
  const call = {
    chmod: handle.chmod.bind(handle),
    chown: handle.chown.bind(handle),
    close: handle.close.bind(handle),
  };
  let effect = null;
  const change =
    (name) =>
    (...args) => {
      if (effect === null && treeOf(full) === null) trees.set(full, (effect = new Effect("give", full)));
      else partOf(full);
      return call[name](...args);
    };
  handle.chmod = change("chmod");
  handle.chown = change("chown");
  handle.close = async () => {
    await call.close();
    if (effect === null) return;
    trees.delete(full);
    effect.end();
  };
  return handle;
}

/** Synchronous calls: they are over when they return, so their middle is right after the call and before their end. */
for (const [name, kind, isNoChange] of [
  ["mkdirSync", "mkdir", existsSync],
  ["unlinkSync", "remove", isMissing],
  ["rmSync", "remove", isMissing],
  ["renameSync", "rename", () => false],
  ["writeFileSync", "write", () => false],
  ["lchownSync", "chown", () => false],
]) {
  const call = fs[name];
  fs[name] = (target, ...rest) => {
    const full = inside(target);
    if (isNoChange(full) || partOf(full) !== null) return call(target, ...rest);
    const effect = new Effect(kind, full);
    const result = call(target, ...rest);
    effect.during();
    effect.end();
    return result;
  };
}
fs.openSync = (target, flags, ...rest) => {
  const full = inside(target);
  const creates = isWriting(flags) && isThere(full) === null;
  if (!creates) return openSync(target, flags, ...rest);
  const effect = new Effect("create", full);
  const descriptor = openSync(target, flags, ...rest);
  effect.during();
  effect.end();
  return descriptor;
};

// --- programs

/** Programs that read only. The lock that flock takes ends with the run. */
const READING = [
  /^flock /,
  /^(docker|docker compose|apt-get|systemctl|node) (version|--version|info)/,
  /^docker compose version/,
  /^docker compose .* config /,
  /^dpkg-query /,
  /^apt-cache /,
  /^systemctl (is-|show|cat|list-)/,
  /^(ss|id|getent|uname|df|stat|findmnt|timedatectl) ?/,
  /^docker (ps|inspect|image inspect|image ls|images|logs|network ls|volume ls) ?/,
];
const spawn = childProcess.spawn;
childProcess.spawn = (file, args, ...rest) => {
  const words = [path.basename(file), ...(Array.isArray(args) ? args : [])].join(" ");
  if (READING.some((one) => one.test(`${words} `))) {
    note({ at: "reads", what: `run ${asName(words)}` });
    return spawn(file, args, ...rest);
  }
  const effect = new Effect("run", words);
  const verb = /^node \S+\/fula-node\.js ([a-z-]+(?: [a-z]+)?)/.exec(words)?.[1];
  if (verb !== undefined && inner === "") {
    const env = { ...rest[0]?.env, ...passedOn, EFFECTS_INNER: `in ${verb}: ` };
    rest[0] = { ...rest[0], env };
  }
  const child = spawn(file, args, ...rest);
  // Its first words say that it is at work. One that says nothing is killed when it runs.
  let isTalking = false;
  for (const stream of [child.stdout, child.stderr])
    stream?.once("data", () => {
      isTalking = true;
      effect.during();
    });
  child.once("exit", () => {
    if (!isTalking) effect.during();
    effect.end();
  });
  child.once("error", () => effect.end());
  return child;
};

openAnswers({ Effect, note });
syncBuiltinESMExports();
