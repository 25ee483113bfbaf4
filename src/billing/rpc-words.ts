/** In place of a node's words that have a part of its address. */
export const NOT_SHOWN = "words that are not shown, as they have a part of the RPC URL";

/** So many letters and digits in a row of a key are enough to be hidden. */
const RUN = 8;
/** A part that is shorter is no key: `v1`, `rpc`, `eth`. */
const SHORTEST = 4;

/**
 * Makes another program's words fit to be shown: short, in one line, and without the address of the endpoint, whose path, query and
 * login often are a key. A node may repeat what it was asked, encoded in whatever way: if a part of the address is in its words,
 * none of them is shown.
 */
export function wordsFor(url: string): (text: string) => string {
  const secrets = partsOf(url);
  return (text) => {
    const plain = [text, ...decodings(text)].map(lettersOf);
    if (plain.some((one) => secrets.some((secret) => one.includes(secret)))) return NOT_SHOWN;
    return text
      .replaceAll(/[^\x20-\x7e]+/g, " ")
      .replaceAll(/https?:\/\/\S+/g, "URL")
      .slice(0, 200);
  };
}

function partsOf(url: string): readonly string[] {
  const { hostname, pathname, search, username, password, searchParams } = new URL(url);
  const login = `${decode(username)}:${decode(password)}`;
  const parts = [
    // Some providers have the key there.
    ...hostname.split(".").filter(({ length }) => length >= 2 * RUN),
    ...pathname.split("/"),
    pathname,
    search,
    ...searchParams.values(),
    username,
    password,
    ...(username === "" ? [] : [Buffer.from(login).toString("base64")]),
  ];
  const plain = parts.flatMap((part) => [part, ...decodings(part)]).map(lettersOf);
  return [...new Set(plain.filter(({ length }) => length >= SHORTEST).flatMap(runsOf))];
}

/** Those of a long part that are long enough to tell it. */
function runsOf(part: string): readonly string[] {
  if (part.length <= RUN) return [part];
  return Array.from({ length: part.length - RUN + 1 }, (_, at) => part.slice(at, at + RUN));
}

/** Only letters and digits, so that it does not matter how the others are written. */
function lettersOf(text: string): string {
  return text.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
}

/** What percent-encoded text stands for, also if it is encoded twice. */
function decodings(text: string): readonly string[] {
  const once = decode(text);
  return once === text ? [] : [once, decode(once)];
}

/** Byte by byte: text that is not UTF-8 is no reason to fail. */
function decode(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
