/** Puts names for values. `path` says where the text is; null for a path that does not count. */
export type Replace = (text: string, path: string) => string | null;

interface Rule {
  /** Where it holds; everywhere if omitted. */
  readonly where?: RegExp;
  readonly from: RegExp;
  readonly to: string;
}

/** What differs between two clean runs, and what stands for it. Each rule says which text it takes, so that nothing else hides behind it. */
const textRules: readonly Rule[] = [
  { from: /\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\b/g, to: "<time>" },
  { from: /\bpinset-\d{8}T\d{6}Z\b/g, to: "pinset-<time>" },
  { from: /"duration_ms": ?\d+/g, to: '"duration_ms":<ms>' },
  // Hashes over the peer id, the time and the key.
  { where: /\/(?:snapshots|state)\//, from: /\b[0-9a-f]{64}\b/g, to: "<sha256>" },
  {
    where: /\/(?:snapshots|state)\//,
    from: /"(key_id|successor_id)": ?"[0-9a-f]{16}"/g,
    to: '"$1":<key id>',
  },
  // An old key's signature over a new key, which each run makes anew.
  {
    where: /\/(?:snapshots|state)\//,
    from: /"endorsement": ?"[0-9a-f]{128}"/g,
    to: '"endorsement":<signature>',
  },
  // Compose's and our hashes over the environment, in which the secrets are. The environment itself is compared.
  {
    where: /^docker$/,
    from: /("(?:com\.docker\.compose\.config-hash|land\.fx\.fula-node\.spec)": )"[0-9a-f]{64}"/g,
    to: "$1<sha256>",
  },
];

/** What cron's runs leave, whether one falls into the time of a test or not. */
const OF_CRON = /\/(?:snapshot\.log|sweep\.log|known-nodes\.json|heartbeats\/sweep[^/]*)$/;

/** Puts these names for these values, then follows the rules. */
export function replacing(values: readonly (readonly [value: string, name: string])[]): Replace {
  return (text, path) => {
    if (OF_CRON.test(path)) return null;
    let result = text;
    for (const [value, name] of values) {
      // A text of several lines stands in JSON with its line ends escaped.
      result = result.replaceAll(value, name).replaceAll(JSON.stringify(value).slice(1, -1), name);
    }
    for (const { where, from, to } of textRules)
      if (where === undefined || where.test(path)) result = result.replaceAll(from, to);
    return result;
  };
}
