// Loaded with NODE_OPTIONS=--require into a run in a box: kills it with SIGKILL at the moment that KILL_AT names.
//   journal PHASE NUMBER   right after that line of the journal (intent or done, counted from 1) is on disk
//   child WORD PATTERN     when a child with WORD in its arguments prints PATTERN; the child is killed too
//   query TEXT             right after a query with this text was sent to Postgres
//   next TEXT              right before the next query after one with this text is sent to Postgres
//   answer TEXT            right after these bytes came over a socket
//   owner NUMBER           right after so many files got another owner
// If KILL_INSTEAD has a shell command, that runs instead, once: it kills something else, and the run goes on.
"use strict";
const fs = require("node:fs");
const net = require("node:net");
const childProcess = require("node:child_process");
const { syncBuiltinESMExports } = require("node:module");

const [kind, first, second] = (process.env.KILL_AT ?? "").split("|");
const instead = process.env.KILL_INSTEAD;
let isOver = false;
const die = () => {
  if (instead === undefined) process.kill(process.pid, "SIGKILL");
  if (isOver) return;
  isOver = true;
  const { status, stderr } = childProcess.spawnSync("bash", ["-c", instead], { encoding: "utf8", env: {} });
  if (status !== 0) throw new Error(`${instead}: exit code ${status}: ${stderr}`);
};

if (kind === "journal") {
  const open = fs.promises.open;
  let seen = 0;
  fs.promises.open = async (path, ...rest) => {
    const handle = await open.call(fs.promises, path, ...rest);
    if (!String(path).endsWith("/journal.ndjson")) return handle;
    const sync = handle.sync.bind(handle);
    handle.sync = async () => {
      await sync();
      const last = fs.readFileSync(path, "utf8").trim().split("\n").at(-1) ?? "{}";
      if (JSON.parse(last).phase === first && ++seen === Number(second)) die();
    };
    return handle;
  };
} else if (kind === "child") {
  const spawn = childProcess.spawn;
  childProcess.spawn = (file, args, ...rest) => {
    const child = spawn.call(childProcess, file, args, ...rest);
    if (!(args ?? []).includes(first)) return child;
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk) => {
        text += chunk;
        if (!text.includes(second)) return;
        child.kill("SIGKILL");
        die();
      });
    }
    return child;
  };
} else if (kind === "query") {
  // oxlint-disable-next-line typescript/unbound-method -- it is called with its own `this` below
  const write = net.Socket.prototype.write;
  net.Socket.prototype.write = function (chunk, ...rest) {
    const done = write.call(this, chunk, ...rest);
    const bytes = Buffer.from(chunk);
    // The first byte of a simple query in PostgreSQL's protocol; an image's build context has the text, too.
    if (bytes[0] === "Q".charCodeAt(0) && bytes.includes(first)) setImmediate(die);
    return done;
  };
} else if (kind === "next") {
  // oxlint-disable-next-line typescript/unbound-method -- it is called with its own `this` below
  const write = net.Socket.prototype.write;
  let isNext = false;
  net.Socket.prototype.write = function (chunk, ...rest) {
    const bytes = Buffer.from(chunk);
    // A simple query, or one that is prepared.
    const isQuery = bytes[0] === "Q".charCodeAt(0) || bytes[0] === "P".charCodeAt(0);
    if (isQuery && isNext) die();
    if (isQuery && bytes[0] === "Q".charCodeAt(0) && bytes.includes(first)) isNext = true;
    return write.call(this, chunk, ...rest);
  };
} else if (kind === "answer") {
  // oxlint-disable-next-line typescript/unbound-method -- it is called with its own `this` below
  const push = net.Socket.prototype.push;
  net.Socket.prototype.push = function (chunk, ...rest) {
    const done = push.call(this, chunk, ...rest);
    if (Buffer.isBuffer(chunk) && chunk.includes(first)) setImmediate(die);
    return done;
  };
} else if (kind === "owner") {
  const { lchownSync } = fs;
  let seen = 0;
  fs.lchownSync = (...args) => {
    lchownSync(...args);
    if (++seen === Number(first)) die();
  };
}
syncBuiltinESMExports();
