#!/usr/bin/env node
/* The syntax of this file is ECMAScript 5: every Node that ever shipped with npm can say what it is missing. */
var parts = process.versions.node.split(".");
var major = Number(parts[0]);
var minor = Number(parts[1]);

if (major > 20 || (major === 20 && minor >= 19)) {
  /* As text, because an old Node fails on the mere sight of import(). */
  eval('import("../dist/cli.js")');
} else {
  var found = process.versions.node + " (" + process.execPath + ")";
  var what = "fula-node needs Node.js 20.19 or newer; this is " + found + ".";
  var why = "Why: it uses parts of Node.js that came with that version. Nothing was changed on this machine.";
  var remedy =
    "What to do: Debian 13 has it (apt-get install nodejs npm); elsewhere see https://nodejs.org/en/download.";
  process.exitCode = 22;
  process.stderr.write([what, why, remedy, ""].join("\n"));
}
