import { type ComposeDocument, textsOf } from "./compose-document.ts";

/** The keys without which Compose refuses a document (`${KEY:?what to do}`), sorted. */
export function requiredKeys(document: ComposeDocument): readonly string[] {
  const keys = textsOf(document).flatMap((text) =>
    // `$$` is a literal dollar sign.
    Array.from(text.replaceAll("$$", "").matchAll(REQUIRED), ([, key = ""]) => key),
  );
  return [...new Set(keys)].toSorted();
}

const REQUIRED = /\$\{([A-Za-z_][A-Za-z0-9_]*):?\?/g;
