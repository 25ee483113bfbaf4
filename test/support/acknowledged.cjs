// Runs in a box while a join runs there. Prints one JSON value per line, oldest first:
//   a string   a new line of the journal
//   an object  the files of the node at one moment, as path: sha256; all lines that the journal had by then are printed before it
// With --once it prints the files only.
"use strict";
const fs = require("node:fs");
const { createHash } = require("node:crypto");

const JOURNAL = "/opt/fula-master/journal.ndjson";
// Where each file is ours. The trees of versions, what programs log, and the data of kubo and ipfs-cluster are not in it.
const PLACES = ["/opt/fula-master", "/opt/fula-writer", "/etc/cron.d"];
const SKIPPED =
  /^(\/opt\/fula-master\/(cli|journal\.ndjson)|\/opt\/fula-writer\/(kubo|ipfs-cluster)$|.*\.log$|.*\.fula-node-tmp\.|.*\.partial$)/;

const print = (value) => fs.writeSync(1, `${JSON.stringify(value)}\n`);
const unlessGone = (read, otherwise) => {
  try {
    return read();
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return otherwise;
    throw error;
  }
};

function filesNow() {
  const found = {};
  const walk = (path) => {
    for (const entry of unlessGone(() => fs.readdirSync(path, { withFileTypes: true }), [])) {
      const inside = `${path}/${entry.name}`;
      if (SKIPPED.test(inside)) continue;
      if (entry.isDirectory()) walk(inside);
      else if (entry.isFile()) {
        const bytes = unlessGone(() => fs.readFileSync(inside), null);
        if (bytes !== null)
          found[inside] = bytes.length === 0 ? "empty" : createHash("sha256").update(bytes).digest("hex");
      }
    }
  };
  for (const place of PLACES) walk(place);
  return found;
}

let at = unlessGone(() => fs.statSync(JOURNAL).size, 0);
function printLines() {
  const text = unlessGone(() => fs.readFileSync(JOURNAL), Buffer.alloc(0)).subarray(at);
  const end = text.lastIndexOf("\n") + 1;
  at += end;
  const lines = text
    .subarray(0, end)
    .toString()
    .split("\n")
    .filter((line) => line !== "");
  for (const line of lines) print(line);
  return lines.length;
}

if (process.argv[2] === "--once") print(filesNow());
else {
  print({});
  setInterval(() => {
    if (printLines() === 0) return;
    const files = filesNow();
    printLines();
    print(files);
  }, 20);
}
