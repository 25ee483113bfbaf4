// What effect-hook.cjs says of an effect: a name without what is random, and what a run sends to a server over a socket.
"use strict";
const net = require("node:net");

/** The name of the same thing in every run: without times, ids, hashes and random names. */
function asName(text) {
  return String(text)
    .replace(/\.fula-node-tmp\.[^/ ]*/g, ".fula-node-tmp")
    .replace(/\d{4}-?\d\d-?\d\dT[\d:.-]*Z?/g, "<time>")
    .replace(/\b12D3Koo\w+/g, "<peer>")
    .replace(/\b(?:Qm[1-9A-HJ-NP-Za-km-z]{44}|baf[a-z2-7]{50,})/g, "<cid>")
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<uuid>")
    .replace(/(?<![0-9a-z])[0-9a-f]{12,64}(?![0-9a-z])/g, "<id>")
    .replace(/(spool-|spill-|drill-)[0-9a-f]{8,}/g, "$1<id>")
    .replace(/\s+/g, " ")
    .slice(0, 200);
}

/** The phase, the step and the kind of change of a line of the journal, and nothing else of it. */
function headOf(data) {
  try {
    const { phase, step, change } = JSON.parse(String(data).trim());
    return { phase, step, kind: change.kind };
  } catch {
    return { phase: "unreadable" };
  }
}

const REQUEST = /^(POST|PUT|DELETE|PATCH|GET|HEAD|OPTIONS) (\S+) HTTP\/1\.1\r\n/;
/** Requests that only read although their method is another one: kubo takes nothing but POST. */
const READING_PATHS = [
  /^\/api\/v0\/(id|version|pin\/ls|repo\/stat|repo\/version|config|config\/show|bootstrap\/list|swarm\/(peers|addrs)|block\/(stat|get)|dag\/(stat|get|export)|cat|ls|refs|refs\/local|stats\/\w+|routing\/\w+|name\/resolve)(\?|$)/,
  /^\/v1\.\d+\/containers\/[^/]+\/wait/,
];
/** Requests of Docker whose answer tells how the work goes on. */
const TELLING = /^\/v1\.\d+\/(build|images\/load|images\/create)(\?|$)/;
const WRITING_SQL =
  /\b(insert|update|delete|create|alter|drop|truncate|grant|revoke|comment on|commit|do|call|merge|refresh|reindex|vacuum|nextval|setval)\b/i;

/** A statement without comments, texts and spaces that do not count. */
function bareSql(sql) {
  return sql
    .replace(/--[^\n]*/g, " ")
    .replace(/\/\*[^]*?\*\//g, " ")
    .replace(/'(?:[^']|'')*'/g, "?")
    .replace(/\b\d+\b/g, "?")
    .replace(/\s+/g, " ")
    .trim();
}

const writesSql = (bare) => WRITING_SQL.test(bare.replace(/\bfor (no key )?update\b/gi, " "));

/** The statements that a client's messages bring to Postgres: simple queries, and those that are to be prepared. */
function statementsIn(bytes) {
  const found = [];
  for (let at = 0; at + 5 <= bytes.length;) {
    const type = String.fromCharCode(bytes[at]);
    const size = bytes.readInt32BE(at + 1);
    const body = bytes.subarray(at + 5, at + 1 + size).toString("utf8");
    if (type === "Q") found.push(body.split("\0")[0]);
    if (type === "P") found.push(body.split("\0")[1] ?? "");
    at += 1 + size;
  }
  return found;
}

/** Reads an HTTP answer as it comes. Returns true for the bytes that complete it. */
function answerReader() {
  let head = "";
  let body = "";
  let left = null;
  return (chunk) => {
    let text = chunk.toString("latin1");
    if (left === null) {
      head += text;
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return false;
      text = head.slice(end + 4);
      const fields = head.slice(0, end);
      const status = Number(fields.slice(9, 12));
      if (status < 200) {
        head = text;
        return false;
      }
      const length = /^content-length: *(\d+)/im.exec(fields)?.[1];
      if (status === 204 || status === 304) return true;
      left = /^transfer-encoding: *chunked/im.test(fields)
        ? "chunked"
        : length === undefined
          ? "close"
          : Number(length);
    }
    if (left === "close") return false;
    if (left === "chunked") {
      body = (body + text).slice(-600);
      return body.endsWith("\r\n\r\n") && /(^|\r\n)0\r\n/.test(body);
    }
    left -= text.length;
    return left <= 0;
  };
}

