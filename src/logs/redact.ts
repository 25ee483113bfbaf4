/** Replaces what nobody else may read. The same text always gives the same result. */
export type Redact = (text: string) => string;

/** What stands for something that was taken out. */
export const REDACTED = "[redacted]";

/** A shorter value is a word that stands everywhere; as a secret it would be guessed anyway. */
const SHORTEST = 4;
/** A part of a value in base64 is looked for only if it is long enough to be no accident. */
const SHORTEST_ENCODED = 8;

/**
 * Takes these secrets out of a text, and everything that looks like one: private keys, tokens, passwords in addresses, values
 * of names such as PASSWORD, and e-mail addresses. Each also as base64, in hex and as a part of an address.
 */
export function createRedactor(secrets: Iterable<string>): Redact {
  const values = [...new Set([...secrets].flatMap(partsOf))].filter((value) => value.length >= SHORTEST);
  const forms = [...new Set(values.flatMap(formsOf))]
    .filter((form) => form.length >= SHORTEST)
    // The longest first: a part of a secret must not hide the whole one.
    .toSorted((a, b) => b.length - a.length);
  const isSecret = (decoded: string) =>
    (mayHaveEmail(decoded) && EMAIL.test(decoded)) || values.some((value) => decoded.includes(value));
  return (text) => {
    // Whole tokens first: a known form inside of one would leave its first and last characters.
    let shown = text.replaceAll(BASE64, (token) => (decodings(token).some(isSecret) ? REDACTED : token));
    // Most lines have none of them, and a search for each is faster than one pattern of all.
    for (const form of forms) if (shown.includes(form)) shown = shown.replaceAll(form, REDACTED);
    shown = PATTERNS.reduce((sum, [pattern, by]) => sum.replaceAll(pattern, by), shown);
    return mayHaveEmail(shown) ? shown.replaceAll(EMAILS, REDACTED) : shown;
  };
}

/** A value with several lines, such as a key, is also looked for line by line; `user:password` also as the password alone. */
function partsOf(secret: string): readonly string[] {
  const lines = secret.split(/\r?\n|\\n/).filter((line) => line.length >= 16 && !line.startsWith("-----"));
  const password = /^[^:\s]{1,64}:(\S{8,})$/.exec(secret)?.[1];
  return [secret, secret.trim(), ...lines, ...(password === undefined ? [] : [password])];
}

