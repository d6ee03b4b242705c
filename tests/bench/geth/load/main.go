// Command load is the bench's initiator, on go-ethereum's p2p/rlpx: it plays
// any number of peers, each with a key of its own, and never the one it
// measures.
//
//	load ENODE
//
// Orders:
//
//	{"do":"open","count":n,"in_flight":n}      open so many sessions more; answers with the time from auth to Status
//	{"do":"leave","in_flight":n}               say goodbye on all, and wait until the server has closed them
//	{"do":"hold","kind":k,"count":n,"size":n}  seal so many messages on each session, without sending them;
//	                                           transactions of a size in bytes, announcements in hashes
//	{"do":"release","slices":n,"seconds":s}    send them, over so long, until the server has taken all
//	{"do":"round","count":n,"size":n}          n times one message on each session, each read by itself: a turn
//	                                           begins once the server has read the one before
//	{"do":"pace","rate":r,"seconds":s,"size":n} send stamped transactions at a rate, one session after the other
//	{"do":"await","count":n}                   wait until so many messages were received since the start
//	{"do":"ping"}                              a ping and its pong on each session
//	{"do":"payload","size":n}                  transactions of a size, in hex
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"bench/chain"
	"bench/lines"
	"bench/payload"

	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"golang.org/x/sys/unix"
)

const (
	// All that a broadcast may take.
	awaitTime = 120 * time.Second
	awaitStep = time.Millisecond
	// What one turn of a round may send: a reader has room for several.
	turnBytes = 8 << 20
	// A paced load sends what has become due since, this often.
	paceStep = time.Millisecond
)

type load struct {
	target   *enode.Node
	chain    *chain.Chain
	sessions []*session
	// Where the next turn of a round begins.
	next int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	l := &load{chain: chain.New()}
	lines.Emit("chain", l.chain.Describe())
	if len(os.Args) < 2 {
		return nil
	}
	var err error
	if l.target, err = enode.ParseV4(os.Args[1]); err != nil {
		return err
	}
	lines.Serve(map[string]func(*lines.Order) (lines.Facts, error){
		"open":    l.open,
		"leave":   l.leave,
		"hold":    l.hold,
		"release": l.release,
		"round":   l.round,
		"pace":    l.pace,
		"await":   l.await,
		"ping":    l.ping,
		"payload": l.payload,
	})
	return nil
}

// each runs a task for each number below count, so many at a time, and gives
// the first error and how many there were.
func each(count, inFlight int, task func(int) error) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		first  error
		failed int
		next   = make(chan int)
	)
	for range max(1, min(inFlight, count)) {
		wg.Go(func() {
			for i := range next {
				if err := task(i); err != nil {
					mu.Lock()
					first, failed = errors.Join(first, err), failed+1
					mu.Unlock()
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wg.Wait()
	if failed > 0 {
		return fmt.Errorf("%d of %d failed: %.2000s", failed, count, first.Error())
	}
	return nil
}

func (l *load) open(o *lines.Order) (lines.Facts, error) {
	began := time.Now()
	opened := make([]*session, o.Count)
	err := each(o.Count, o.InFlight, func(i int) (err error) {
		opened[i], err = open(l.target, l.chain)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.sessions = append(l.sessions, opened...)
	took := make([]float64, o.Count)
	for i, s := range opened {
		took[i] = float64(s.took.Microseconds()) / 1000
	}
	slices.Sort(took)
	return lines.Facts{
		"seconds": time.Since(began).Seconds(),
		"p50_ms":  took[len(took)/2],
		"p99_ms":  took[len(took)*99/100],
	}, nil
}

func (l *load) leave(o *lines.Order) (lines.Facts, error) {
	err := each(len(l.sessions), o.InFlight, func(i int) error { return l.sessions[i].leave() })
	l.sessions = nil
	return nil, err
}

func (l *load) hold(o *lines.Order) (lines.Facts, error) {
	for _, s := range l.sessions {
		code, content := uint64(ethCode+eth.TransactionsMsg), []byte(nil)
		if o.Kind == "announcements" {
			code, content = ethCode+eth.NewPooledTransactionHashesMsg, payload.Announcement(s.version, o.Size)
		} else {
			content = payload.Transactions(o.Size)
		}
		if err := s.hold(code, content, o.Count); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (l *load) release(o *lines.Order) (lines.Facts, error) {
	began := time.Now()
	over := time.Duration(o.Seconds * float64(time.Second))
	err := each(len(l.sessions), len(l.sessions), func(i int) error { return l.sessions[i].release(max(1, o.Slices), over) })
	return lines.Facts{"seconds": time.Since(began).Seconds()}, err
}

// round writes with one goroutine. The server reads sockets in the order in
// which they became readable, so the pong of a turn's last session comes
// behind all messages of the turn. Turns begin at different sessions, because
// a server delays the pongs to a peer that pings too often.
func (l *load) round(o *lines.Order) (lines.Facts, error) {
	content := payload.Transactions(o.Size)
	turn := make([]*session, max(1, min(len(l.sessions), turnBytes/o.Size)))
	for sent, total := 0, o.Count*len(l.sessions); sent < total; sent += len(turn) {
		turn = turn[:min(len(turn), total-sent)]
		for i := range turn {
			turn[i] = l.sessions[l.next%len(l.sessions)]
			l.next++
			if err := turn[i].hold(ethCode+eth.TransactionsMsg, content, 1); err != nil {
				return nil, err
			}
		}
		l.next++
		for _, s := range turn {
			if err := s.releaseHeld(1, 0); err != nil {
				return nil, err
			}
		}
		if err := turn[len(turn)-1].ping(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (l *load) pace(o *lines.Order) (lines.Facts, error) {
	content := payload.Transactions(o.Size)
	began, sent := time.Now(), 0
	for passed := 0.0; passed < o.Seconds; passed = time.Since(began).Seconds() {
		for due := int(passed * o.Rate); sent < due; sent++ {
			payload.Stamp(content, monotonic())
			if err := l.sessions[sent%len(l.sessions)].write(ethCode+eth.TransactionsMsg, content); err != nil {
				return nil, err
			}
		}
		time.Sleep(paceStep)
	}
	return lines.Facts{"sent": sent}, nil
}

func (l *load) await(o *lines.Order) (lines.Facts, error) {
	began := time.Now()
	for received.Load() < int64(o.Count) {
		if time.Since(began) > awaitTime {
			return nil, fmt.Errorf("received %d of %d messages", received.Load(), o.Count)
		}
		time.Sleep(awaitStep)
	}
	return lines.Facts{"received": received.Load()}, nil
}

func (l *load) ping(*lines.Order) (lines.Facts, error) {
	return nil, each(len(l.sessions), len(l.sessions), func(i int) error { return l.sessions[i].ping() })
}

func (l *load) payload(o *lines.Order) (lines.Facts, error) {
	return lines.Facts{"payload": fmt.Sprintf("%#x", payload.Transactions(o.Size))}, nil
}

// monotonic is the clock that all processes of the machine have in common.
func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return now.Nano()
}
