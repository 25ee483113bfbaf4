import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { migratorOf, SHIPPED } from "../support/migrations.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { sql } from "../support/postgres-server.ts";
import { docker, isEngineThere } from "../support/tiny-image.ts";
import type { DrillContext, DrillOutcome } from "../../src/drills/drill.ts";
import { DUMP_MARK, dumpDrill } from "../../src/drills/dump-drill.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import { createHost } from "../../src/world.ts";

const isThere = isEngineThere();
if (!isThere && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

const host = createHost({ env: process.env, migrationsDir: SHIPPED, toolVersion: "0.0.0-test" });
const deps = { host, environment: process.env };

/** What is on the engine with the mark of this drill. */
function marked(): readonly string[] {
  const filter = ["--filter", `label=${DUMP_MARK}`, "--quiet"];
  return [docker("ps", "--all", ...filter), docker("volume", "ls", ...filter)].filter((text) => text !== "");
}

function volumes(): string {
  return docker("volume", "ls", "--quiet");
}

/** The container of the Postgres without network. */
function scratch(): string {
  return docker(
    "ps",
    "--filter",
    `label=${DUMP_MARK}`,
    "--filter",
    "name=fula-drill-postgres",
    "--format",
    "{{.Names}}",
  );
}

function inScratch(text: string): string {
  return docker(
    "exec",
    scratch(),
    "psql",
    "-h",
    "127.0.0.1",
    "-U",
    "postgres",
    "-d",
    "restored",
    "-qtAc",
    text,
  );
}

describe.runIf(isThere)("D9, a dump restored without network", () => {
  let source: DumpSource;
  let before: string;

  beforeAll(async () => {
    before = volumes();
    source = await startDumpSource("drill-dump");
    await migratorOf().up(source.target, { report: () => {} });
    await sql(source.target, FILL);
  });
  afterAll(() => {
    source.stop();
    expect(marked()).toEqual([]);
    expect(volumes()).toBe(before);
  });
  afterEach(async () => {
    await sql(source.target, "DROP SCHEMA IF EXISTS odd CASCADE");
  });

  function contextOf(
    given: Partial<DrillContext> & { readonly values?: Readonly<Record<string, string>> } = {},
  ): DrillContext {
    const { target, image } = source;
    const values: Readonly<Record<string, string>> = {
      POSTGRES_HOST: target.host,
      POSTGRES_PORT: String(target.port),
      POSTGRES_DB: target.database,
      POSTGRES_USER: target.user,
      POSTGRES_PASSWORD: target.password,
      POSTGRES_IMAGE: image,
      ...given.values,
    };
    return {
      master: { layout: masterLayout("/opt/fula-master"), values: (key) => values[key] },
      stop: new AbortController().signal,
      report: () => {},
      ...given,
    };
  }

  /** Runs the drill and cleans up, as the runner does. `when` is called with each line that it reports. */
  async function drill(
    when: (line: string) => void = () => {},
    values: Readonly<Record<string, string>> = {},
  ): Promise<DrillOutcome> {
    const context = contextOf({ report: when, values });
    try {
      return await dumpDrill.run(deps, context);
    } finally {
      await dumpDrill.cleanUp(deps, context);
      expect(marked()).toEqual([]);
    }
  }

  it("passes, and leaves nothing", async () => {
    await sql(source.target, ODD);
    const outcome = await drill();
    expect(outcome).toMatchObject({ state: "passed", todo: null });
    expect(outcome.summary).toMatch(
      /^\d+ tables, \d+ rows, a dump of .+, restored in .+; the copy is the same$/,
    );
  });

  it("reaches nothing from the restored copy, and shows no secret in Docker", async () => {
    const seen: string[] = [];
    const outcome = await drill((line) => {
      if (!line.startsWith("comparing")) return;
      seen.push(
        docker(
          "inspect",
          scratch(),
          "--format",
          "{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Ports}}",
        ),
      );
      seen.push(
        docker("ps", "--all", "--no-trunc", "--filter", `label=${DUMP_MARK}`, "--format", "{{.Command}}"),
      );
      const ids = docker("ps", "--all", "--quiet", "--filter", `label=${DUMP_MARK}`).split("\n");
      seen.push(docker("inspect", ...ids));
    });
    expect(outcome.state).toBe("passed");
    expect(seen[0]).toBe("none {}");
    expect(seen[1]).toContain("pg_dump");
    expect(seen.join("\n")).not.toContain(source.target.password.slice(0, 3));
    expect(JSON.stringify(outcome)).not.toContain(source.target.password.slice(0, 3));
  });
});

/** Some rows of each sort. */
const FILL = `
INSERT INTO users (username, password_hash, user_id) SELECT 'u' || n, 'h', 'i' || n FROM generate_series(1, 500) AS n;
INSERT INTO webui_users (email, user_id) SELECT 'e' || n, 'i' || n FROM generate_series(1, 300) AS n;
`;

/** What is easily dumped wrong. */
const ODD = `
CREATE SCHEMA odd;
CREATE TYPE odd.mood AS ENUM ('fine', 'so so');
CREATE TABLE odd."T able.s" (t double precision, raw bytea, at timestamptz, span interval, many text[], mood odd.mood, doc jsonb, of regclass);
INSERT INTO odd."T able.s" VALUES
  ('NaN', '\\x00ff', '2024-02-29 23:59:59.999999+13', '1 mon -3 days 00:00:01.5', '{a,NULL,"b,c"}', 'so so', '{"b": 1.0, "a": null}', 'odd."T able.s"'),
  ('-0', '', 'infinity', NULL, '{}', NULL, '"\\u00e9"', NULL), (0.1::float8 + 0.2, NULL, NULL, NULL, NULL, 'fine', NULL, 'pg_class');
`;
