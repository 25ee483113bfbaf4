declare const FULA_NODE_VERSION: string;

const asksVersionOnly = process.argv.length === 3 && ["--version", "-V"].includes(process.argv[2] ?? "");
if (asksVersionOnly) process.stdout.write(`${FULA_NODE_VERSION}\n`);
else {
  const { main } = await import("./main.ts");
  process.exitCode = await main({
    process,
    version: FULA_NODE_VERSION,
    exit: (exitCode) => process.exit(exitCode),
  });
}
