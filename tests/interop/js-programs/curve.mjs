// The options of a socket for an endpoint over TCP, from the key file that `rlpx-ctl keys new` has made.
import { readFileSync } from "node:fs";

const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

// Z85 (ZeroMQ's RFC 32): five digits for each four bytes.
function z85(hex) {
  let text = "";
  for (let at = 0; at < hex.length; at += 8) {
    const value = parseInt(hex.slice(at, at + 8), 16);
    for (let place = 4; place >= 0; place--) text += DIGITS[Math.floor(value / 85 ** place) % 85];
  }
  return text;
}

export function keysOf(file) {
  const lines = [...readFileSync(file, "utf8").matchAll(/^(\w+) = "([0-9a-f]{64})"$/gm)];
  const { secret, public: own, server } = Object.fromEntries(lines.map(([, name, hex]) => [name, z85(hex)]));
  return { curveSecretKey: secret, curvePublicKey: own, curveServerKey: server };
}
