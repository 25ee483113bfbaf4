import { describeHolder, findPortConflicts } from "../model/ports.ts";
import type { Check } from "./check.ts";

/** Every port that is needed is free, or held by a container of ours or by the adopted writer. */
export const ports: Check = {
  id: "ports",
  title: "ports",
  ignorable: true,

  async run(host, { ports: needs, ownership, writerUnits }) {
    const [listeners, containers, noEngine] = await Promise.all([
      host.system.listeners(),
      host.docker.containers(),
      host.docker.unreachable(),
    ]);
    const owned = containers.map((container) => ({ ...container, ownership: ownership(container) }));
    return findPortConflicts({ needs, listeners, containers: owned, writerUnits }).map((conflict) => ({
      severity: "failure",
      what: `Port ${conflict.need.port}, which ${conflict.need.purpose} needs, is taken: ${describeHolder(conflict)}.`,
      ...(noEngine === null
        ? {}
        : {
            why: `Docker does not answer (${noEngine}), so a container of ours could not be told from others.`,
          }),
      remedy: `Stop it, or let it listen elsewhere.${conflict.need.remedy === undefined ? "" : ` ${conflict.need.remedy}`}`,
    }));
  },
};
