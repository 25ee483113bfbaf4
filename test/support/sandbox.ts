import { execa } from "execa";
import { installArtifact } from "./artifact.ts";
import { bedEnvironment } from "./bed.ts";
import { Box } from "./box.ts";

Object.assign(process.env, bedEnvironment());
console.log("Booting a box and making it a master ...");
const box = await Box.boot({ name: "sandbox", image: "docker", kept: true });
await installArtifact(box);
const command = `cd /root && npx --yes ./fula-node.tgz join-as-master --yes --provision-writer --set CLUSTERNAME=sandbox`;
console.log(`\nroot@sandbox:~# ${command}`);
const joined = await show(command);
const STATUS = "node /opt/fula-master/cli/current/bin/fula-node.js status";
console.log(`\nroot@sandbox:~# ${STATUS}`);
await show(STATUS);
console.log(`
Look around:   npm run sandbox -- shell (it opens the newest sandbox; each run makes another one)
  In there:    docker ps; cat /opt/fula-master/journal.ndjson; ls /opt/fula-master/snapshots
  Try:         docker rm -f fula-pinning-api; cd /root && npx --yes ./fula-node.tgz join-as-master --yes
Take all down: npm run sandbox -- down
`);
process.exitCode = joined;

/** Runs a command in the box, shows its output while it runs, and returns its exit code. */
async function show(script: string): Promise<number> {
  const shown = ["exec", box.container, "bash", "-c", script];
  const { exitCode = 1 } = await execa("docker", shown, {
    stdio: ["ignore", "inherit", "inherit"],
    reject: false,
  });
  return exitCode;
}
