// Package lines is how the bench drives its Go programs: a JSON object a line
// on stdin, each answered by one on stdout.
package lines

import (
	"bufio"
	"encoding/json"
	"os"
)

// Order is one line of stdin: ID is repeated in its answer, the other members
// are the order's own.
type Order struct {
	Do       string  `json:"do"`
	ID       int     `json:"id"`
	Count    int     `json:"count"`
	InFlight int     `json:"in_flight"`
	Size     int     `json:"size"`
	Kind     string  `json:"kind"`
	Slices   int     `json:"slices"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate"`
}

// Facts are the members of an answer.
type Facts map[string]any

// Emit writes one line.
func Emit(event string, facts Facts) {
	line := map[string]any{"event": event}
	for name, value := range facts {
		line[name] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

// Serve carries orders out, one after the other, until stdin ends.
func Serve(orders map[string]func(*Order) (Facts, error)) {
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		order := new(Order)
		if err := json.Unmarshal(input.Bytes(), order); err != nil {
			Emit("failed", Facts{"error": err.Error()})
			continue
		}
		do, ok := orders[order.Do]
		if !ok {
			Emit("failed", Facts{"id": order.ID, "error": "no order " + order.Do})
			continue
		}
		facts, err := do(order)
		if err != nil {
			Emit("failed", Facts{"id": order.ID, "error": err.Error()})
			continue
		}
		if facts == nil {
			facts = Facts{}
		}
		facts["id"] = order.ID
		Emit("done", facts)
	}
}
