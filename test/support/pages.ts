import { readdir, readFile } from "node:fs/promises";

/** A place that `npm run docs` fills from the code: group 1 is its name. */
export const GENERATED = /<!-- ([a-z-]+) -->\n[^]*?<!-- \/\1 -->/g;

/** The file of a page, by its path from the project's root. */
export function pageUrl(path: string): URL {
  return new URL(`../../${path}`, import.meta.url);
}

/** The pages for users: README.md and docs/, text by path. */
export async function readPages(): Promise<ReadonlyMap<string, string>> {
  const names = (await readdir(pageUrl("docs/"))).filter((name) => name.endsWith(".md")).toSorted();
  const paths = ["README.md", ...names.map((name) => `docs/${name}`)];
  return new Map(
    await Promise.all(paths.map(async (path) => [path, await readFile(pageUrl(path), "utf8")] as const)),
  );
}

/** A fenced block of a page. */
export interface Fence {
  /** For example `sh`; empty if the fence has no language. */
  readonly language: string;
  readonly text: string;
}

const FENCE = /^```([a-z]*)\n([^]*?)^```$/gm;

/** The fenced blocks of a page, in order. */
export function fencesOf(page: string): readonly Fence[] {
  return [...page.matchAll(FENCE)].map(([, language = "", text = ""]) => ({ language, text }));
}

/** The prose that a person wrote: without fenced blocks and without generated parts. */
export function proseOf(page: string): string {
  return page.replace(GENERATED, "").replace(FENCE, "");
}

/** Every anchor that a link can point at: headings as GitHub names them, and `<a id="...">`. */
export function anchorsOf(page: string): ReadonlySet<string> {
  const text = page.replace(FENCE, "");
  const seen = new Map<string, number>();
  const headings = [...text.matchAll(/^#{1,6} (.+)$/gm)].map(([, heading = ""]) => {
    const slug = slugOf(heading);
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
  return new Set([...headings, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id = ""]) => id)]);
}

function slugOf(heading: string): string {
  return heading
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\p{M}_\- ]/gu, "")
    .replaceAll(" ", "-");
}

/** The targets of a page's links, without those to other sites. */
export function linksOf(page: string): readonly string[] {
  return [...page.replace(FENCE, "").matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = ""]) => target)
    .filter((target) => !/^(?:https?|mailto):/.test(target));
}

/** The ways in which a page starts our program. */
const PROGRAM =
  /^(?:npx (?:--\S+ )*(?:fula-node|\.\/fula-node\S*\.tgz)|fula-node|node \S+\/bin\/fula-node\.js)(?= |$)/;

/** The shell lines of a page: its `sh` blocks, and inline code that starts with our program or npm. */
export function shellLinesOf(page: string): readonly string[] {
  const blocks = fencesOf(page)
    .filter(({ language }) => language === "sh")
    .flatMap(({ text }) => text.replaceAll(/\\\n\s*/g, " ").split("\n"));
  const inline = [...proseOf(page).matchAll(/`([^`]+)`/g)].map(([, code = ""]) =>
    code.replaceAll(/\s+/g, " "),
  );
  // The program's name alone is not a call.
  const calls = inline.filter((code) => code.replace(PROGRAM, "").startsWith(" ") || code.startsWith("npm "));
  return [...blocks, ...calls]
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

/** The arguments of each call of our program in a shell line, without a comment at its end. */
export function callsOf(line: string): readonly (readonly string[])[] {
  return splitCommands(line)
    .filter((command) => PROGRAM.test(command))
    .map((command) => wordsOf(command.replace(PROGRAM, "")));
}

/** The commands of a line that `|`, `&&`, `||` and `;` join. */
export function splitCommands(line: string): readonly string[] {
  return line
    .replace(/\s#\s.*$/, "")
    .split(/\s*(?:&&|\|\|?|;)\s*/)
    .map((command) => command.trim())
    .filter((command) => command !== "");
}

/** Words as a shell splits them, without redirections (`>`, `2>`, `<`) and their files. */
function wordsOf(command: string): readonly string[] {
  const plain = command.replaceAll(/\s[0-9]?[<>]{1,2}\s*\S+/g, "");
  return [...plain.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, single, double, bare]) => single ?? double ?? bare ?? "",
  );
}
