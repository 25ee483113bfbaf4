import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { onTestFinished } from "vitest";
import { WebSocket } from "undici";

/** Debian's Chromium. scripts/test installs it where it is missing. */
export const CHROMIUM = "/usr/bin/chromium";

/** Why there is no browser; undefined if there is one. If CI is set, a missing browser is an error. */
export const noBrowser: string | undefined = existsSync(CHROMIUM)
  ? undefined
  : "there is no /usr/bin/chromium (apt-get install chromium)";
if (noBrowser !== undefined && process.env["CI"] !== undefined) throw new Error(noBrowser);

type Fields = Readonly<Record<string, unknown>>;

/** One tab of a headless Chromium. */
export interface Tab {
  /** Sends one command of the DevTools protocol. */
  send(method: string, params?: Fields): Promise<Fields>;
  /** Loads an address and waits until it is there. */
  open(url: string): Promise<void>;
  /** Does something that loads another page, and waits for that. */
  loading(act: () => Promise<unknown>): Promise<void>;
  /** The value of an expression in the page. */
  value<Value>(expression: string): Promise<Value>;
  /** Presses a key. */
  press(key: "Tab" | "Enter", modifiers?: number): Promise<void>;
  /** What the console and the browser's log said, errors and warnings. */
  readonly complaints: readonly string[];
  /** The screen as a PNG, all of the page. */
  picture(): Promise<Buffer>;
}

/** Starts a Chromium for the length of a test. Scripts in pages can be switched off: the page needs none. */
export async function openTab(): Promise<Tab> {
  const profile = await mkdtemp(join(tmpdir(), "fula-chromium-"));
  const args = [
    "--headless=new",
    "--remote-debugging-port=0",
    `--user-data-dir=${profile}`,
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
    "about:blank",
  ];
  const child = execa(CHROMIUM, args, { reject: false, all: true, stdin: "ignore" });
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await child;
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  const address = await new Promise<string>((resolve, reject) => {
    let output = "";
    child.all.on("data", (data: Buffer) => {
      output += data.toString();
      const found = /DevTools listening on (ws:\/\/\S+)/.exec(output)?.[1];
      if (found !== undefined) resolve(found);
    });
    void child.then(() => reject(new Error(`Chromium ended:\n${output}`)));
  });
  const { host } = new URL(address);
  const made = await fetch(`http://${host}/json/new?about:blank`, { method: "PUT" });
  const { webSocketDebuggerUrl } = (await made.json()) as { webSocketDebuggerUrl: string };
  return attach(webSocketDebuggerUrl);
}

async function attach(url: string): Promise<Tab> {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve, { once: true });
    socket.addEventListener("error", reject, { once: true });
  });
  onTestFinished(() => socket.close());
  const waiting = new Map<number, { resolve: (result: Fields) => void; reject: (error: Error) => void }>();
  const listeners = new Set<(method: string) => void>();
  const complaints: string[] = [];
  socket.addEventListener("message", ({ data }) => {
    const { id, result, error, method, params } = JSON.parse(String(data)) as {
      readonly id?: number;
      readonly result?: Fields;
      readonly error?: { readonly message: string };
      readonly method?: string;
      readonly params?: Fields;
    };
    if (id !== undefined) {
      const asked = waiting.get(id);
      waiting.delete(id);
      if (error !== undefined) asked?.reject(new Error(error.message));
      else asked?.resolve(result ?? {});
      return;
    }
    const complaint = complaintOf(method ?? "", params ?? {});
    if (complaint !== null) complaints.push(complaint);
    for (const listener of listeners) listener(method ?? "");
  });
  let last = 0;
  const send: Tab["send"] = (method, params = {}) =>
    new Promise((resolve, reject) => {
      last += 1;
      waiting.set(last, { resolve, reject });
      socket.send(JSON.stringify({ id: last, method, params }));
    });
  const loading: Tab["loading"] = async (act) => {
    const loaded = new Promise<void>((resolve) => {
      const listener = (method: string): void => {
        if (method !== "Page.loadEventFired") return;
        listeners.delete(listener);
        resolve();
      };
      listeners.add(listener);
    });
    await act();
    await loaded;
  };
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
  return {
    send,
    loading,
    complaints,
    open: (address) => loading(() => send("Page.navigate", { url: address })),
    async value<Value>(expression: string) {
      const { result, exceptionDetails } = await send("Runtime.evaluate", {
        expression,
        returnByValue: true,
      });
      if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
      return (result as { readonly value: Value }).value;
    },
    async press(key, modifiers = 0) {
      const text = key === "Enter" ? { text: "\r" } : {};
      const code = { key, code: key, windowsVirtualKeyCode: key === "Enter" ? 13 : 9, modifiers, ...text };
      await send("Input.dispatchKeyEvent", { type: "keyDown", ...code });
      await send("Input.dispatchKeyEvent", { type: "keyUp", ...code });
    },
    async picture() {
      const { data } = await send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
      return Buffer.from(String(data), "base64");
    },
  };
}

function complaintOf(method: string, params: Fields): string | null {
  if (method === "Runtime.exceptionThrown") return JSON.stringify(params);
  if (method === "Log.entryAdded") {
    const { level, text, url } = params["entry"] as Readonly<Record<string, string>>;
    return level === "error" || level === "warning" ? `${level}: ${text} ${url ?? ""}` : null;
  }
  if (
    method === "Runtime.consoleAPICalled" &&
    ["error", "warning", "assert"].includes(String(params["type"]))
  )
    return JSON.stringify(params["args"]);
  return null;
}
