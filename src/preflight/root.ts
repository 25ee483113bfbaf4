import type { Check } from "./check.ts";

/** Everything here belongs to root. */
export const root: Check = {
  id: "root",
  title: "run as root",
  ignorable: false,

  async run(host) {
    const uid = host.system.uid();
    if (uid === 0) return [];
    return [
      {
        severity: "failure",
        what: `This runs as user ${uid}, not as root.`,
        why: "It writes below /opt and /etc/cron.d, and talks to Docker.",
        remedy: "Run the same command as root, or with sudo.",
      },
    ];
  },
};
