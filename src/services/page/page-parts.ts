import { judgeDeposits } from "../../billing/deposit-standing.ts";
import { judgeBilling } from "../../billing/runs.ts";
import { assessHeartbeat, type HeartbeatHealth } from "../../pinset/heartbeat.ts";
import { assessFindings } from "../../pinset/sweep/findings.ts";
import { CRON_PERIODS_MS } from "../../settings/layout.ts";
import { isDatabaseElsewhere } from "../../settings/postgres-target.ts";
import type { WebuiSettings } from "../../settings/services.ts";
import { failedChecks, judgeApi, judgeMasters, judgeWriter, SEE_WRITER } from "../../status/judge-master.ts";
import { type Judged, LATE, type Late, type Part, REPAIR_MASTER, withRemarks } from "../../status/part.ts";
import { decimalBytes } from "../../units.ts";
import { type Answer, type Answers, PINNING_ROUTE } from "./questions.ts";

/** What of the settings the judgements need. */
export type JudgedSettings = Pick<
  WebuiSettings,
  "statusPage" | "billing" | "cluster" | "postgres" | "masterId"
>;

/**
 * The parts of this master as `status` has them: the same words, in the same order. Docker, cron, the gateway, the updater
 * and the settings are missing: a container does not see them.
 */
export function partsOf(answers: Answers, settings: JudgedSettings): readonly Part[] {
  const all: readonly (readonly [string, Judged | null])[] = [
    ["writer", writerPart(answers, settings)],
    ["database", databasePart(answers, settings)],
    ["pinning API", pinningPart(answers, settings)],
    ["storage API", storagePart(answers)],
    ["billing", billingPart(answers, settings)],
    ["masters", mastersPart(answers, settings)],
    ["edge", edgePart(answers)],
    ["snapshots", recordPart(answers, "snapshot")],
    ["sweep", sweepPart(answers)],
  ];
  return all.flatMap(([name, judged]) => (judged === null ? [] : [{ name, ...judged }]));
}

const judgement = (state: Judged["state"], summary: string, todo: string | null = null): Judged => ({
  state,
  summary,
  todo,
  evidence: {},
});

/** How a question without an answer is shown: never as something that works. */
export function describeMissing(answer: Exclude<Answer<unknown>, { kind: "answer" }>): string {
  return answer.kind === "late" ? "no answer in time" : answer.why;
}

/** The value, or null if there is none. */
export function valueOf<Value>(answer: Answer<Value>): Value | null {
  return answer.kind === "answer" ? answer.value : null;
}

/** An HTTP answer as `status` judges it: null if nothing answers. */
function httpOf<Value>(answer: Answer<Value>): Value | null | Late {
  return answer.kind === "late" ? LATE : valueOf(answer);
}

function writerPart({ kubo, identity, peers }: Answers, { statusPage, cluster }: JudgedSettings): Judged {
  const asked = identity.kind === "fault" ? identity.why : httpOf(identity);
  const facts: Parameters<typeof judgeWriter>[0] = {
    kuboAddress: statusPage.kuboUrl,
    kubo: httpOf(kubo),
    clusterAddress: cluster.url,
    cluster: asked ?? "it gave no identity",
    peers: peers.kind === "fault" ? peers.why : peers.kind === "late" ? LATE : peers.value,
  };
  return judgeWriter(facts, REPAIR_MASTER);
}

function databasePart({ database, own }: Answers, { postgres: { host, port } }: JudgedSettings): Judged {
  if (database.kind !== "answer") {
    const state = database.kind === "late" ? "unknown" : "down";
    return isDatabaseElsewhere((key) => (key === "POSTGRES_HOST" ? host : undefined))
      ? judgement(
          state,
          `PostgreSQL at ${host}:${port}: ${describeMissing(database)}`,
          "look at that machine, and check POSTGRES_HOST and POSTGRES_PORT here",
        )
      : judgement(state, describeMissing(database), "docker logs postgres-pinning");
  }
  const { version, bytes, schema } = database.value;
  const named = schema === null ? "no schema yet" : `schema ${String(schema).padStart(3, "0")}`;
  const summary = `${version}, ${named}, ${decimalBytes(bytes)}`;
  const [failed] = failedChecks(valueOf(own)).filter(({ name }) => name === "postgres");
  return failed === undefined
    ? judgement("ok", summary)
    : judgement("down", `${summary}; ${failed.error}`, failed.remedy ?? REPAIR_MASTER);
}

