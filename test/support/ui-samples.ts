import type { PlanItem } from "../../src/engine/events.ts";

function item(
  step: string,
  state: PlanItem["state"],
  drift: readonly string[],
  summaries: readonly string[],
): PlanItem {
  const changes = summaries.map((summary) => ({ kind: "sample", summary }));
  return { step, title: `the ${step}`, state, evidence: {}, drift, changes };
}

/** The plan of a half-installed master. */
export const REALISTIC_PLAN: readonly PlanItem[] = [
  {
    ...item(
      "docker",
      "absent",
      [],
      [
        "install the packages docker.io, docker-cli, iptables, ca-certificates, docker-compose",
        "start the Docker engine, now and at every boot",
      ],
    ),
    consent: {
      flag: "--yes",
      question:
        "Install docker.io, docker-cli, iptables, ca-certificates, docker-compose from the packages of Debian GNU/Linux 13 (trixie)?",
      given: false,
    },
  },
  item("cli", "ours", [], []),
  item(
    "env-file",
    "drifted",
    ["WEBUI_PORT is not as desired", "others can read it: mode 644"],
    ["write /opt/fula-master/.env: 1 setting"],
  ),
  item("writer", "ours", [], []),
  item("images", "ours", [], []),
  item("compose-file", "ours", [], []),
  item("postgres", "ours", [], []),
  item("services", "drifted", ["fula-pinning-api has exited (exit code 137)"], ["bring up pinning-api"]),
  item("snapshot-cron", "ours", [], []),
];
