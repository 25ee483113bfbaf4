/** Types of licenses.mjs, which the build runs without a compiler. */
export function collectLicenses(options: {
  readonly root: string;
  readonly inputs: readonly string[];
  /** By a package's name: the file in scripts/ that has its licence. */
  readonly checkedIn?: Readonly<Record<string, string>>;
}): Promise<string>;
