import { isAtLeast } from "../machine/compare-versions.ts";
import type { Check, CheckProblem } from "./check.ts";

/** The oldest release of each distribution that is tested. */
const OLDEST: Readonly<Record<string, string>> = { debian: "12", ubuntu: "22.04" };
/** As node names them: amd64 and arm64, for which all images exist. */
const ARCHITECTURES = ["x64", "arm64"];
/** sd_booted(3). */
const SYSTEMD_MARK = "/run/systemd/system";

/** A distribution and an architecture that the product is made for. */
export const os: Check = {
  id: "os",
  title: "operating system and architecture",
  ignorable: true,

  async run(host) {
    const [{ id, versionId, prettyName, arch }, systemd] = await Promise.all([
      host.system.os(),
      host.files.stat(SYSTEMD_MARK),
    ]);
    const problems: CheckProblem[] = [];
    if (!ARCHITECTURES.includes(arch)) {
      problems.push({
        severity: "failure",
        what: `This machine's architecture is ${arch}.`,
        why: "The images exist for amd64 and arm64 only.",
        remedy: "Use a 64-bit Intel, AMD or ARM machine.",
      });
    }
    const oldest = OLDEST[id];
    if (oldest !== undefined && isAtLeast(versionId, oldest)) return problems;
    const remedy = "Use Debian 12 or later, or Ubuntu 22.04 or later.";
    if (systemd === null) {
      problems.push({
        severity: "failure",
        what: `${prettyName} without systemd is not supported.`,
        why: "Docker and cron have to be started at every boot.",
        remedy,
      });
    } else {
      problems.push({ severity: "warning", what: `${prettyName} is not tested.`, remedy });
    }
    return problems;
  },
};