function pinningPart({ pinningHealth, pinningRoute }: Answers, { statusPage }: JudgedSettings): Judged {
  const health = httpOf(pinningHealth);
  // Only ours has that route.
  const isOther = health !== null && health !== LATE && health.status === 404;
  const facts: Parameters<typeof judgeApi>[0] = {
    address: statusPage.pinningUrl.replace(/^https?:\/\//, ""),
    otherImage: isOther ? "of somebody else" : null,
    health,
    route: { path: PINNING_ROUTE, answer: httpOf(pinningRoute) },
    clusterFault: null,
  };
  return judgeApi(facts, "docker logs fula-pinning-api");
}

/** This service itself: what answers here works, apart from what its own health check finds. */
function storagePart({ own, identity }: Answers): Judged {
  const log = "docker logs fula-pinning-webui";
  if (own.kind !== "answer") return judgement("unknown", describeMissing(own), log);
  const failed = failedChecks(own.value);
  const [first] = failed;
  if (first !== undefined)
    return judgement(
      "down",
      `it does not work: ${failed.map(({ name, error }) => `${name}: ${error}`).join("; ")}`,
      first.remedy ?? log,
    );
  return identity.kind === "answer"
    ? judgement("ok", `answers, version ${own.value.version}`)
    : judgement(
        "attention",
        "works, but the cluster does not answer, so it can't count the pins",
        SEE_WRITER,
      );
}

function billingPart({ standing, deposits }: Answers, { billing }: JudgedSettings): Judged | null {
  if (billing === null) return null;
  if (!billing.idempotent)
    return judgement(
      "attention",
      "nothing is billed: BILLING_IDEMPOTENCY is false",
      "fula-node join-as-master --set BILLING_IDEMPOTENCY=true",
    );
  const missing = [standing, deposits].find((answer) => answer.kind !== "answer");
  if (missing !== undefined)
    return judgement(
      "unknown",
      missing.kind === "late"
        ? "the database did not answer in time"
        : "the database can't be read: see its line",
    );
  const read = valueOf(standing);
  if (read === null) return null;
  const { state, sentence, todo } = judgeBilling(read, billing);
  const found = valueOf(deposits);
  const lacking = found === null ? null : judgeDeposits(found, billing);
  return state === "ok" && lacking !== null
    ? judgement("attention", lacking.sentence, lacking.todo)
    : judgement(state, sentence, todo);
}

/** The container does not see its writer: what that trusts is what this master recorded of it at its last change. */
function mastersPart({ trust, standing }: Answers, { masterId }: JudgedSettings): Judged | null {
  if (masterId === null) return null;
  if (trust.kind !== "answer")
    return judgement(
      "unknown",
      trust.kind === "late"
        ? "the database did not answer in time"
        : "the database can't be read: see its line",
    );
  const { value } = trust;
  return judgeMasters({
    trust: value,
    writer: {
      trusts: value.masters.find(({ id }) => id === masterId)?.peer?.trusts ?? null,
      place: { kind: "elsewhere" },
    },
    ownId: masterId,
    leader: valueOf(standing)?.leader ?? null,
  });
}

function edgePart({ edge }: Answers): Judged | null {
  if (edge === null) return null;
  if (edge.kind === "late") return judgement("unknown", "did not answer in time", "docker logs fula-edge");
  return valueOf(edge)?.status === 200
    ? judgement("ok", "answers on this machine; fula-node status looks at its certificate, too")
    : judgement("down", "does not answer on port 80 of this machine", "docker logs fula-edge");
}

const COMMANDS = { snapshot: "fula-node snapshot take", sweep: "fula-node sweep" } as const;

/** The last run of one of cron's operations. Null if its record can't be read. */
export function runOf(answers: Answers, noun: keyof typeof COMMANDS): HeartbeatHealth | null {
  const record = answers.records[noun];
  if (record.kind !== "answer") return null;
  const operation = { noun, command: COMMANDS[noun], everyMs: CRON_PERIODS_MS[noun], scheduledAt: null };
  return assessHeartbeat(record.value, operation, answers.at);
}

function recordPart(answers: Answers, noun: keyof typeof COMMANDS): Judged {
  const record = answers.records[noun];
  const run = runOf(answers, noun);
  if (run !== null) return judgement(run.state, run.sentence, run.todo);
  return judgement("unknown", record.kind === "answer" ? "" : describeMissing(record), COMMANDS[noun]);
}

function sweepPart(answers: Answers): Judged {
  const run = runOf(answers, "sweep");
  const judged = recordPart(answers, "sweep");
  if (run === null || run.heartbeat === null) return judged;
  const { pins, nodes } = assessFindings(run.heartbeat, answers.at);
  const whole = withRemarks(judged, [pins, { ...nodes, sentence: nodes.problem ?? nodes.sentence }]);
  // After a complete sweep, what it found says what to do. After another one, the run itself does.
  const todo = ["ok", "pending"].includes(run.heartbeat.outcome) ? (pins.todo ?? nodes.todo) : null;
  return whole.state === "attention" && todo !== null ? { ...whole, todo } : whole;
}
