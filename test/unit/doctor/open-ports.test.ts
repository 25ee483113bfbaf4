import { afterAll, beforeAll, expect, test } from "vitest";
import { type DoctorBench, openDoctorBench } from "../../support/doctor-master.ts";

let bench: DoctorBench;
beforeAll(async () => {
  bench = await openDoctorBench();
});
afterAll(() => bench.clear());

const listener = (port: number, address: string, process = "ipfs") => ({
  port,
  address,
  pid: 5,
  process,
  ancestry: [5],
  unit: null,
});
const proxied = (port: number, address: string) => listener(port, address, "docker-proxy");
const INPUT = (port: number) => `-I INPUT -p tcp --dport ${port} ! -i lo -j DROP`;

test.each([
  ["a process on IPv4", [listener(5001, "0.0.0.0")], [`iptables ${INPUT(5001)}`]],
  ["a process on IPv6", [listener(5001, "2001:db8::7")], [`ip6tables ${INPUT(5001)}`]],
  ["a process on both", [listener(5001, "::")], [`iptables ${INPUT(5001)}`, `ip6tables ${INPUT(5001)}`]],
  [
    "a container",
    [proxied(5432, "0.0.0.0"), proxied(5432, "::")],
    [
      "iptables -I DOCKER-USER -m conntrack --ctorigdstport 5432 -j DROP",
      "ip6tables -I PREROUTING -t raw -p tcp --dport 5432 ! -i lo -j DROP",
    ],
  ],
])(
  "a port that %s opens to all is closed by commands that work, each on one line",
  async (_name, open, commands) => {
    const { wrong, lines } = await bench.doctorOn(bench.master((host) => (host.system.listening = open)));
    expect(wrong.get("open-ports")?.split("; ").slice(1)).toEqual(commands);
    for (const command of commands) expect(lines.map((line) => line.trim())).toContain(command);
  },
);
