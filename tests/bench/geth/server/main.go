// Command server is what the engine is compared with: go-ethereum's p2p.Server
// with its own eth Status exchange, whose handler counts messages and throws
// them away.
//
// Orders: {"do":"counts"}: peers, and messages since the start.
// {"do":"broadcast","size":n,"count":n}: so many messages of a size to each
// peer, by a goroutine a peer, as geth's own.
package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"bench/chain"
	"bench/lines"
	"bench/payload"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/netutil"
	"github.com/ethereum/go-ethereum/rlp"
)

// The bench decides how many there are.
const maxPeers = 100_000

type server struct {
	chain    *chain.Chain
	messages atomic.Int64

	mu    sync.Mutex
	peers map[*p2p.Peer]p2p.MsgWriter
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	log.SetDefault(log.NewLogger(log.DiscardHandler()))
	key, err := crypto.GenerateKey()
	if err != nil {
		return err
	}
	s := &server{chain: chain.New(), peers: make(map[*p2p.Peer]p2p.MsgWriter)}
	node := &p2p.Server{Config: p2p.Config{
		PrivateKey:  key,
		MaxPeers:    maxPeers,
		NoDiscovery: true,
		NoDial:      true,
		Name:        "bench-server",
		ListenAddr:  "127.0.0.1:0",
		NetRestrict: loopback(),
		Protocols:   s.protocols(),
	}}
	if err := node.Start(); err != nil {
		return err
	}
	defer node.Stop()
	url, _, _ := strings.Cut(node.Self().URLv4(), "?")
	lines.Emit("listening", lines.Facts{"enode": url})
	lines.Serve(map[string]func(*lines.Order) (lines.Facts, error){
		"counts":    s.counts,
		"broadcast": s.broadcast,
	})
	return nil
}

func loopback() *netutil.Netlist {
	list, err := netutil.ParseNetlist("127.0.0.0/8")
	if err != nil {
		panic(err)
	}
	return list
}

func (s *server) protocols() (protocols []p2p.Protocol) {
	for _, version := range eth.ProtocolVersions {
		protocols = append(protocols, p2p.Protocol{
			Name:    eth.ProtocolName,
			Version: version,
			Length:  chain.Length(version),
			Run: func(p *p2p.Peer, rw p2p.MsgReadWriter) error {
				return s.run(version, p, rw)
			},
		})
	}
	return protocols
}

func (s *server) run(version uint, p *p2p.Peer, rw p2p.MsgReadWriter) error {
	peer := eth.NewPeer(version, p, rw, nil, nil, s.chain.Config())
	defer peer.Close()
	if err := peer.Handshake(chain.NetworkID, s.chain, s.chain.Range()); err != nil {
		return err
	}
	s.mu.Lock()
	s.peers[p] = rw
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.peers, p)
		s.mu.Unlock()
	}()
	for {
		msg, err := rw.ReadMsg()
		if err != nil {
			return err
		}
		if err := msg.Discard(); err != nil {
			return err
		}
		s.messages.Add(1)
	}
}

func (s *server) counts(*lines.Order) (lines.Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lines.Facts{"sessions": len(s.peers), "messages": s.messages.Load()}, nil
}

func (s *server) broadcast(o *lines.Order) (lines.Facts, error) {
	message := rlp.RawValue(payload.Transactions(o.Size))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rw := range s.peers {
		go func() {
			for range o.Count {
				if p2p.Send(rw, eth.TransactionsMsg, message) != nil {
					return // the peer has gone, and its Run ends
				}
			}
		}()
	}
	return lines.Facts{"peers": len(s.peers)}, nil
}
