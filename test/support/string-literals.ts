import { parseSync } from "oxc-parser";

/** A text in a source, and the line on which it begins. */
export interface Literal {
  readonly line: number;
  readonly text: string;
}

/**
 * The texts of a TypeScript source, in order: string literals, and template literals with `…` for each value.
 * Comments, names and regular expressions are not texts. Throws for a source that cannot be parsed.
 */
export function literalsOf(source: string): readonly Literal[] {
  const { program, errors } = parseSync("source.ts", source);
  const [error] = errors;
  if (error !== undefined) throw new Error(error.message);
  const found: Literal[] = [];
  const add = (start: number, text: string) =>
    found.push({ line: source.slice(0, start).split("\n").length, text });
  JSON.stringify(program, (_, node: unknown) => {
    if (!isNode(node)) return node;
    if (node.type === "Literal" && typeof node.value === "string") add(node.start, node.value);
    if (node.type === "TemplateLiteral")
      add(node.start, (node.quasis ?? []).map(({ value }) => value.cooked ?? value.raw).join("…"));
    return typeof node.value === "bigint" ? null : node;
  });
  return found;
}

interface SyntaxNode {
  readonly type: string;
  readonly start: number;
  readonly value?: unknown;
  readonly quasis?: readonly { readonly value: { readonly cooked: string | null; readonly raw: string } }[];
}

function isNode(value: unknown): value is SyntaxNode {
  return typeof value === "object" && value !== null && "type" in value && "start" in value;
}
