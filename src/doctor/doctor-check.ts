import type { Container, DockerVersion } from "../docker/engine.ts";
import type { HostReader } from "../host.ts";
import type { NodeKind } from "../join/installed-node.ts";
import type { Values } from "../settings/context.ts";
import type { MasterLayout, StorageLayout } from "../settings/layout.ts";
import { judgeError, type Monotonic, within } from "../status/collect.ts";
import { LATE } from "../status/part.ts";
import { duration } from "../units.ts";
import type { Finding, Observation, Severity } from "./finding.ts";

/** What a check may look at. */
export interface Examined {
  readonly host: HostReader;
  /** Null if no node is installed here, or it is not known which one. */
  readonly kind: NodeKind | null;
  readonly layout: StorageLayout;
  /** The same paths with those of a master; null on a storage node. */
  readonly master: MasterLayout | null;
  /** The settings of the installed node; defaults where there is none. */
  readonly values: Values;
  /** Null if no engine answers. */
  readonly containers: () => Promise<readonly Container[] | null>;
  readonly engine: () => Promise<DockerVersion | null>;
  /** True for a container of this node, adopted ones too. */
  readonly isOurs: (container: Container) => boolean;
  /** The command that repairs this node. */
  readonly repair: string;
}

/** One check of `doctor` that no other verb makes. It writes nothing. */
export interface DoctorCheck {
  /** Stable: scripts may look for it. */
  readonly id: string;
  /** What it looks at, for the list in docs/doctor.md. */
  readonly title: string;
  /** What is said if nothing is wrong. */
  readonly fine: string;
  /**
   * What is wrong, or worth knowing; [] if nothing is. Null if this machine has no such thing. An OperatorError is a finding,
   * too.
   */
  look(examined: Examined): Promise<readonly Observation[] | null>;
}

/** How long one check may take. */
export const CHECK_MS = 8_000;

const SEVERITIES = { ok: "ok", attention: "warning", down: "error", unknown: "unknown" } as const;

/** The severity of what `status` calls a state. */
export function severityOf(state: keyof typeof SEVERITIES): Severity {
  return SEVERITIES[state];
}

/** Makes one check within its deadline. What can't be asked is unknown. */
export async function makeCheck(
  { id, fine, look }: Pick<DoctorCheck, "id" | "fine" | "look">,
  examined: Examined,
  clock: Monotonic,
): Promise<readonly Finding[]> {
  const seen = await observe(() => look(examined), clock);
  if (seen === null) return [];
  return seen.length === 0
    ? [{ id, severity: "ok", what: fine, evidence: {}, remedy: null }]
    : seen.map((one) => ({ id, ...one }));
}

/** The answer to a question; if it is late or fails, what that means. */
export async function observe(
  ask: () => Promise<readonly Observation[] | null>,
  clock: Monotonic,
  deadlineMs = CHECK_MS,
): Promise<readonly Observation[] | null> {
  try {
    const answer = await within(deadlineMs, ask, clock);
    if (answer !== LATE) return answer;
    return [
      {
        severity: "unknown",
        what: `did not answer within ${duration(deadlineMs)}`,
        evidence: {},
        remedy: "fula-node doctor",
      },
    ];
  } catch (thrown) {
    const { state, summary, todo, evidence } = judgeError(thrown);
    return [{ severity: severityOf(state), what: summary, evidence, remedy: todo }];
  }
}
