// Loaded with NODE_OPTIONS=--require into a run in a box: the disk is full at the next write that has not failed yet.
// FULL_DISK names a file, on another file system, with the writes that failed; each fails once, and then never again.
// So runs that are repeated until one ends well fail at each of their writes, in order. FULL_DISK_SHARE, such as 1/3, lets one of three
// writes fail: three boxes share the work.
"use strict";
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { syncBuiltinESMExports } = require("node:module");

const { readFileSync, appendFileSync } = fs;
const record = process.env.FULL_DISK;
let hasFailed = false;

/** The same for each run: without random parts, and with one name for the files of a copied directory. */
function nameOf(target) {
  return path
    .resolve(String(target))
    .replace(/\.fula-node-tmp\.[^/]*/, ".fula-node-tmp")
    .replace(/(\/cli\/[^/]+\/[^/]+)\/.*/, "$1/*")
    .replace(/\/[0-9a-f]{32}\.lock$/, "/NAME.lock")
    .replace(/\d{8}T\d{6}Z/g, "TIME");
}

function failOnce(call, target) {
  const name = `${call} ${nameOf(target)}`;
  // What is no file of the machine: pipes and devices.
  if (hasFailed || record === undefined || /^\/(?:proc|dev)\//.test(path.resolve(String(target)))) return;
  let failed = [];
  try {
    failed = readFileSync(record, "utf8").split("\n");
  } catch (thrown) {
    if (thrown.code !== "ENOENT") throw thrown;
  }
  const [share, shares] = (process.env.FULL_DISK_SHARE ?? "1/1").split("/").map(Number);
  if (failed.includes(name) || createHash("md5").update(name).digest()[0] % shares !== share - 1) return;
  appendFileSync(record, `${name}\n`);
  hasFailed = true;
  throw Object.assign(new Error(`ENOSPC: no space left on device, ${call} '${target}'`), {
    code: "ENOSPC",
    errno: -28,
    syscall: call,
    path: String(target),
  });
}

const isWriting = (flags) => (typeof flags === "number" ? (flags & 3) !== 0 : /[wa+]/.test(flags ?? "r"));
const isMaking = (flags) =>
  typeof flags === "number" ? (flags & fs.constants.O_CREAT) !== 0 : /[wa]/.test(flags ?? "r");

const { open } = fs.promises;
fs.promises.open = async (target, flags, ...rest) => {
  if (isMaking(flags) && !fs.existsSync(target)) failOnce("open", target);
  const handle = await open(target, flags, ...rest);
  if (!isWriting(flags)) return handle;
  for (const call of ["write", "writev", "writeFile", "appendFile", "sync", "datasync"]) {
    const real = handle[call].bind(handle);
    handle[call] = async (...args) => {
      failOnce(call.replace("File", ""), target);
      return await real(...args);
    };
  }
  return handle;
};

// The place of the path that is made, among the arguments.
for (const [call, at] of [
  ["rename", 1],
  ["copyFile", 1],
  ["symlink", 1],
  ["link", 1],
  ["mkdir", 0],
  ["writeFile", 0],
  ["appendFile", 0],
]) {
  const real = fs.promises[call];
  fs.promises[call] = async (...args) => {
    if (call !== "mkdir" || !fs.existsSync(args[at])) failOnce(call, args[at]);
    return await real(...args);
  };
}

const descriptors = new Map();
const { openSync, writeSync, mkdirSync } = fs;
fs.openSync = (target, flags, ...rest) => {
  if (isMaking(flags) && !fs.existsSync(target)) failOnce("open", target);
  const descriptor = openSync(target, flags, ...rest);
  if (isWriting(flags)) descriptors.set(descriptor, target);
  return descriptor;
};
fs.writeSync = (descriptor, ...rest) => {
  if (descriptors.has(descriptor)) failOnce("write", descriptors.get(descriptor));
  return writeSync(descriptor, ...rest);
};
fs.mkdirSync = (target, ...rest) => {
  if (!fs.existsSync(target)) failOnce("mkdir", target);
  return mkdirSync(target, ...rest);
};
syncBuiltinESMExports();