function formsOf(value: string): readonly string[] {
  if (value.length < SHORTEST) return [];
  const bytes = Buffer.from(value);
  const encoded = encodeURIComponent(value);
  return [
    value,
    JSON.stringify(value).slice(1, -1),
    encoded,
    encoded.replaceAll(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
    encoded.replaceAll("%20", "+"),
    ...(value.length < SHORTEST_ENCODED ? [] : [bytes.toString("hex"), bytes.toString("hex").toUpperCase()]),
    // A key in hex is the same key in other letters.
    ...(/^[0-9a-f]{8,}$/i.test(value) ? [value.toLowerCase(), value.toUpperCase()] : []),
    ...[0, 1, 2].flatMap((shift) => base64Inside(bytes, shift)),
  ];
}

/** What stands in base64 for these bytes if `shift` bytes are before them: without the characters that also depend on others. */
function base64Inside(bytes: Buffer, shift: number): readonly string[] {
  const whole = Buffer.concat([Buffer.alloc(shift), bytes])
    .toString("base64")
    .replaceAll("=", "");
  const from = shift === 0 ? 0 : shift + 1;
  const isCut = (shift + bytes.length) % 3 !== 0;
  const inside = whole.slice(from, isCut ? -1 : undefined);
  if (inside.length < SHORTEST_ENCODED) return [];
  return [inside, inside.replaceAll("+", "-").replaceAll("/", "_")];
}

/** An `@`, also as it stands in an address and in JSON. */
const AT = String.raw`(?:@|%40|\\{1,2}u0040)`;
const HAS_AT = new RegExp(AT);

/**
 * An e-mail address whose letters are these. Its name can be quoted and have spaces, and its domain can be an IP address in brackets.
 * Of domains without a dot, only `localhost` counts: an account can have such an address, but what else looks like one is a login on a
 * machine or the digest of an image. Every repetition here has a limit: a line of a log can be long, and must not be slow.
 */
function emailOf(letters: string): string {
  const name = `(?:[${letters}\\w.!#$%&'*+/=?^\`{|}~-]{1,64}|\\\\?"[${letters}\\w][^"\\r\\n]{0,63}")`;
  const domain = `(?:(?:[${letters}0-9-]{1,63}\\.){1,8}[${letters}]{2,63}|localhost\\b|\\[[\\w.:]{2,45}\\])`;
  return name + AT + domain;
}

const EMAIL = new RegExp(emailOf("A-Za-z"));

/** In a text, names in other letters count, too; in what is decoded, any byte may look like such a letter. */
const EMAILS = new RegExp(emailOf("\\p{L}"), "gu");

function mayHaveEmail(text: string): boolean {
  return HAS_AT.test(text);
}

/** Names whose value is a secret, whatever it is. */
const SECRET_NAME =
  "[\\w.-]{0,40}(?:passwd|password|passphrase|secret|token|credential|authorization|api[_-]?key|private[_-]?key|priv[_-]?key|privkey|system[_-]?key|encryption[_-]?key|basic[_-]?auth)[\\w.-]{0,40}";

const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // A private key, also in one line with \n, and one that was cut off.
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, REDACTED],
  [/AGE-SECRET-KEY-[A-Z0-9-]+/gi, REDACTED],
  // A JSON Web Token, and our wallet tokens.
  [/(?<![\w-])eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?/g, REDACTED],
  [/\bfula-eip712\.[\w.+/=-]+/g, REDACTED],
  [/\b(bearer|basic)\s+[\w.~+/=-]{6,}/gi, `$1 ${REDACTED}`],
  // scheme://user:password@host
  [/\b([a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/?#@"']{1,1024}@/gi, `$1${REDACTED}@`],
  // ?token=..., &key=...
  [
    /([?&](?:[\w.-]{0,40}(?:key|token|secret|password|passwd|auth|signature|sig|jwt|code)[\w.-]{0,40})=)[^&\s"'<>]+/gi,
    `$1${REDACTED}`,
  ],
  // "password": "...", PASSWORD=..., --password ...
  [new RegExp(`("${SECRET_NAME}"\\s*:\\s*)"(?:[^"\\\\]|\\\\.)*"`, "gi"), `$1"${REDACTED}"`],
  [new RegExp(`(\\\\"${SECRET_NAME}\\\\"\\s*:\\s*)\\\\".*?\\\\"`, "gi"), `$1\\"${REDACTED}\\"`],
  [new RegExp(`(\\b${SECRET_NAME}\\s*[=:]\\s*)(?:"[^"]*"|'[^']*'|[^\\s,;&"']+)`, "gi"), `$1${REDACTED}`],
  [new RegExp(`(--${SECRET_NAME}\\s+)(?!-)[^\\s"']+`, "gi"), `$1${REDACTED}`],
  [/\b((?:set-)?cookie\s*:\s*)[^\r\n]+/gi, `$1${REDACTED}`],
];

/** What can be base64 of something: long enough for an e-mail address or a key. */
const BASE64 = /[A-Za-z0-9+/_-]{10,}={0,2}/g;

/** What a token can be the base64 or the hex of. It may begin inside of that, or stand behind a character that is no part of it. */
function decodings(token: string): readonly string[] {
  const bytes = [0, 1, 2, 3].map((from) => Buffer.from(token.slice(from), "base64"));
  const hex = /^[0-9a-f]+$/i.test(token) ? [0, 1].map((from) => Buffer.from(token.slice(from), "hex")) : [];
  return [...bytes, ...hex].map((decoded) => decoded.toString("latin1"));
}
