import { isAdopted, unwritableOf } from "../docker/kept-service.ts";
import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { compareCompose } from "../docker/compose-render.ts";
import { keptName, staleScripts, writeCompose, type Project } from "../docker/compose-project.ts";

interface Seen {
  readonly text: string | null;
}

type ComposeFileChange = Change & {
  readonly kind: "write-compose";
  readonly path: string;
  readonly keep: string | null;
};

/** Which containers' definitions are written too. */
function recordsOf({ kept, directory }: Project): string {
  const names = [...(kept ?? [])].flatMap(([name, service]) => {
    if (!isAdopted(service)) return [];
    const { image, record } = service;
    const lost = unwritableOf(record);
    return [`${name} (${image}${lost.length === 0 ? "" : `, but not its ${lost.join(", ")}`})`];
  });
  return names.length === 0 ? "" : `; record in ${directory}/adopted how these run: ${names.join(", ")}`;
}

/** So many differences are listed that nobody made by hand: an upgrade has dozens. */
const FEW = 6;

/** `services.x.environment.Y is missing.` and such, as one line if there are many. */
function inShort(differences: readonly string[]): readonly string[] {
  if (differences.length <= FEW) return differences;
  const places = new Set(
    differences.map((one) => /^(?:services|volumes|networks)\.[^.: ]+|^[^.: ]+/.exec(one)?.[0] ?? one),
  );
  return [
    `${differences.length} values differ from what these settings and this version give: of ${[...places].join(", ")}`,
  ];
}

/** A project's compose file. Compares parsed documents, and keeps the old file next to the new one. */
export function composeFile(
  project: Project,
  hash: (text: string) => string,
): StepSpec<Seen, ComposeFileChange> {
  const path = project.file;
  return {
    id: "compose-file",
    title: `compose file of ${project.name}`,
    touches: "Writes `docker-compose.yml`. Keeps a copy of the old file next to it.",

    async probe(host): Promise<Finding<Seen>> {
      const text = await host.files.readText(path);
      const seen = { text };
      const verdict = compareCompose(text, project.text, hash);
      if (verdict.kind === "absent") return { state: "absent", seen, evidence: { [path]: "absent" } };
      const stale = (await staleScripts(host, project)).map((script) => `${script} is missing or differs`);
      if (verdict.kind === "same") {
        const evidence = { [path]: "same document" };
        return stale.length === 0
          ? { state: "ours", seen, evidence }
          : { state: "drifted", seen, drift: stale, evidence };
      }
      if (verdict.kind === "differs") {
        const evidence = {
          [path]: verdict.edited ? "ours, edited by hand" : "ours, different content",
          differences: verdict.differences.join("; "),
        };
        const drift = verdict.edited ? verdict.differences : inShort(verdict.differences);
        return { state: "drifted", seen, drift: [...drift, ...stale], evidence };
      }
      const evidence = { [path]: "no fula-node marker in its first line" };
      return {
        state: "foreign",
        evidence,
        why: `${path} was not written by fula-node.`,
        remedy: "If it is not needed, move it away.",
        claim: { state: "drifted", seen, drift: [`${path} was not written by fula-node`], evidence },
      };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { text } = finding.seen;
      const keep = text === null || text === project.text ? null : keptName(project, text, hash);
      return [
        {
          kind: "write-compose",
          summary: `write ${path}${keep === null ? "" : `, keep the old file as ${keep}`}${recordsOf(project)}`,
          path,
          keep,
        },
      ];
    },

    async apply(change, host) {
      await writeCompose(host, project, change.keep);
    },

    async verify(host) {
      const isWritten = compareCompose(await host.files.readText(path), project.text, hash).kind === "same";
      if (isWritten && (await staleScripts(host, project)).length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${path} does not have the content that was just written.`,
        remedy: "Another program changes this file. Find that program, then run again.",
      });
    },
  };
}
