package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bench/chain"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"github.com/ethereum/go-ethereum/p2p/rlpx"
	"github.com/ethereum/go-ethereum/rlp"
)

// Message codes of p2p, which it does not export; capabilities begin at 16.
const (
	helloCode      = 0
	disconnectCode = 1
	pingCode       = 2
	pongCode       = 3
	ethCode        = 16
)

const (
	// Until the server has said its Status; a crowd on a slow machine queues.
	establishTime = 30 * time.Second
	// After our Disconnect, until the server has closed.
	leaveTime = 10 * time.Second
	// For a pong behind all that was sent before: megabytes may be.
	pongTime = 120 * time.Second
)

// received counts the eth messages of all sessions after their Status.
var received atomic.Int64

// hello is p2p's protoHandshake.
type hello struct {
	Version    uint64
	Name       string
	Caps       []p2p.Cap
	ListenPort uint64
	ID         []byte
	Rest       []rlp.RawValue `rlp:"tail"`
}

// outlet is the socket, and can hold back what is written, sealed already.
type outlet struct {
	net.Conn
	isHolding bool
	held      bytes.Buffer
}

func (o *outlet) Write(b []byte) (int, error) {
	if o.isHolding {
		return o.held.Write(b)
	}
	return o.Conn.Write(b)
}

// session is one established peer connection. Its wire is read by one
// goroutine and written by whoever holds mu.
type session struct {
	wire    *rlpx.Conn
	out     *outlet
	version uint
	mu      sync.Mutex
	pongs   chan struct{}
	ended   chan struct{}
	// Why reading ended; valid once ended is closed.
	err error
	// From before the auth was sealed until the server's Status was read.
	took time.Duration
}

// open connects with a key of its own and shakes hands until both Statuses
// are exchanged.
func open(target *enode.Node, c *chain.Chain) (*session, error) {
	key, err := crypto.GenerateKey()
	if err != nil {
		return nil, err
	}
	address, _ := target.TCPEndpoint()
	conn, err := net.DialTimeout("tcp", address.String(), establishTime)
	if err != nil {
		return nil, err
	}
	s := &session{
		out:   &outlet{Conn: conn},
		pongs: make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	conn.SetDeadline(time.Now().Add(establishTime))
	began := time.Now()
	s.wire = rlpx.NewConn(s.out, target.Pubkey())
	if _, err := s.wire.Handshake(key); err != nil {
		conn.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if err := s.negotiate(&hello{
		Version: 5,
		Name:    "bench-load",
		Caps:    chain.Caps(),
		ID:      crypto.FromECDSAPub(&key.PublicKey)[1:],
	}, c); err != nil {
		conn.Close()
		return nil, err
	}
	s.took = time.Since(began)
	conn.SetDeadline(time.Time{})
	go s.read()
	return s, nil
}

func (s *session) negotiate(ours *hello, c *chain.Chain) error {
	if err := s.send(helloCode, ours); err != nil {
		return err
	}
	theirs := new(hello)
	if err := s.expect(helloCode, theirs); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	s.wire.SetSnappy(true)
	for _, cap := range ours.Caps {
		if slices.Contains(theirs.Caps, cap) {
			s.version = max(s.version, cap.Version)
		}
	}
	if err := s.send(ethCode+eth.StatusMsg, c.Status(s.version)); err != nil {
		return err
	}
	status := new(eth.StatusPacket)
	if err := s.expect(ethCode+eth.StatusMsg, status); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if status.Genesis != c.GenesisHash() {
		return errors.New("status of another chain")
	}
	return nil
}

// expect reads one message of this code.
func (s *session) expect(code uint64, into any) error {
	got, data, _, err := s.wire.Read()
	if err != nil {
		return err
	}
	if got != code {
		return fmt.Errorf("message %d (%x) instead of %d", got, data, code)
	}
	return rlp.DecodeBytes(data, into)
}

func (s *session) send(code uint64, message any) error {
	data, err := rlp.EncodeToBytes(message)
	if err != nil {
		return err
	}
	return s.write(code, data)
}

func (s *session) write(code uint64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.wire.Write(code, data)
	return err
}

// read answers pings and counts messages until the connection ends.
func (s *session) read() {
	defer close(s.ended)
	defer s.out.Close()
	for {
		code, data, _, err := s.wire.Read()
		if err != nil {
			s.err = err
			return
		}
		switch {
		case code >= ethCode:
			received.Add(1)
		case code == pingCode:
			s.err = s.send(pongCode, []uint{})
		case code == pongCode:
			s.pongs <- struct{}{}
		case code == disconnectCode:
			s.err = fmt.Errorf("disconnected: %x", data)
			return
		}
		if s.err != nil {
			return
		}
	}
}

// hold seals count messages for later.
func (s *session) hold(code uint64, payload []byte, count int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.isHolding = true
	for range count {
		if _, err := s.wire.Write(code, payload); err != nil {
			return err
		}
	}
	return nil
}

// release sends what is held, in equal slices over a time, and waits until
// the server has taken all of it.
func (s *session) release(slices int, over time.Duration) error {
	if err := s.releaseHeld(slices, over); err != nil {
		return err
	}
	return s.ping()
}

func (s *session) releaseHeld(slices int, over time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Now()
	size := (s.out.held.Len() + slices - 1) / slices
	for i := range slices {
		time.Sleep(time.Until(began.Add(over * time.Duration(i) / time.Duration(slices))))
		if _, err := s.out.Conn.Write(s.out.held.Next(size)); err != nil {
			return err
		}
	}
	s.out.isHolding = false
	return nil
}

// ping returns once the pong is there, and with it everything sent before is
// known to be read.
func (s *session) ping() error {
	if err := s.send(pingCode, []uint{}); err != nil {
		return err
	}
	select {
	case <-s.pongs:
		return nil
	case <-s.ended:
		return fmt.Errorf("the session has ended: %w", s.err)
	case <-time.After(pongTime):
		return errors.New("no pong")
	}
}

// leave says goodbye and waits until the server has closed.
func (s *session) leave() error {
	if err := s.send(disconnectCode, []uint{uint(p2p.DiscQuitting)}); err != nil {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(leaveTime):
		s.out.Close()
		return errors.New("the server did not close after a Disconnect")
	}
}
