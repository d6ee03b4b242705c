// Prints the sessions of a worker, then every event of theirs and every transaction, and what it has missed.
//
//   node feed.mjs ipc:///run/user/1000/rlpx-engine/worker-0.ipc
//   node feed.mjs tcp://10.0.0.5:5600 monitor-1.secret
import { Dealer } from "zeromq";
import { keysOf } from "./curve.mjs";

const socket = new Dealer(process.argv[3] ? keysOf(process.argv[3]) : {});
socket.connect(process.argv[2]);
const send = (head) => socket.send(JSON.stringify(head));
await send({ feed: 1, topics: ["session.", "eth.Transactions"], credit: 1 << 20, snapshot: true });
let next = 0;
for await (const [head, body = Buffer.alloc(0)] of socket) {
  const { sessions = [], first, events } = JSON.parse(head);
  for (const session of sessions) console.log("session", JSON.stringify(session));
  if (!events) continue;
  if (first > next) console.log("missed", first - next);
  next = first + events.length;
  let at = 0;
  for (const { topic, session, size = 0 } of events) {
    console.log("event", topic, session, body.toString("hex", at, at + size));
    at += size;
  }
  await send({ feed: 1, credit: head.length + body.length });
}
