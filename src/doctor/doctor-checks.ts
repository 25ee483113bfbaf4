import type { DoctorCheck } from "./doctor-check.ts";
import { largeLogs, memoryLeft, readOnly, restarts, space } from "./checks/resources.ts";
import { heldLocks, interruptedRun, recentAlarms } from "./checks/past-runs.ts";
import { dockerRules, firewall, ipv6, names, openPorts, publishedPorts } from "./checks/network.ts";

/** The checks that only `doctor` makes, besides those of `status` and of the preflight. docs/doctor.md lists them. */
export const DOCTOR_CHECKS: readonly DoctorCheck[] = [
  space,
  readOnly,
  largeLogs,
  memoryLeft,
  restarts,
  openPorts,
  firewall,
  publishedPorts,
  dockerRules,
  names,
  ipv6,
  interruptedRun,
  heldLocks,
  recentAlarms,
];
