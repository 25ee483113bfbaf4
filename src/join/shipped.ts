import { type Fragments, parseFragment } from "../docker/compose-render.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";

/** A file of the package's compose/. Throws (`integrity`) where it is missing. */
export async function readShipped(host: HostReader, packageDir: string, name: string): Promise<string> {
  const path = `${packageDir}/compose/${name}`;
  const text = await host.files.readText(path);
  if (text !== null) return text;
  throw new OperatorError({
    exit: "integrity",
    what: `The package is incomplete: ${path} is missing.`,
    remedy: "Install fula-node again.",
  });
}

/** The package's compose fragments of these names. Throws (`integrity`) where one is missing. */
export async function readFragments<Name extends string>(
  host: HostReader,
  packageDir: string,
  names: readonly Name[],
): Promise<Fragments<Name>> {
  const parsed = await Promise.all(
    names.map(
      async (name) => [name, parseFragment(await readShipped(host, packageDir, `${name}.yml`))] as const,
    ),
  );
  return Object.fromEntries(parsed) as Fragments<Name>;
}
