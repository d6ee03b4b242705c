// command asks the peer of one session for a block header, and prints the RLP of the answer.
//
//	command ipc:///run/user/1000/rlpx-engine/worker-0.ipc 42
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
	socket := zmq4.NewDealer(context.Background())
	if err := socket.Dial(os.Args[1]); err != nil {
		log.Fatal(err)
	}
	head := fmt.Sprintf(`{"jsonrpc": "2.0", "id": 1, "method": "request",
		"params": {"session": %s, "capability": "eth", "message": "GetBlockHeaders", "timeout_s": 10}}`, os.Args[2])
	// [request id 7, [block 1, at most 1 header, skip 0, not reverse]]
	question := []byte{0xc6, 0x07, 0xc4, 0x01, 0x01, 0x80, 0x80}
	if err := socket.SendMulti(zmq4.NewMsgFrom([]byte(head), question)); err != nil {
		log.Fatal(err)
	}
	message, err := socket.Recv()
	if err != nil {
		log.Fatal(err)
	}
	var reply struct {
		Result struct{ Message string }
		Error  *struct{ Message string }
	}
	if err := json.Unmarshal(message.Frames[0], &reply); err != nil {
		log.Fatal(err)
	}
	if reply.Error != nil {
		fmt.Println("error", string(message.Frames[0]))
		os.Exit(1)
	}
	fmt.Printf("answer %s %x\n", reply.Result.Message, message.Frames[1])
}
