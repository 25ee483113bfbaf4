import { isIp4, isIp6 } from "./address.ts";

/** True where an IP address lies in one of these networks (CIDR: `172.17.0.0/16`, `fd00::/64`). */
export function isInSubnets(address: string, subnets: readonly string[]): boolean {
  const bits = bitsOf(address);
  return (
    bits !== null &&
    subnets.some((subnet) => {
      const [network = "", length = ""] = subnet.split("/");
      const base = bitsOf(network);
      if (base === null || base.length !== bits.length || !/^[0-9]{1,3}$/.test(length)) return false;
      return bits.startsWith(base.slice(0, Number(length)));
    })
  );
}

/** An address as 32 or 128 characters of 0 and 1; null for anything else. */
function bitsOf(address: string): string | null {
  if (isIp4(address))
    return address
      .split(".")
      .map((part) => inBits(Number(part), 8))
      .join("");
  if (!isIp6(address)) return null;
  const [head = "", tail] = address.split("::");
  const groups = (half: string | undefined) => (half === undefined || half === "" ? [] : half.split(":"));
  const [front, back] = [groups(head), groups(tail)];
  const zeros = Array.from({ length: 8 - front.length - back.length }, () => "0");
  return [...front, ...zeros, ...back].map((group) => inBits(Number.parseInt(group, 16), 16)).join("");
}

function inBits(value: number, length: number): string {
  return value.toString(2).padStart(length, "0");
}
