/** The known word that is nearest to a mistyped one; null where none is near. Case does not count. */
export function findNearest(word: string, known: readonly string[]): string | null {
  const wanted = word.toUpperCase();
  let best: { readonly name: string; readonly distance: number } | null = null;
  for (const name of known) {
    const distance = editDistance(wanted, name.toUpperCase());
    if (distance < (best?.distance ?? Infinity)) best = { name, distance };
  }
  return best !== null && best.distance <= Math.max(2, wanted.length / 3) ? best.name : null;
}

/** How many letters must be put in, left out or changed to make one word of the other (Levenshtein). */
function editDistance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (const [row, letter] of a.split("").entries()) {
    const current = [row + 1];
    for (const [column, other] of b.split("").entries()) {
      const change = (above[column] ?? 0) + (letter === other ? 0 : 1);
      current.push(Math.min(change, (above[column + 1] ?? 0) + 1, (current[column] ?? 0) + 1));
    }
    above = current;
  }
  return above.at(-1) ?? 0;
}
