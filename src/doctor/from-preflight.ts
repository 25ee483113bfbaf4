import type { HostReader } from "../host.ts";
import { type PreflightContext, runPreflight } from "../preflight/check.ts";
import { MASTER_CHECKS } from "../preflight/checks.ts";
import type { Monotonic } from "../status/collect.ts";
import { observe } from "./doctor-check.ts";
import type { Finding, Observation } from "./finding.ts";

/**
 * Makes every check of a join's preflight, each with a deadline. `isInstalled`: what `status` says better is left out, since a
 * node that is up has other needs than a machine that is to become one.
 */
export async function findingsOfPreflight(
  host: HostReader,
  prepare: () => Promise<PreflightContext>,
  { isInstalled, clock }: { readonly isInstalled: boolean; readonly clock: Monotonic },
): Promise<readonly Finding[]> {
  // Each check waits for it within its own deadline.
  const prepared = prepare();
  prepared.catch(() => {});
  const checks = MASTER_CHECKS.filter(({ id }) => !(isInstalled && SAID_BY_STATUS.has(id)));
  const found = await Promise.all(
    checks.map(async (check) => {
      const seen = await observe(async () => {
        const problems = await runPreflight([check], host, await prepared, []);
        return problems.map(({ severity, what, why, remedy }): Observation => ({
          severity: severity === "failure" ? "error" : "warning",
          what: what.replace(/\.$/, ""),
          evidence: why === undefined ? {} : { why },
          remedy,
        }));
      }, clock);
      const id = `preflight-${check.id}`;
      if (seen === null) return [];
      if (seen.length === 0 && ASKS_ENGINE.has(check.id) && (await host.docker.unreachable()) !== null)
        return [];
      return seen.length === 0
        ? [{ id, severity: "ok" as const, what: check.title, evidence: {}, remedy: null }]
        : seen.map((one) => ({ id, ...one }));
    }),
  );
  return found.flat();
}

/** They pass where no engine answers, since a join would start one. That is not to be called right. */
const ASKS_ENGINE: ReadonlySet<string> = new Set(["engine", "secrets", "watchtower"]);

/** The parts Docker and edge of `status` say it, with what to do for a node that exists. */
const SAID_BY_STATUS: ReadonlySet<string> = new Set(["compose"]);
