const LINE_END = 10;

/** How many lines a block of whole lines has; one at its end that lost its newline counts too. */
export function countLines(block: Uint8Array): number {
  let lines = 0;
  for (let at = block.indexOf(LINE_END); at !== -1; at = block.indexOf(LINE_END, at + 1)) lines += 1;
  return block.length > 0 && block.at(-1) !== LINE_END ? lines + 1 : lines;
}
