import type { Check } from "./check.ts";

/** No machine on which this runs can honestly be in an earlier year. */
const EARLIEST_YEAR = 2025;

/** A clock that can be right: certificates, tokens and billing hours depend on it. */
export const clock: Check = {
  id: "clock",
  title: "clock",
  ignorable: true,

  async run(host) {
    const now = host.clock.now();
    if (now.getUTCFullYear() < EARLIEST_YEAR) {
      return [
        {
          severity: "failure",
          what: `The clock is wrong: it says ${now.toISOString()}.`,
          why: "Certificates, tokens and billing hours depend on it.",
          remedy: "Set it (timedatectl set-ntp true), then run again.",
        },
      ];
    }
    if ((await host.system.clockSynchronised()) !== false) return [];
    return [
      {
        severity: "warning",
        what: "The clock is not synchronised.",
        why: "Certificates, tokens and billing hours depend on it.",
        remedy: "Let systemd-timesyncd or chrony keep it: timedatectl set-ntp true.",
      },
    ];
  },
};
