import { createRequire } from "node:module";
import { describe, expect, it } from "vitest";

const { answerReader, asName, bareSql, statementsIn, writesSql } = createRequire(import.meta.url)(
  "../support/effect-names.cjs",
) as {
  readonly answerReader: () => (chunk: Buffer) => boolean;
  readonly asName: (text: string) => string;
  readonly bareSql: (sql: string) => string;
  readonly statementsIn: (bytes: Buffer) => readonly string[];
  readonly writesSql: (bare: string) => boolean;
};

it.each([
  ["/opt/x/.file.fula-node-tmp.4711.0a1b2c3d4e5f", "/opt/x/.file.fula-node-tmp"],
  ["/opt/s/pinset-20261127T051500Z.manifest", "/opt/s/pinset-<time>.manifest"],
  [`docker start ${"ab".repeat(32)}`, "docker start <id>"],
  ["docker start fula-pinning-api", "docker start fula-pinning-api"],
  ["/opt/fula-master/cli/0.5.0", "/opt/fula-master/cli/0.5.0"],
])("the name of %s is that of every run", (text, name) => {
  expect(asName(text)).toBe(name);
});

it.each([
  ["SELECT 1", false],
  ["SELECT * FROM pins WHERE action = 'delete' FOR UPDATE", false],
  ["BEGIN; SET LOCAL lock_timeout = '1s'", false],
  ["SELECT updated_at FROM pins -- insert", false],
  ["WITH gone AS (DELETE FROM masters RETURNING 1) SELECT 1", true],
  ["/* note */ INSERT INTO pins VALUES (1)", true],
  ["CREATE INDEX CONCURRENTLY i ON pins (cid)", true],
  ["DO $$ BEGIN PERFORM 1; END $$", true],
  ["COMMIT", true],
  ["SELECT nextval('s')", true],
])("%s: %s", (sql, writes) => {
  expect(writesSql(bareSql(sql))).toBe(writes);
});

it("finds the statements in what a client sends to Postgres, and no value", () => {
  const message = (type: string, text: string): Buffer => {
    const body = Buffer.from(text);
    const head = Buffer.alloc(5);
    head.write(type);
    head.writeInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const sent = [
    message("P", "\0UPDATE a SET b = $1\0\0\0"),
    message("B", "\0\0secret"),
    message("Q", "COMMIT\0"),
  ];
  expect(statementsIn(Buffer.concat(sent))).toEqual(["UPDATE a SET b = $1", "COMMIT"]);
});

describe("an answer is complete", () => {
  const read = (...chunks: readonly string[]): readonly boolean[] => {
    const take = answerReader();
    return chunks.map((chunk) => take(Buffer.from(chunk)));
  };
  it("with its length, its last chunk, or a status without a body", () => {
    expect(read("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "ab", "cd")).toEqual([false, false, true]);
    expect(read("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n")).toEqual([false, true]);
    const chunked = ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nab\r\n", "0\r\n\r\n"];
    expect(read(...chunked)).toEqual([false, false, true]);
    expect(read("HTTP/1.1 200 OK\r\n\r\n", "until the connection is closed")).toEqual([false, false]);
  });
});
