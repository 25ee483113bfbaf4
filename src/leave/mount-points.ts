/** The directories on which a file system is mounted, from the text of /proc/self/mountinfo (proc(5)). */
export function mountPointsOf(mountinfo: string): ReadonlySet<string> {
  const places = mountinfo.split("\n").flatMap((line) => line.split(" ").slice(4, 5));
  return new Set(places.map(unescaped));
}

/** Blanks and the like are written as three octal digits. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}
