import { installArtifact } from "./artifact.ts";
import { bedEnvironment } from "./bed.ts";
import { Box } from "./box.ts";

Object.assign(process.env, bedEnvironment());
console.log("Booting a box, and making it a master ...");
const box = await Box.boot({ name: "sandbox", image: "docker" });
await installArtifact(box);
const command = `cd /root && npx --yes ./fula-node.tgz join-as-master --yes --provision-writer --set CLUSTERNAME=sandbox`;
console.log(`\nroot@sandbox:~# ${command}`);
const joined = await box.exec(command);
console.log(joined.stdout, joined.stderr);
console.log("root@sandbox:~# fula-node status");
const status = await box.exec("node /opt/fula-master/cli/current/bin/fula-node.js status");
console.log(status.stdout, status.stderr);
console.log(`
Look around:   npm run sandbox -- shell
  In there:    docker ps; cat /opt/fula-master/journal.ndjson; ls /opt/fula-master/snapshots
  Try:         docker rm -f fula-pinning-api; cd /root && npx --yes ./fula-node.tgz join-as-master --yes
Take it down:  npm run sandbox -- down
`);
process.exitCode = joined.exitCode;
