import { type Check, inGibibytes } from "./check.ts";

/** A machine sold with 2 GiB shows less: the kernel and the firmware keep some to themselves. */
const KEPT_SHARE = 0.1;

/** Enough memory to run at all, and to run well. */
export const memory: Check = {
  id: "memory",
  title: "memory",
  ignorable: true,

  async run(host, { minimumMemoryBytes: { required, recommended } }) {
    const bytes = host.system.memoryBytes();
    const has = (nominal: number) => bytes >= nominal * (1 - KEPT_SHARE);
    if (has(recommended)) return [];
    const what = `This machine has ${inGibibytes(bytes)} of memory`;
    if (has(required)) {
      return [
        {
          severity: "warning",
          what: `${what}; ${inGibibytes(recommended)} are recommended.`,
          remedy: "Add memory or swap before the pinset grows.",
        },
      ];
    }
    return [
      {
        severity: "failure",
        what: `${what}; ${inGibibytes(required)} are needed.`,
        why: "kubo, ipfs-cluster and Postgres would be killed by the kernel.",
        remedy: "Use a machine with more memory.",
      },
    ];
  },
};
