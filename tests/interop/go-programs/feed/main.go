// feed prints the sessions of a worker, then every event of theirs and every transaction, and what it has missed.
//
//	feed ipc:///run/user/1000/rlpx-engine/worker-0.ipc
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/go-zeromq/zmq4"
)

const credit = 1 << 20

func main() {
	socket := zmq4.NewDealer(context.Background())
	if err := socket.Dial(os.Args[1]); err != nil {
		log.Fatal(err)
	}
	send := func(head string) {
		if err := socket.Send(zmq4.NewMsgString(head)); err != nil {
			log.Fatal(err)
		}
	}
	send(fmt.Sprintf(`{"feed": 1, "topics": ["session.", "eth.Transactions"], "credit": %d, "snapshot": true}`, credit))
	for next := 0; ; {
		message, err := socket.Recv()
		if err != nil {
			log.Fatal(err)
		}
		var head struct {
			Sessions []json.RawMessage
			First    int
			Events   []struct {
				Topic   string
				Session int
				Size    int
			}
		}
		if err := json.Unmarshal(message.Frames[0], &head); err != nil {
			log.Fatal(err)
		}
		for _, session := range head.Sessions {
			fmt.Printf("session %s\n", session)
		}
		if head.Events == nil {
			continue
		}
		if head.First > next {
			fmt.Printf("missed %d\n", head.First-next)
		}
		next = head.First + len(head.Events)
		bytes, body := len(message.Frames[0]), []byte{}
		if len(message.Frames) > 1 {
			body = message.Frames[1]
		}
		bytes += len(body)
		for _, event := range head.Events {
			fmt.Printf("event %s %d %x\n", event.Topic, event.Session, body[:event.Size])
			body = body[event.Size:]
		}
		send(fmt.Sprintf(`{"feed": 1, "credit": %d}`, bytes))
	}
}
