import { connect, createServer, type Server } from "node:net";
import { OperatorError } from "../errors.ts";

/** Who holds a lock: what the holder itself answers. */
export interface LockHolder {
  readonly pid: number;
  readonly verb: string;
  readonly since: string;
}

/** A lock that is held until it is released or the process ends, however it ends. */
export interface Lock {
  release(): Promise<void>;
}

/**
 * Takes the lock of that name or throws (`locked`), naming the holder. It is a Unix socket in the
 * kernel's abstract namespace (unix(7)): binding is atomic, no file is left behind, and the kernel
 * drops it with the process, so a dead holder needs no detection and can't block the next run.
 */
export async function takeLock(name: string, holder: LockHolder): Promise<Lock> {
  const address = `\0fula-node:${name}`;
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    // Anybody may connect; who does not hang up must not keep the release waiting.
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
        ? `Another run on ${name} holds the lock, and does not say who it is.`
        : `Another run holds the lock on ${name}: ${other.verb}, process ${other.pid}, since ${other.since}.`,
    why: "Two runs at once could undo each other's work.",
    remedy: "Wait for it to end, then run again. The lock goes with its holder, even if that is killed.",
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
