import type { Cluster, ClusterReader, TakeLines } from "../cluster/client.ts";
import { linesOf } from "../cluster/pin.ts";
import type { Clock } from "../machine/clock.ts";
import { countNewlines } from "../machine/line-scanner.ts";
import type { PinsetWorkspace } from "../pinset/workspace.ts";
import { grouped } from "../units.ts";

/**
 * A cluster as it would be with this pin alone: its lists are the real ones, without the lines of all other pins. So nothing
 * that works through a list can touch, or judge, what is not the drill's.
 */
export function onlyPin(cluster: Cluster, cid: string): Cluster {
  return { ...cluster, list: (name, takeLines) => cluster.list(name, onlyLines(takeLines, cid)) };
}

/** The same without reading whole lists, which takes minutes for millions of pins: the cluster is asked for this pin. */
export function askedPin(cluster: Cluster, cid: string): Cluster {
  return {
    ...cluster,
    list: async (name, takeLines) => {
      const pin = await (name === "allocations" ? cluster.allocation(cid) : cluster.status(cid));
      if (pin === null) return { noContent: true, bytes: 0 };
      const line = Buffer.from(`${JSON.stringify(pin)}\n`);
      await takeLines(line);
      return { noContent: false, bytes: line.length };
    },
  };
}

/** A workspace in which the body of a snapshot has this pin alone. The body itself is copied and checked as a whole. */
export function onlyPinOf(workspace: PinsetWorkspace, cid: string): PinsetWorkspace {
  return {
    ...workspace,
    copyBody: async (body) => {
      const copy = await workspace.copyBody(body);
      return { read: (takeLines) => copy.read(onlyLines(takeLines, cid)), close: () => copy.close() };
    },
  };
}

function onlyLines(takeLines: TakeLines, cid: string): TakeLines {
  const isWanted = (line: string): boolean =>
    line.includes(cid) && (JSON.parse(line) as { readonly cid?: unknown }).cid === cid;
  return (block) => {
    if (!block.includes(cid)) return;
    const lines = [...linesOf(block, "utf8")].filter(isWanted);
    if (lines.length > 0) return takeLines(Buffer.from(`${lines.join("\n")}\n`));
  };
}

const PROGRESS_MS = 2_000;

/** The same cluster, which says from time to time how much of a long list was read. */
export function withProgress<Reader extends ClusterReader>(
  cluster: Reader,
  clock: Pick<Clock, "monotonicMs">,
  report: (line: string) => void,
): Reader {
  return {
    ...cluster,
    list: (name, takeLines) => {
      let lines = 0;
      let saidAtMs = clock.monotonicMs();
      return cluster.list(name, (block) => {
        lines += countNewlines(block);
        if (clock.monotonicMs() - saidAtMs >= PROGRESS_MS) {
          saidAtMs = clock.monotonicMs();
          report(
            `${name === "allocations" ? "the pinset" : "the status of the pins"}: ${grouped(lines)} read`,
          );
        }
        return takeLines(block);
      });
    },
  };
}
