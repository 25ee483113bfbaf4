/**
 * What libnetwork reports if its chains are gone, with iptables (`No chain/target/match by that name`, and `does a
 * matching rule exist` from iptables-nft) or with the kernel's own names of them.
 */
const LOST_CHAINS = [
  /No chain\/target\/match by that name/i,
  /Chain '?DOCKER[A-Z0-9-]*'? does not exist/i,
  /iptables failed: .*\bDOCKER/is,
  /Failed to program .*(?:FILTER|NAT) chain/i,
  /unable to enable (?:ACCEPT|DNAT|SKIP DNAT|DROP|MASQUERADE) .*rule/i,
  /nftables?.*docker.*No such file or directory/is,
];

/** What to do if another program removed Docker's firewall rules; null if the engine's words say something else. */
export function remedyForFirewall(why: string): string | null {
  if (!LOST_CHAINS.some((pattern) => pattern.test(why))) return null;
  return "The firewall was loaded again, which removed Docker's rules. Restart Docker: systemctl restart docker. Then run again. Containers with a restart policy start by themselves.";
}
