import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { dockerPackages, isHalfInstalled } from "../docker/versions.ts";
import { readDpkg } from "../machine/apt.ts";
import { poll } from "../settings/context.ts";

interface Seen {
  /** Packages to install. */
  readonly missing: readonly string[];
}

type DockerChange =
  | (Change & { readonly kind: "install-packages"; readonly packages: readonly string[] })
  | (Change & { readonly kind: "start-engine" });

const START_DEADLINE_MS = 60_000;
const UNIT = "docker.service";
const NOT_AT_BOOT = "the engine does not start at boot";

/** Docker engine and Compose v2. Installs the distribution's packages if they are missing. */
export const docker: StepSpec<Seen, DockerChange> = {
  id: "docker",
  title: "Docker engine and Compose v2",
  touches:
    "Installs the engine and Compose v2 from the distribution's packages if they are missing, after confirmation. Starts the engine, now and at every boot.",
  reprobeAfter: true,

  async probe(host): Promise<Finding<Seen>> {
    const [engine, compose, program, client, os, packagesHere, unit] = await Promise.all([
      host.docker.version(),
      host.docker.composeVersion(),
      host.system.which("dockerd"),
      host.system.which("docker"),
      host.system.os(),
      readDpkg(host.files),
      host.system.unit(UNIT),
    ]);
    const evidence = {
      engine:
        engine === null
          ? ((await host.docker.unreachable()) ?? "does not answer")
          : `${engine.version}, API ${engine.apiVersion}`,
      compose: compose ?? "not installed",
      dockerd: program ?? "not installed",
      "at boot": unit === null ? "unknown" : unit.atBoot ? "yes" : "no",
    };
    // Debian also masks the unit of an engine that was removed. Its installation takes that back.
    if (unit?.masked === true && program !== null) {
      return {
        state: "foreign",
        evidence,
        why: `The unit ${UNIT} is masked, so the engine does not start at boot.`,
        remedy: `Run systemctl unmask ${UNIT}.`,
      };
    }
    if (engine !== null && compose !== null) {
      const seen = { missing: [] };
      return unit === null || unit.atBoot
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift: [NOT_AT_BOOT], evidence };
    }
    const packages = dockerPackages(os, packagesHere);
    const needsEngine =
      engine === null && (program === null || client === null || isHalfInstalled(packagesHere));
    const needsCompose = compose === null;
    if (packages.kind === "none") {
      if (needsEngine || needsCompose)
        return { state: "foreign", evidence, why: packages.why, remedy: packages.remedy };
      return { state: "drifted", seen: { missing: [] }, drift: ["the engine is not running"], evidence };
    }
    const missing = [...(needsEngine ? packages.engine : []), ...(needsCompose ? packages.compose : [])];
    if (missing.length === 0) {
      return { state: "drifted", seen: { missing }, drift: ["the engine is not running"], evidence };
    }
    const removed = await host.system.wouldRemove(missing);
    if (removed.length > 0) {
      return {
        state: "foreign",
        evidence: { ...evidence, "apt would remove": removed.join(", ") },
        why: `To install ${missing.join(", ")}, apt would remove ${removed.join(", ")}.`,
        remedy:
          "Install Docker with its Compose plugin from the source that the present packages come from, or remove those packages yourself. Then run again.",
      };
    }
    return {
      state: "absent",
      seen: { missing },
      evidence,
      consent: {
        flag: "--yes",
        question: `Install ${missing.join(", ")} from the packages of ${os.prettyName}?`,
        byDefault: true,
        explicit: false,
        remedy: "Run again with --yes, or first install Docker and Compose v2 yourself.",
      },
    };
  },

  plan(finding) {
    if (finding.state === "ours") return [];
    const { missing } = finding.seen;
    const install: DockerChange[] =
      missing.length === 0
        ? []
        : [
            {
              kind: "install-packages",
              summary: `install the packages ${missing.join(", ")}`,
              packages: missing,
            },
          ];
    return [...install, { kind: "start-engine", summary: "start the Docker engine now and at every boot" }];
  },

  async apply(change, host, report) {
    if (change.kind === "install-packages") {
      await host.system.installPackages(change.packages, report);
      return;
    }
    await host.system.enableUnit("docker");
    await poll(host, START_DEADLINE_MS, () => host.docker.version());
  },

  async verify(host: HostReader) {
    const [engine, compose, unit] = await Promise.all([
      host.docker.version(),
      host.docker.composeVersion(),
      host.system.unit(UNIT),
    ]);
    if (engine !== null && compose !== null) {
      if (unit === null || unit.atBoot) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The unit ${UNIT} does not start at boot, although it was enabled.`,
        remedy: `Look at \`systemctl status ${UNIT}\`, then run again.`,
      });
    }
    throw new OperatorError({
      exit: "unhealthy",
      what:
        engine === null
          ? `The Docker engine does not answer: ${(await host.docker.unreachable()) ?? "unknown reason"}.`
          : "`docker compose version` does not work, so Compose v2 is missing.",
      remedy:
        engine === null
          ? "Look at `journalctl -u docker -n 50`, then run again."
          : "Install Compose v2 as a plugin of the Docker CLI, then run again.",
    });
  },
};
