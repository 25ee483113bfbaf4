import { dockerPackages } from "../docker/packages.ts";
import { isAtLeast } from "../machine/compare-versions.ts";
import type { Check } from "./check.ts";

/** Of March 2023: the first with `--wait-timeout`, and older than any that a supported distribution has. */
const OLDEST = "2.17.0";

/** Compose v2, or a distribution whose packages have it. */
export const compose: Check = {
  id: "compose",
  title: "Docker Compose v2",
  ignorable: false,

  async run(host) {
    const [version, os] = await Promise.all([host.docker.composeVersion(), host.system.os()]);
    if (version === null) {
      const packages = dockerPackages(os);
      if (packages.kind === "packages") return [];
      const what = "Docker Compose v2 is not installed.";
      return [{ severity: "failure", what, why: packages.why, remedy: packages.remedy }];
    }
    if (isAtLeast(version, OLDEST)) return [];
    return [
      {
        severity: "failure",
        what: `Docker Compose ${version} is too old; ${OLDEST} is needed.`,
        remedy: "Upgrade the Compose plugin, from wherever Docker was installed.",
      },
    ];
  },
};
