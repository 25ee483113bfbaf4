import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PlanItem } from "../../../src/engine/events.ts";
import { EXIT_CODES, OperatorError, type OperatorErrorFields } from "../../../src/errors.ts";
import { errorLines, oneLine, planLines, printable, table, wrap } from "../../../src/ui/text.ts";
import { REALISTIC_PLAN } from "../../support/ui-samples.ts";

function render(fields: OperatorErrorFields): string {
  return errorLines(new OperatorError(fields), EXIT_CODES[fields.exit]).join("\n");
}

describe("wrap", () => {
  it("fits the width where words allow, loses nothing, and breaks no word", () => {
    const text = fc
      .array(fc.stringMatching(/^[a-z/=-]{1,100}$/), { minLength: 1 })
      .map((words) => words.join(" "));
    fc.assert(
      fc.property(text, fc.integer({ min: 10, max: 80 }), (words, width) => {
        const lines = wrap(words, width);
        expect(lines.join(" ")).toBe(words);
        for (const line of lines) expect(line.length <= width || !line.includes(" ")).toBe(true);
      }),
    );
  });
});

describe("table", () => {
  it("fits 80 columns where words allow, and aligns", () => {
    const cell = fc
      .array(fc.stringMatching(/^[a-z]{1,20}$/), { maxLength: 30 })
      .map((words) => words.join(" "));
    const id = fc.stringMatching(/^[a-z-]{1,30}$/);
    fc.assert(
      fc.property(fc.array(fc.tuple(id, id, cell), { minLength: 1, maxLength: 8 }), (rows) => {
        for (const line of table(rows)) {
          expect(line.length).toBeLessThanOrEqual(80);
          expect(line).toBe(line.trimEnd());
        }
      }),
    );
  });

  it("shows rows as a person expects them", () => {
    expect(
      `\n${table([["ours", "docker", "fine"], ["drifted", "env-file", `${"word ".repeat(15)}/${"path/".repeat(15)}end`], ["x"]]).join("\n")}\n`,
    ).toMatchInlineSnapshot(`
      "
        ours     docker    fine
        drifted  env-file  word word word word word word word word word word word word
                           word word word
                           /path/path/path/path/path/path/path/path/path/path/path/path/path/path/path/end
        x
      "
    `);
    expect(table([])).toEqual([]);
  });

  it("puts the last column below where the others leave no room", () => {
    expect(table([["x".repeat(70), "some words"]])).toEqual([`  ${"x".repeat(70)}`, "      some words"]);
  });
});

describe("planLines", () => {
  it("tells what is to be done, and why", () => {
    expect(`\n${planLines(REALISTIC_PLAN).join("\n")}\n`).toMatchInlineSnapshot(`
      "
      Plan
        absent   docker    install the packages docker.io, docker-cli, iptables,
                           ca-certificates, docker-compose
                           start the Docker engine, now and at every boot
        drifted  env-file  write /opt/fula-master/.env: 1 settings
                           because: not as wished: WEBUI_PORT
                           because: others can read it: mode 644
        drifted  services  bring up pinning-api
                           because: fula-pinning-api has exited (exit code 137)
        As wished: cli, writer, images, compose-file, postgres, snapshot-cron
        Confirmation required (--yes): Install docker.io, docker-cli, iptables,
          ca-certificates, docker-compose from the packages of Debian GNU/Linux 13
          (trixie)?
      "
    `);
  });

  it("does not ask for a consent that was given", () => {
    const given = REALISTIC_PLAN.map((item) =>
      item.consent === undefined ? item : { ...item, consent: { ...item.consent, given: true } },
    );
    const asks = (items: readonly PlanItem[]) =>
      planLines(items).filter((line) => line.includes("--yes") || line.includes("(trixie)"));
    expect(asks(REALISTIC_PLAN)).toHaveLength(2);
    expect(asks(given)).toEqual([]);
    expect(planLines(given)).toEqual(planLines(REALISTIC_PLAN).slice(0, -3));
  });

  it("says so where nothing is to be done", () => {
    const idle = REALISTIC_PLAN.filter(({ state }) => state === "ours");
    expect(planLines(idle)).toEqual([`Nothing to do: all ${idle.length} things are as wished.`]);
    expect(planLines(idle.slice(0, 1))).toEqual(["Nothing to do: all is as wished."]);
    expect(planLines([])).toEqual(["Nothing to do: all is as wished."]);
  });

  it("names a foreign thing, and leaves the reasons to the error", () => {
    const foreign: PlanItem = {
      step: "postgres",
      title: "database",
      state: "foreign",
      evidence: {},
      drift: [],
      why: "It is somebody else's.",
      remedy: "Move it.",
      changes: [],
    };
    expect(planLines([foreign])).toEqual(["Plan", "  foreign  postgres  database"]);
  });
});

