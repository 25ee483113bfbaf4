import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PlanItem } from "../../../src/engine/events.ts";
import { EXIT_CODES, OperatorError, type OperatorErrorFields } from "../../../src/errors.ts";
import { errorLines, oneLine, planLines, printable, table, wrap } from "../../../src/ui/text.ts";
import { certificatesInPem } from "../../../src/settings/certificates.ts";
import { createAuthority } from "../../support/certificates.ts";
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

  it("puts a long word below the other columns if it fits only there", () => {
    const id = "w".repeat(60);
    expect(
      table([
        ["a", "x".repeat(20), "some words"],
        ["b", "", `some; ${id}`],
        ["", "", id],
      ]),
    ).toEqual([`  a  ${"x".repeat(20)}  some words`, "  b", `      some; ${id}`, `      ${id}`]);
  });

  it("puts the last column below if the others leave no space", () => {
    expect(table([["x".repeat(70), "some words"]])).toEqual([`  ${"x".repeat(70)}`, "      some words"]);
  });
});

describe("planLines", () => {
  it("shows a certificate by its fingerprint and its end, and what is none by its length", async () => {
    const authority = await createAuthority();
    await authority.close();
    const setting = (value: string) => `STORAGE_API_CA (none) -> ${value} (--invite)`;
    const settings = [
      setting(certificatesInPem(authority.certificate) ?? ""),
      setting(`MI${"A".repeat(556)}`),
    ];
    const change = { kind: "write", summary: "write .env" };
    const item = { step: "env-file", title: "", evidence: {}, drift: settings, settings, changes: [change] };
    const shown = planLines([{ ...item, state: "drifted" }])
      .join("\n")
      .replaceAll(/\s+/g, " ");
    expect(shown).toMatch(/-> certificate [0-9a-f]{16}\.\.\. until \d{4}-\d\d-\d\d \(--invite\)/);
    expect(shown).toContain("-> MIAAAAAAAAAA... (558 characters) (--invite)");
    expect(shown).not.toContain("reason:");
  });

  it("shows one line per change, the reason of a repair, what stays, and the confirmations", () => {
    expect(`${planLines(REALISTIC_PLAN).join("\n")}\n`).toMatchInlineSnapshot(`
      "
        + install   the packages docker.io, docker-cli, iptables, ca-certificates,
                    docker-compose
        + start     the Docker engine, now and at every boot
        ~ repair    write /opt/fula-master/.env: 1 setting
                    reason: WEBUI_PORT is not as desired
                    reason: others can read it: mode 644
        ~ repair    bring up pinning-api
                    reason: fula-pinning-api has exited (exit code 137)
        = unchanged cli, writer, images, compose-file, postgres, snapshot-cron

        Confirmation required (--yes): Install docker.io, docker-cli, iptables,
          ca-certificates, docker-compose from the packages of Debian GNU/Linux 13
          (trixie)?

        4 changes. Nothing has been changed yet.
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
  });

  it("is empty if there is nothing to do", () => {
    expect(planLines(REALISTIC_PLAN.filter(({ state }) => state === "ours"))).toEqual([]);
    expect(planLines([])).toEqual([]);
  });

  it("shows the verb of each new thing in its own column", () => {
    const summaries = [
      "install the package cron",
      "start cron, now and at every boot",
      "write /opt/fula-master/.env: 25 settings, 5 new secrets",
      "make the ed25519 key /opt/fula-master/snapshot-ed25519.pem",
      "write its public half to /opt/fula-master/snapshot-ed25519.pub.pem",
      "write down in /opt/fula-writer/x that the data there is not ours to remove",
      "bring up postgres",
      "migrate the database: 001_schema.sql: apply",
      "take the first snapshot of the pinset",
      "switch to it",
    ];
    const plan = summaries.map((summary) => itemOf({ state: "absent", changes: [{ kind: "k", summary }] }));
    expect(`${planLines(plan).join("\n")}\n`).toMatchInlineSnapshot(`
      "
        + install   the package cron
        + start     cron, now and at every boot
        + create    /opt/fula-master/.env: 25 settings, 5 new secrets
        + create    the ed25519 key /opt/fula-master/snapshot-ed25519.pem
        + create    its public half to /opt/fula-master/snapshot-ed25519.pub.pem
        + create    write down in /opt/fula-writer/x that the data there is not ours
                    to remove
        + start     postgres
        + migrate   the database: 001_schema.sql: apply
        + take      the first snapshot of the pinset
        + create    switch to it

        10 changes. Nothing has been changed yet.
      "
    `);
  });

  it("names what is blocked and what to do about it, and what is adopted", () => {
    const why = "The container postgres-pinning was created by the compose project acme.";
    const blocked = itemOf({ why, remedy: "Stop and rename it. Or take it over with --adopt postgres." });
    const adopted = itemOf({ why, changes: [{ kind: "k", summary: "write the file" }] });
    expect(`${planLines([blocked]).join("\n")}\n`).toMatchInlineSnapshot(`
      "
        ! blocked   postgres: The container postgres-pinning was created by the
                    compose project acme.
                    Stop and rename it. Or take it over with --adopt postgres.

        1 blocked. Nothing has been changed.
      "
    `);
    expect(`${planLines([blocked, adopted, itemOf({ why })]).join("\n")}\n`).toMatchInlineSnapshot(`
      "
        ! blocked   postgres: The container postgres-pinning was created by the
                    compose project acme.
                    Stop and rename it. Or take it over with --adopt postgres.
        ~ adopt     write the file
                    reason: The container postgres-pinning was created by the compose
                    project acme.
        = unchanged postgres

        1 change, 1 blocked. Nothing has been changed.
      "
    `);
  });

  it("lists the settings that the run changes by themselves, with their source", () => {
    const settings = [
      "KUBO_IMAGE ipfs/kubo:v0.42.0 -> ipfs/kubo:v0.43.1 (default released)",
      "REPL_MIN 2 -> 3 (--set)",
      "KEEP 28 -> 28 (default released)",
      "BASE_RPC_URL (secret) -> (secret) (default released)",
    ];
    const changes = [{ kind: "k", summary: "write /opt/fula-master/.env: 1 setting" }];
    const drift = [...settings, "other users can read it: mode 644"];
    const changed = itemOf({ state: "drifted", changes, drift, settings });
    const created = itemOf({ state: "absent", changes, settings: ["KEEP (none) -> 7 (environment)"] });
    expect(`${planLines([changed, created]).join("\n")}\n`).toMatchInlineSnapshot(`
      "
        ~ repair    write /opt/fula-master/.env: 1 setting
                    reason: other users can read it: mode 644
        ~ setting   KUBO_IMAGE ipfs/kubo:v0.42.0 -> ipfs/kubo:v0.43.1 (default
                    released)
        ~ setting   REPL_MIN 2 -> 3 (--set)
        ~ setting   no longer saved, the value stays: KEEP, BASE_RPC_URL
        + create    /opt/fula-master/.env: 1 setting
        + setting   KEEP (none) -> 7 (environment)

        2 changes. Nothing has been changed yet.
      "
    `);
  });

  it("fits 80 columns, and prints no control characters", () => {
    const summary = fc.array(fc.string({ unit: "binary", maxLength: 60 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(summary, fc.constantFrom("absent", "drifted", "foreign"), (words, state) => {
        const text = words.map((word) => word.replaceAll(/\s/g, "")).join(" ");
        const changes = [{ kind: "k", summary: text }];
        const lines = planLines([itemOf({ state, why: text, drift: [text], changes })]);
        for (const line of lines) {
          expect(line.length).toBeLessThanOrEqual(80);
          expect(line).not.toMatch(/\p{Cc}/u);
        }
      }),
    );
  });
});

function itemOf(parts: Partial<PlanItem>): PlanItem {
  return {
    step: "postgres",
    title: "Postgres",
    state: "foreign",
    evidence: {},
    drift: [],
    changes: [],
    ...parts,
  };
}

describe("errorLines", () => {
  it("lists three foreign things", () => {
    expect(
      `\n${render({
        exit: "foreign",
        what: "Found 3 things on this machine that fula-node did not create, or that are not safe to change.",
        why: "Continuing could overwrite someone else's work or data.",
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
      fula-node: Found 3 things on this machine that fula-node did not create, or that
                 are not safe to change.

        Why:     Continuing could overwrite someone else's work or data.

        1. env-file: POSTGRES_PASSWORD, ENCRYPTION_KEY are lost while data made with
           them lives (Postgres volume fula-master_pgdata).
           Do: Put /opt/fula-master/.env back from your backup, or give the old
               values: --set POSTGRES_PASSWORD=VALUE --set ENCRYPTION_KEY=VALUE.

        2. postgres: The container postgres-pinning was made by the compose project
           acme.
           Do: Stop and rename it. Or take it over with --adopt postgres.

        3. snapshot-cron: /etc/cron.d/fula-pinset-snapshot was not written by
           fula-node.
           Do: Move it out of /etc/cron.d. Or take it over with --adopt snapshot-cron.

        Do:      Correct what is listed, then run again.
        Changed: nothing.

      Exit code 23 (foreign).
      "
    `);
  });

  it("lists why a machine is not ready", () => {
    expect(
      `\n${render({
        exit: "preflight",
        what: "2 things are in the way.",
        remedy: "Correct what is listed, then run again.",
        problems: [
          {
            subject: "ports",
            what: "Port 5432 (Postgres) is taken: postgres (process 812, unit postgresql.service) listens on 127.0.0.1:5432.",
            remedy: "Stop it. Or choose another: --set POSTGRES_PORT=PORT.",
          },
          {
            subject: "CLUSTERNAME",
            what: 'CLUSTERNAME given by flag is "f\\u0443la"; it must be 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, starting with a letter or digit.',
            remedy: "Give another value: --set CLUSTERNAME=VALUE.",
          },
        ],
      })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: 2 things are in the way.

        1. ports: Port 5432 (Postgres) is taken: postgres (process 812, unit
           postgresql.service) listens on 127.0.0.1:5432.
           Do: Stop it. Or choose another: --set POSTGRES_PORT=PORT.

        2. CLUSTERNAME given by flag is "f\\u0443la"; it must be 1 to 64 characters of
           a-z, A-Z, 0-9, dot, dash and underscore, starting with a letter or digit.
           Do: Give another value: --set CLUSTERNAME=VALUE.

        Do:      Correct what is listed, then run again.
        Changed: nothing.

      Exit code 22 (preflight).
      "
    `);
  });

  it("shows a run that stopped before the end, with its log unchanged", () => {
    expect(
      `\n${render({
        exit: "interrupted",
        what: "docker compose could not bring up pinning-api, webui of fula-master.",
        why: " Container fula-pinning-api  Starting\r\n\u001B[31mError\u001B[0m response from daemon: driver failed programming external connectivity on endpoint fula-pinning-api (4f1d0e):\n\n\tBind for 127.0.0.1:6000 failed\u0007: port is already allocated\n\n",
        remedy: "Fix the cause, then run again.",
        changed:
          "Done before this, and kept: postgres: bring up postgres. Running again is safe and continues from here.",
      })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: docker compose could not bring up pinning-api, webui of fula-master.

        Why:     Container fula-pinning-api  Starting
                 Error response from daemon: driver failed programming external connectivity on endpoint fula-pinning-api (4f1d0e):

                   Bind for 127.0.0.1:6000 failed: port is already allocated
        Do:      Fix the cause, then run again.
        Changed: Done before this, and kept: postgres: bring up postgres. Running
                 again is safe and continues from here.

      Exit code 26 (interrupted).
      "
    `);
  });

  it("shows one problem without a number, and says that nothing was changed", () => {
    expect(
      `\n${render({ exit: "usage", what: "The flags can't be understood.", problems: [{ subject: "--set", what: "The first --set is not of the form KEY=VALUE." }] })}\n`,
    ).toMatchInlineSnapshot(`
      "
      fula-node: The flags can't be understood.

        --set: The first --set is not of the form KEY=VALUE.

        Do:      Correct what is listed, then run again.
        Changed: nothing.

      Exit code 2 (usage).
      "
    `);
  });

  it.each(["The volume is of another Postgres.", "postgres: The volume is of another Postgres."])(
    "does not repeat a problem that is the headline: %s",
    (what) => {
      const problem = {
        subject: "postgres",
        what: "The volume is of another Postgres.",
        remedy: "Set POSTGRES_IMAGE.",
      };
      expect(render({ exit: "foreign", what, problems: [problem] })).toBe(
        `fula-node: ${what}\n\n  Do:      Set POSTGRES_IMAGE.\n  Changed: nothing.\n\nExit code 23 (foreign).`,
      );
    },
  );

  it("always says what, whether anything was changed, and the exit code, for every exit there is", () => {
    for (const [exit, code] of Object.entries(EXIT_CODES)) {
      const text = render({ exit: exit as keyof typeof EXIT_CODES, what: "It failed." });
      expect(text).toBe(`fula-node: It failed.\n\n  Changed: nothing.\n\nExit code ${code} (${exit}).`);
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
  it("keeps text, and removes what moves the cursor, changes colours or rings", () => {
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
