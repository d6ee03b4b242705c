// Command gethpeer68 is the test peer of ../geth on the last line of
// go-ethereum which spoke eth/68 alone.
package main

import (
	"os"

	"gethpeer/harness"

	"github.com/ethereum/go-ethereum/core/forkid"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/p2p"
)

func main() {
	os.Exit(harness.Main(&harness.Program{
		Name:       "gethpeer/v1.15.11",
		DefaultEth: "68",
		EthLengths: map[uint]uint64{eth.ETH68: 17},
		Handshake:  handshake,
		Packet:     newPacket,
		Empty:      empty,
	}))
}

// handshake announces a total difficulty of 0, as this release does.
func handshake(version uint, p *p2p.Peer, rw p2p.MsgReadWriter, c *harness.Chain) (map[string]any, error) {
	peer := eth.NewPeer(version, p, rw, nil)
	defer peer.Close()
	return nil, peer.Handshake(c.NetworkID, c.CurrentHeader().Hash(), c.Genesis().Hash(), c.ForkID(), forkid.NewFilter(c))
}

// newPacket follows the handler table of eth/protocols/eth/handler.go, without
// the block announcements, whose handlers only say that they are disallowed.
func newPacket(protocol string, version uint, code uint64) any {
	switch code {
	case eth.TransactionsMsg:
		return new(eth.TransactionsPacket)
	case eth.NewPooledTransactionHashesMsg:
		return new(eth.NewPooledTransactionHashesPacket)
	case eth.GetBlockHeadersMsg:
		return new(eth.GetBlockHeadersPacket)
	case eth.BlockHeadersMsg:
		return new(eth.BlockHeadersPacket)
	case eth.GetBlockBodiesMsg:
		return new(eth.GetBlockBodiesPacket)
	case eth.BlockBodiesMsg:
		return new(eth.BlockBodiesPacket)
	case eth.GetReceiptsMsg:
		return new(eth.GetReceiptsPacket)
	case eth.ReceiptsMsg:
		return new(eth.ReceiptsPacket)
	case eth.GetPooledTransactionsMsg:
		return new(eth.GetPooledTransactionsPacket)
	case eth.PooledTransactionsMsg:
		return new(eth.PooledTransactionsPacket)
	}
	return nil
}

// empty answers with the same packets as the handlers of geth do when a node
// has nothing of what was asked for.
func empty(version uint, packet any) (uint64, any, bool) {
	switch p := packet.(type) {
	case *eth.GetBlockHeadersPacket:
		return eth.BlockHeadersMsg, &eth.BlockHeadersRLPPacket{RequestId: p.RequestId}, true
	case *eth.GetBlockBodiesPacket:
		return eth.BlockBodiesMsg, &eth.BlockBodiesRLPPacket{RequestId: p.RequestId}, true
	case *eth.GetPooledTransactionsPacket:
		return eth.PooledTransactionsMsg, &eth.PooledTransactionsRLPPacket{RequestId: p.RequestId}, true
	case *eth.GetReceiptsPacket:
		return eth.ReceiptsMsg, &eth.ReceiptsRLPPacket{RequestId: p.RequestId}, true
	}
	return 0, nil, false
}
