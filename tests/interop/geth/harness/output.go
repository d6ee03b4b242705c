package harness

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
)

// output writes one JSON object per line and flushes each of them.
type output struct {
	mu sync.Mutex
	w  *bufio.Writer
}

func newOutput(w io.Writer) *output {
	return &output{w: bufio.NewWriterSize(w, 1<<16)}
}

// emit prints an event; kv are alternating names and values, kept in order.
func (o *output) emit(event string, kv ...any) {
	line := append([]byte(`{"event":`), quote(event)...)
	for i := 0; i+1 < len(kv); i += 2 {
		line = append(line, ',')
		line = append(line, quote(kv[i])...)
		line = append(line, ':')
		line = append(line, quote(kv[i+1])...)
	}
	line = append(line, '}', '\n')
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w.Write(line)
	o.w.Flush()
}

func quote(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(err.Error())
	}
	return b
}

// command is one line of the standard input.
type command struct {
	Do       string `json:"do"`
	Peer     int    `json:"peer"`
	Enode    string `json:"enode"`
	Protocol string `json:"protocol"`
	Code     uint64 `json:"code"`
	Payload  string `json:"payload"`
	Reason   uint8  `json:"reason"`
	Remote   string `json:"remote"`
	Repeat   int    `json:"repeat"`
}
