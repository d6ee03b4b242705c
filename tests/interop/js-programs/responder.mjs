// Answers every GetBlockHeaders of the peers of a worker with the RLP in a file: [any request id, [headers]].
//
//   node responder.mjs ipc:///run/user/1000/rlpx-engine/worker-0.ipc headers.rlp
import { readFileSync } from "node:fs";
import { Dealer } from "zeromq";

const answer = readFileSync(process.argv[3]);
const socket = new Dealer();
socket.connect(process.argv[2]);
await socket.send(JSON.stringify({ register: ["eth.GetBlockHeaders"], credit: 16 }));
for await (const [head, request] of socket) {
  const { token, session } = JSON.parse(head);
  await socket.send([JSON.stringify({ token }), answer]);
  console.log("answered", session, request.toString("hex"));
}
