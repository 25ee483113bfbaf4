const MINUTE_MS = 60_000;

/**
 * Reads a time as in RFC 3339 and returns it in UTC with six digits after the point, as PostgreSQL stores it. Further
 * digits are rounded up or down. Null for a text that is not one, and for a day or hour that does not exist. A Date has
 * milliseconds only, so it is used for whole seconds.
 */
export function readInstant(text: string, rounding: "up" | "down"): string | null {
  const [, day = "", time = "", digits = "", zone = ""] =
    /^(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(?:\.(\d{1,30}))?(Z|[+-]\d{2}:\d{2})$/i.exec(text) ?? [];
  if (day === "") return null;
  const local = Date.parse(`${day}T${time}Z`);
  // A day such as 30 February is read as one in March.
  if (Number.isNaN(local) || !isoOf(local).startsWith(`${day}T${time}`)) return null;
  const offset = offsetOf(zone);
  if (offset === null) return null;
  const roundsUp = rounding === "up" && /[1-9]/.test(digits.slice(6));
  const micros = Number(digits.slice(0, 6).padEnd(6, "0")) + (roundsUp ? 1 : 0);
  const carry = micros === 1_000_000 ? 1_000 : 0;
  const utc = isoOf(local - offset * MINUTE_MS + carry);
  if (!/^\d{4}-/.test(utc) || utc.startsWith("0000")) return null;
  return `${utc.slice(0, 19)}.${String(micros % 1_000_000).padStart(6, "0")}Z`;
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

/** The minutes that a zone is ahead of UTC. */
function offsetOf(zone: string): number | null {
  if (zone.toUpperCase() === "Z") return 0;
  const [hours = 0, minutes = 0] = zone.slice(1).split(":").map(Number);
  if (hours > 23 || minutes > 59) return null;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}