/** Calls back when everything that was written to a socket has left this process. */
function whenSent(socket, then) {
  if (socket.writableLength === 0 && socket.writableCorked === 0 && !socket.connecting) then();
  else if (socket.connecting) setImmediate(whenSent, socket, then);
  else process.nextTick(() => (socket.writableLength === 0 ? then() : setImmediate(whenSent, socket, then)));
}

/** Watches every socket of the run: what it sends that changes something is an effect, from its first byte to the whole answer. */
function openAnswers({ Effect, note }) {
  const states = new WeakMap();
  const stateOf = (socket) => {
    if (!states.has(socket))
      states.set(socket, { effect: null, read: null, isPostgres: false, isTelling: false });
    return states.get(socket);
  };
  const finish = (state) => {
    if (state.isTelling) state.effect.during();
    state.effect.end();
    state.effect = null;
  };

  function onRequest(state, [, method, target], text) {
    const url = target.replace(/^\/v1\.\d+/, "");
    const host = url === target ? (/^host: *(\S+)/im.exec(text)?.[1] ?? "") : "docker";
    const name = /[?&](?:name|t|fromImage)=([^&]*)/.exec(host === "docker" ? url : "")?.[1];
    const what = `${method} ${host}${url.split("?")[0]}${name === undefined ? "" : ` ${decodeURIComponent(name)}`}`;
    if (/^(GET|HEAD|OPTIONS)$/.test(method)) return;
    if (READING_PATHS.some((one) => one.test(target))) {
      note({ at: "reads", what: asName(what) });
      return;
    }
    state.isTelling = TELLING.test(target);
    state.read = answerReader();
    state.effect = new Effect("request", what);
  }

  function onStatements(state, statements) {
    for (const sql of statements) {
      const bare = bareSql(sql);
      if (!writesSql(bare)) note({ at: "reads", what: `sql ${asName(bare.slice(0, 100))}` });
      else if (state.effect === null) state.effect = new Effect("sql", bare.slice(0, 100));
    }
  }

  // oxlint-disable-next-line typescript/unbound-method -- they are called with their own `this` below
  const { write, push } = net.Socket.prototype;
  net.Socket.prototype.write = function (chunk, ...rest) {
    const state = stateOf(this);
    const bytes = Buffer.isBuffer(chunk)
      ? chunk
      : Buffer.from(chunk, typeof rest[0] === "string" ? rest[0] : "utf8");
    const before = state.effect;
    if (state.isPostgres) onStatements(state, statementsIn(bytes));
    else if (bytes.length >= 8 && bytes.readInt32BE(0) === bytes.length && bytes.readInt32BE(4) === 196_608)
      state.isPostgres = true;
    else {
      const text = bytes.subarray(0, 8192).toString("latin1");
      const request = REQUEST.exec(text);
      if (request !== null) onRequest(state, request, text);
    }
    const done = write.call(this, chunk, ...rest);
    const { effect } = state;
    if (effect !== null && effect !== before && !state.isTelling) whenSent(this, () => effect.during());
    return done;
  };
  net.Socket.prototype.push = function (chunk, ...rest) {
    const state = stateOf(this);
    const { effect } = state;
    if (effect !== null && chunk === null) finish(state);
    else if (effect !== null && state.isPostgres) {
      // ReadyForQuery is the end of an answer of Postgres, and of what the server sends.
      if (chunk.length >= 6 && chunk.subarray(-6, -1).equals(Buffer.from([90, 0, 0, 0, 5]))) finish(state);
    } else if (effect !== null) {
      effect.parts += 1;
      if (state.isTelling && effect.parts > 1) effect.during();
      if (state.read(chunk)) finish(state);
    }
    return push.call(this, chunk, ...rest);
  };
}

module.exports = { answerReader, asName, bareSql, headOf, openAnswers, statementsIn, writesSql };
