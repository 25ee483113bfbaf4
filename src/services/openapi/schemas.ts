import * as z from "zod";
import { type Answers, named, type Operations } from "./document.ts";

// What several services answer.

/** A time as in RFC 3339. */
export const time = z.string().meta({ format: "date-time" });
/** A number that is never below zero. */
export const amount = z.number().min(0);
/** How many there are. */
export const count = z.int().min(0);

/** How large a page is. */
export function limitOf(byDefault: number, most: number) {
  return z.int().min(1).max(most).default(byDefault);
}

const check = z.object({
  ok: z.boolean(),
  ms: count,
  error: z.string().exactOptional(),
  remedy: z.string().exactOptional(),
});
const queue = z.object({
  waiting: count,
  oldestSeconds: amount,
  failed: count,
  countedAt: time.nullable(),
  inProgress: count,
  lastSuccessAt: time.nullable(),
  fault: z.string().nullable(),
});
const health = named(
  "Health",
  z.object({
    status: z.enum(["ok", "degraded"]),
    version: z.string(),
    checks: z.record(z.string(), check),
    queue: queue.exactOptional(),
  }),
);

/** `GET /health`. */
export const HEALTH: Operations = {
  "GET /health": {
    id: "getHealth",
    summary: "How the service stands",
    credentials: [],
    answers: { 200: ["Everything works.", health], 503: ["A check fails.", health] },
  },
};

const document = named("OpenApi", z.looseObject({ openapi: z.string() }));

/** The answer of a route that serves a document. */
export const DOCUMENT = {
  summary: "A document in the form of OpenAPI 3.1",
  credentials: [],
  answers: { 200: ["The document.", document] },
} as const;

/** Answers with the same body. */
export function all<Status extends number>(
  schema: z.ZodType,
  descriptions: Readonly<Record<Status, string>>,
): Answers {
  return Object.fromEntries(
    Object.entries<string>(descriptions).map(([status, description]) => [status, [description, schema]]),
  );
}
