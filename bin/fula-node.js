#!/usr/bin/env node
/* The syntax of this file is ECMAScript 5: every Node that ever shipped with npm can say what it is missing. */
var parts = process.versions.node.split(".");
var major = Number(parts[0]);
var minor = Number(parts[1]);

/* import() stands in texts, because an old Node fails on the mere sight of it. */
if (major > 20 || (major === 20 && minor >= 19)) {
  eval('import("node:crypto")').then(function (crypto) {
    /* Node 21.0 to 21.6 are newer than 20.19, and lack it. */
    if (typeof crypto.hash === "function") return eval('import("../dist/cli.js")');
    return refuse("crypto.hash, which Node.js 21 has from 21.7 on");
  });
} else refuse("parts of Node.js that came with that version");

function refuse(lacking) {
  var found = process.versions.node + " (" + process.execPath + ")";
  var what = "fula-node needs Node.js 20.19 or newer; this is " + found + ".";
  var why = "Why: it uses " + lacking + ". Nothing was changed on this machine.";
  var remedy =
    "What to do: Debian 13 has it (apt-get install nodejs npm); elsewhere see https://nodejs.org/en/download.";
  process.exitCode = 22;
  process.stderr.write([what, why, remedy, ""].join("\n"));
}
