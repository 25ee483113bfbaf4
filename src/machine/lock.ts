import { connect, createServer, type Server } from "node:net";
import { OperatorError } from "../errors.ts";

/** The holder of a lock, as the holder itself reports. */
export interface LockHolder {
  readonly pid: number;
  readonly verb: string;
  readonly since: string;
}

/** A lock that is held until it is released or the process ends for any reason. */
export interface Lock {
  release(): Promise<void>;
}

/**
 * Takes the lock of that name or throws (`locked`), naming the holder. It is a Unix socket in the
 * kernel's abstract namespace (unix(7)): binding is atomic, no file is left behind, and the kernel
 * removes it with the process. So a dead holder needs no detection and can't block the next run.
 */
export async function takeLock(name: string, holder: LockHolder): Promise<Lock> {
  const address = `\0fula-node:${name}`;
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    // Any process may connect. A client that stays connected must not delay the release.
    socket.end(JSON.stringify(holder), () => socket.destroy());
  });
  if (await bind(server, address)) {
    server.unref();
    return { release: () => new Promise((resolve) => server.close(() => resolve())) };
  }
  const other = await askHolder(address);
  throw new OperatorError({
    exit: "locked",
    what:
      other === null
        ? `Another run holds the lock on ${name}, but did not identify itself.`
        : `Another run holds the lock on ${name}: ${other.verb}, process ${other.pid}, since ${other.since}.`,
    why: "Two runs at the same time could undo each other's changes.",
    remedy:
      "Wait for it to end, then run again. The lock is released when that process ends, even if it is killed.",
  });
}

function bind(server: Server, address: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(false);
      else reject(error);
    });
    server.listen(address, () => resolve(true));
  });
}

function askHolder(address: string): Promise<LockHolder | null> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(address);
    socket.setTimeout(1000, () => socket.destroy());
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.on("error", () => resolve(null));
    socket.on("close", () => {
      try {
        resolve(JSON.parse(text) as LockHolder);
      } catch {
        resolve(null);
      }
    });
  });
}
