// Asks the peer of one session for a block header, and prints the RLP of the answer.
//
//   node command.mjs ipc:///run/user/1000/rlpx-engine/worker-0.ipc 42
import { Dealer } from "zeromq";

const socket = new Dealer();
socket.connect(process.argv[2]);
const params = { session: Number(process.argv[3]), capability: "eth", message: "GetBlockHeaders", timeout_s: 10 };
// [request id 7, [block 1, at most 1 header, skip 0, not reverse]]
const question = Buffer.from("c607c401018080", "hex");
await socket.send([JSON.stringify({ jsonrpc: "2.0", id: 1, method: "request", params }), question]);
const [head, payload] = await socket.receive();
const { result, error } = JSON.parse(head);
console.log(...(error ? ["error", head.toString()] : ["answer", result.message, payload.toString("hex")]));
process.exit(error ? 1 : 0);
