import { OperatorError } from "../../errors.ts";
import type { ArchivedImage } from "../engine.ts";

/** What an archive is to have. */
export interface Wanted {
  readonly references: readonly string[];
  /** As Docker names it: amd64, arm64. Null if it is not known. */
  readonly architecture: string | null;
}

/** Why an archive is of no use here. */
export type ArchiveFault =
  /** It has these images for another architecture only. */
  | { readonly kind: "architecture"; readonly references: readonly string[]; readonly found: string }
  /** It does not have these images. */
  | { readonly kind: "missing"; readonly references: readonly string[] }
  /** It names these images, and lacks a part of each. */
  | { readonly kind: "parts"; readonly references: readonly string[]; readonly lacks: string };

/** The first reason why an archive does not have what is wanted; null if it has. */
export function findFault(
  images: readonly ArchivedImage[],
  { references, architecture }: Wanted,
): ArchiveFault | null {
  const named = references.map((reference) => ({
    reference,
    there: images.filter((image) => image.reference === shortName(reference)),
  }));
  const isFit = (image: ArchivedImage) => architecture === null || image.architecture === architecture;
  const namesOf = (some: typeof named) => some.map(({ reference }) => reference);
  const foreign = named.filter(
    ({ there }) =>
      there.length > 0 && !there.some(isFit) && there.every((image) => image.architecture !== ""),
  );
  if (foreign.length > 0) {
    const found = foreign.flatMap(({ there }) => there.map((image) => image.architecture));
    return {
      kind: "architecture",
      references: namesOf(foreign),
      found: [...new Set(found)].sort().join(" and "),
    };
  }
  const missing = named.filter(({ there }) => there.length === 0);
  if (missing.length > 0) return { kind: "missing", references: namesOf(missing) };
  const partly = named.filter(
    ({ there }) => !there.some((image) => isFit(image) && image.lacks.length === 0),
  );
  if (partly.length === 0) return null;
  const lacks = partly.flatMap(({ there }) => there.flatMap((image) => image.lacks));
  return { kind: "parts", references: namesOf(partly), lacks: lacks[0] ?? "" };
}

/** The name of an image as the Docker CLI shows it: without the default registry, and with its tag. */
export function shortName(reference: string): string {
  const short = reference.replace(/^(?:index\.)?docker\.io\//, "").replace(/^library\//, "");
  return short.includes("@") || short.lastIndexOf(":") > short.lastIndexOf("/") ? short : `${short}:latest`;
}

/** The error for a fault of an archive that an operator brought. `remedy` says how to make another one. */
export function refuseArchive(
  archive: string,
  fault: ArchiveFault,
  { architecture, remedy }: { readonly architecture: string | null; readonly remedy: string },
): OperatorError {
  const names = fault.references.join(", ");
  if (fault.kind === "missing") {
    const pinned = fault.references.some((reference) => reference.includes("@"));
    return new OperatorError({
      exit: "unavailable",
      what: `${archive} does not contain ${names}.`,
      ...(pinned ? { why: "An archive keeps the tags of images, and no digests (@sha256:...)." } : {}),
      remedy,
    });
  }
  if (fault.kind === "architecture")
    return new OperatorError({
      exit: "usage",
      what: `${archive} has ${names} for ${fault.found}, and this machine is ${architecture ?? "another one"}.`,
      why: "An image runs only on the architecture that it was built for.",
      remedy,
    });
  return new OperatorError({
    exit: "integrity",
    what: `${archive} is not complete: parts of ${names} are missing.`,
    why: `It lacks ${fault.lacks}.`,
    remedy,
  });
}
