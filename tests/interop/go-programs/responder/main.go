// responder answers every GetBlockHeaders of the peers of a worker with the RLP in a file: [any request id, [headers]].
//
//	responder ipc:///run/user/1000/rlpx-engine/worker-0.ipc headers.rlp
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/go-zeromq/zmq4"
)

func main() {
	answer, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	socket := zmq4.NewDealer(context.Background())
	if err := socket.Dial(os.Args[1]); err != nil {
		log.Fatal(err)
	}
	if err := socket.Send(zmq4.NewMsgString(`{"register": ["eth.GetBlockHeaders"], "credit": 16}`)); err != nil {
		log.Fatal(err)
	}
	for {
		message, err := socket.Recv()
		if err != nil {
			log.Fatal(err)
		}
		var asked struct{ Token, Session int }
		if err := json.Unmarshal(message.Frames[0], &asked); err != nil {
			log.Fatal(err)
		}
		head := fmt.Sprintf(`{"token": %d}`, asked.Token)
		if err := socket.SendMulti(zmq4.NewMsgFrom([]byte(head), answer)); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("answered %d %x\n", asked.Session, message.Frames[1])
	}
}
