import pino from "pino";
import type { Log, LogLevel } from "../errors.ts";
import { visible, withoutCids } from "../units.ts";
import { PROBE_ID } from "../machine/http.ts";
import type { OnRequest } from "./requests.ts";

/** The log of a service. */
export interface ServiceLog {
  readonly line: Log;
  /** Logs one request: at `info`, and at `debug` if it is a health check, a scrape of the metrics or a probe of `status`. */
  readonly request: OnRequest;
}

/** Programs ask these every few seconds. Besides, `status` asks other paths without a key. */
const QUIET: ReadonlySet<string> = new Set(["/health", "/api/health", "/metrics"]);

/**
 * Creates the log of a service: one JSON object a line, with `level`, `time`, `service` and `msg`. A request also has
 * `requestId`, `method`, `route`, `status` and `ms`. No line has a path, a query, a header, a body or a CID. `write` gets
 * whole lines; a character that a terminal would act on is an escape in them.
 */
export function createServiceLog(options: {
  readonly service: string;
  readonly level: LogLevel;
  readonly write: (line: string) => void;
}): ServiceLog {
  const { service, level, write } = options;
  const logger = pino(
    {
      level,
      base: { service },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    // A line ends with a line feed, which `visible` keeps.
    { write: (line) => write(/[^\n -~]/.test(line) ? visible(line) : line) },
  );
  return {
    line: (text, lineLevel = "info", requestId) => {
      const said = withoutCids(text);
      if (requestId === undefined) logger[lineLevel](said);
      else logger[lineLevel]({ requestId }, said);
    },
    request: ({ id: requestId, isOutside, method, route, status, ms: exact }) => {
      const ms = Math.round(exact * 10) / 10;
      const edge = isOutside ? { edge: true } : {};
      const isProbe = requestId === PROBE_ID && method === "GET" && status === 401;
      logger[QUIET.has(route) || isProbe ? "debug" : "info"](
        { requestId, ...edge, method, route, status, ms },
        "request",
      );
    },
  };
}
