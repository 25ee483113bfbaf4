import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { sha256 } from "../../support/fake-master.ts";
import { boxBefore, LAYOUT, lookAt, savedValues, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const FILE = LAYOUT.composeFile;

const before = await boxBefore("compose-file");
const step = await stepOn(before, "compose-file");
const desired = await textOnAFreshBox();

async function textOnAFreshBox(): Promise<string> {
  const host = before.copy();
  for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
  return host.files.textOf(FILE);
}

/** One of our files as an older version would have written it: another document, its marker true. */
function olderFile(change = (body: string) => body.replace("unless-stopped", "always")): string {
  const body = change(desired.slice(desired.indexOf("\n") + 1));
  return `# fula-node compose sha256=${sha256(body)} version=0.0.9\n${body}`;
}

stepLaws("compose-file", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "it was edited by hand",
      arrange: (host) => host.files.put(FILE, desired.replace("stop_signal: SIGINT", "stop_signal: SIGTERM")),
      names: /services\.postgres\.stop_signal is "SIGTERM"; expected "SIGINT"/,
    },
    {
      name: "an older version wrote it",
      arrange: (host) => host.files.put(FILE, olderFile()),
      names: /restart is "always"; expected "unless-stopped"/,
    },
    {
      name: "an older version wrote it, in which much is otherwise",
      arrange: (host) =>
        host.files.put(
          FILE,
          olderFile((body) => body.replaceAll(/^ {6}[A-Z_]+: .*\n/gm, "")),
        ),
      names:
        /^\d\d values differ from what these settings and this version give: of services\.postgres, services\.pinning-api, [^\n]+$/,
    },
    {
      name: "a service was taken out",
      arrange: (host) => {
        const body = desired.replace(/ {2}webui:\n(?: {4}.*\n)+/, "");
        expect(body).not.toBe(desired);
        host.files.put(FILE, body);
      },
      names: /services\.webui is missing/,
    },
    {
      name: "it is not valid YAML any more",
      arrange: (host) => host.files.put(FILE, `${desired}\n: [`),
      names: /not valid YAML/,
    },
  ],
  foreign: [
    {
      name: "somebody else's compose file",
      arrange: (host) => host.files.put(FILE, "services: {}\n"),
      why: /docker-compose\.yml was not written by fula-node/,
      adoptable: true,
    },
    {
      name: "an empty file",
      arrange: (host) => host.files.put(FILE, ""),
      why: /was not written by fula-node/,
      adoptable: true,
    },
  ],
});

describe("compose-file", () => {
  it("is written once, and what was there is kept next to it under its own hash", async () => {
    const host = before.copy();
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "write-compose", summary: `write ${FILE}`, path: FILE, keep: null },
    ]);
    const older = olderFile();
    host.files.put(FILE, older);
    const keep = `${FILE}.${sha256(older).slice(0, 12)}.old`;
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      { kind: "write-compose", summary: `write ${FILE}, keep the old file as ${keep}`, path: FILE, keep },
    ]);
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.files.textOf(keep)).toBe(older);
    expect(host.files.textOf(FILE)).toBe(desired);
  });

  it("keeps a claimed file, too", async () => {
    const host = before.copy();
    host.files.put(FILE, "services: {}\n");
    const { finding } = await lookAt(step, host);
    const changes =
      finding.state === "foreign" && finding.claim !== undefined ? step.plan(finding.claim) : [];
    for (const change of changes) await step.apply(change, host, () => {});
    const kept = [...host.files.tree].filter(([path]) => path.endsWith(".old")).map(([, { text }]) => text);
    expect(kept).toEqual(["services: {}\n"]);
  });

  it.each([
    ["a comment", (text: string) => text.replace("\nservices:", "\n# mine\nservices:")],
    ["another order of keys", (text: string) => text.replace(/^(name: .*\n)([^]*)$/m, "$2$1")],
  ])("is left alone if only its writing differs: %s", async (_name, rewrite) => {
    const host = before.copy();
    expect(rewrite(desired)).not.toBe(desired);
    host.files.put(FILE, rewrite(desired));
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });

  it("holds no secret, and refuses to start without one", async () => {
    const secrets = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"];
    const saved = savedValues(before);
    for (const key of secrets) {
      expect(desired).not.toContain(saved[key]);
      expect(desired).toContain(`\${${key}:?`);
    }
  });

  it("marks all that it makes as ours", () => {
    const document = parse(desired) as Record<string, Record<string, { labels: Record<string, string> }>>;
    const things = ["services", "volumes", "networks"].flatMap((section) =>
      Object.values(document[section] ?? {}),
    );
    expect(things.length).toBeGreaterThan(6);
    for (const { labels } of things) {
      expect(labels["land.fx.fula-node.owner"]).toBe("fula-node");
      expect(labels["land.fx.fula-node.step"]).toMatch(/^(postgres|services|edge)$/);
      expect(labels["land.fx.fula-node.spec"]).toMatch(/^[0-9a-f]{64}$/);
    }
  });
});
