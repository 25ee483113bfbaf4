/** A setting that a container of ours tells in its environment. */
export interface Recoverable {
  readonly key: string;
  readonly container: string;
  /** The name by which that container knows it, where it is another. */
  readonly knownAs?: string;
}
