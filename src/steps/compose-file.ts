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

/** A project's compose file: parsed documents are compared, and the older file is kept beside the new. */
export function composeFile(
  project: Project,
  hash: (text: string) => string,
): StepSpec<Seen, ComposeFileChange> {
  const path = project.file;
  return {
    id: "compose-file",
    title: `compose file of ${project.name}`,
    touches: "Writes `docker-compose.yml`; an older one is kept beside it.",

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
        const evidence = { [path]: verdict.edited ? "ours, edited by hand" : "ours, another document" };
        return { state: "drifted", seen, drift: [...verdict.differences, ...stale], evidence };
      }
      const evidence = { [path]: "no marker of ours in its first line" };
      return {
        state: "foreign",
        evidence,
        why: `${path} was not written by fula-node.`,
        remedy: "Move it away if it is not needed.",
        claim: { state: "drifted", seen, drift: [`${path} is not ours`], evidence },
      };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { text } = finding.seen;
      const keep = text === null || text === project.text ? null : keptName(project, text, hash);
      return [
        {
          kind: "write-compose",
          summary: `write ${path}${keep === null ? "" : `, keep the older one as ${keep}`}`,
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
        what: `${path} is not as written.`,
        remedy: "Something else writes it; find that, then run again.",
      });
    },
  };
}