describe("errorLines", () => {
  it("tells three foreign things at 3 a.m.", () => {
    expect(
      `\n${render({
        exit: "foreign",
        what: "3 things on this machine are not ours to touch.",
        why: "Going on could overwrite somebody else's work or data.",
        problems: [
          {
            subject: "env-file",
            what: "POSTGRES_PASSWORD, ENCRYPTION_KEY are lost while data made with them lives (Postgres volume fula-master_pgdata).",
            remedy:
              "Put /opt/fula-master/.env back from your backup, or give the old values: --set POSTGRES_PASSWORD=VALUE --set ENCRYPTION_KEY=VALUE.",
          },
          {
            subject: "postgres",
            what: "The container postgres-pinning was made by the compose project acme.",
            remedy: "Stop and rename it. Or take it over with --adopt postgres.",
          },
          {
            subject: "snapshot-cron",
            what: "/etc/cron.d/fula-pinset-snapshot was not written by fula-node.",
            remedy: "Move it out of /etc/cron.d. Or take it over with --adopt snapshot-cron.",
          },
        ],
      })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: 3 things on this machine are not ours to touch.
        Why:     Going on could overwrite somebody else's work or data.

        1. env-file: POSTGRES_PASSWORD, ENCRYPTION_KEY are lost while data made with
           them lives (Postgres volume fula-master_pgdata).
           To do: Put /opt/fula-master/.env back from your backup, or give the old
                  values: --set POSTGRES_PASSWORD=VALUE --set ENCRYPTION_KEY=VALUE.

        2. postgres: The container postgres-pinning was made by the compose project
           acme.
           To do: Stop and rename it. Or take it over with --adopt postgres.

        3. snapshot-cron: /etc/cron.d/fula-pinset-snapshot was not written by
           fula-node.
           To do: Move it out of /etc/cron.d. Or take it over with --adopt
                  snapshot-cron.

        To do:   what is said above, then run again.
        Changed: nothing.
        Exit code 23 (foreign): something of somebody else is in the way.
      "
    `);
  });

  it("tells a machine that is not ready", () => {
    expect(
      `\n${render({
        exit: "preflight",
        what: "2 things are in the way.",
        remedy: "Mend what is listed, then run again.",
        problems: [
          {
            subject: "ports",
            what: "Port 5432 (Postgres) is taken: postgres (process 812, unit postgresql.service) listens on 127.0.0.1:5432.",
            remedy: "Stop it. Or choose another: --set POSTGRES_PORT=PORT.",
          },
          {
            subject: "CLUSTERNAME",
            what: 'CLUSTERNAME given by flag is "f\\u0443la"; it must be 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, beginning with a letter or digit.',
            remedy: "Give another value: --set CLUSTERNAME=VALUE.",
          },
        ],
      })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: 2 things are in the way.

        1. ports: Port 5432 (Postgres) is taken: postgres (process 812, unit
           postgresql.service) listens on 127.0.0.1:5432.
           To do: Stop it. Or choose another: --set POSTGRES_PORT=PORT.

        2. CLUSTERNAME given by flag is "f\\u0443la"; it must be 1 to 64 characters of
           a-z, A-Z, 0-9, dot, dash and underscore, beginning with a letter or digit.
           To do: Give another value: --set CLUSTERNAME=VALUE.

        To do:   Mend what is listed, then run again.
        Changed: nothing.
        Exit code 22 (preflight): this machine is not ready.
      "
    `);
  });

  it("tells a run that stopped part-way, with a log as it was", () => {
    expect(
      `\n${render({
        exit: "interrupted",
        what: "docker compose could not bring up pinning-api, webui of fula-master.",
        why: " Container fula-pinning-api  Starting\r\n\u001B[31mError\u001B[0m response from daemon: driver failed programming external connectivity on endpoint fula-pinning-api (4f1d0e):\n\n\tBind for 127.0.0.1:6000 failed\u0007: port is already allocated\n\n",
        remedy: "Mend what it says, then run again.",
        changed:
          "Done before this, and kept: postgres: bring up postgres. Running again is safe and goes on from here.",
      })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: docker compose could not bring up pinning-api, webui of fula-master.
        Why:     Container fula-pinning-api  Starting
                 Error response from daemon: driver failed programming external connectivity on endpoint fula-pinning-api (4f1d0e):

                   Bind for 127.0.0.1:6000 failed: port is already allocated
        To do:   Mend what it says, then run again.
        Changed: Done before this, and kept: postgres: bring up postgres. Running
                 again is safe and goes on from here.
        Exit code 26 (interrupted): stopped part-way; running again is safe.
      "
    `);
  });

  it("tells one problem without counting it, and says that nothing was changed", () => {
    expect(
      `\n${render({ exit: "usage", what: "The flags can't be understood.", problems: [{ subject: "--set", what: "The first --set is not of the form KEY=VALUE." }] })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: The flags can't be understood.

        - --set: The first --set is not of the form KEY=VALUE.

        To do:   what is said above, then run again.
        Changed: nothing.
        Exit code 2 (usage): the command line can't be understood.
      "
    `);
  });

  it("always says what, whether anything was changed, and the exit code, for every exit there is", () => {
    for (const [exit, code] of Object.entries(EXIT_CODES)) {
      const text = render({ exit: exit as keyof typeof EXIT_CODES, what: "It failed." });
      expect(text).toMatch(/^fula-node: It failed\.\n {2}Changed: nothing\.\n/);
      expect(text).toMatch(new RegExp(`Exit code ${code} \\(${exit}\\): .+\\.$`));
    }
  });

  it("counts to more than nine", () => {
    const problems = Array.from({ length: 12 }, (_, index) => ({
      subject: `s${index}`,
      what: "w",
      remedy: "r",
    }));
    const lines = render({ exit: "settings", what: "Much is wrong.", problems }).split("\n");
    expect(lines.filter((line) => /^ +\d+\. s/.test(line)).map((line) => line.indexOf(". "))).toEqual(
      Array.from({ length: 12 }, () => 4),
    );
  });
});

describe("printable", () => {
  it("leaves text, and takes out what moves a cursor, colours or rings", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(printable(text).replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
        expect(oneLine(text)).not.toContain("\n");
      }),
    );
    expect(printable("a\u001B[2K\u001B[1Gb\r\nc\td \u00E9\u{1F511}")).toBe("ab\nc  d \u00E9\u{1F511}");
    expect(oneLine(" 10 %\r 20 %\n")).toBe("10 % 20 %");
  });
});
