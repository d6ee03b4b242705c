// Command gethpeer is a test peer on go-ethereum's own p2p and eth code, for
// eth/69 to eth/72 and snap/1 and snap/2. See harness for what it reads and
// prints.
package main

import (
	"os"

	"gethpeer/harness"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/eth/protocols/snap"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rlp"
)

func main() {
	os.Exit(harness.Main(&harness.Program{
		Name:       "gethpeer/v1.17.10",
		DefaultEth: "69,70,71,72",
		// protocolLengths of eth/protocols/eth and eth/protocols/snap, which are
		// not exported.
		EthLengths:  map[uint]uint64{eth.ETH69: 18, eth.ETH70: 18, eth.ETH71: 20, eth.ETH72: 22},
		SnapLengths: map[uint]uint64{snap.SNAP1: 8, snap.SNAP2: 10},
		Handshake:   handshake,
		Packet:      newPacket,
		Empty:       empty,
	}))
}

func handshake(version uint, p *p2p.Peer, rw p2p.MsgReadWriter, c *harness.Chain) (map[string]any, error) {
	peer := eth.NewPeer(version, p, rw, nil, nil, c.Config())
	defer peer.Close()
	err := peer.Handshake(c.NetworkID, c, eth.BlockRangeUpdatePacket{
		EarliestBlock:   c.Earliest,
		LatestBlock:     c.Latest,
		LatestBlockHash: c.LatestHash,
	})
	if err != nil {
		return nil, err
	}
	info := make(map[string]any)
	if r := peer.BlockRange(); r != nil {
		info["range"] = map[string]any{
			"earliest": r.EarliestBlock,
			"latest":   r.LatestBlock,
			"hash":     common.Bytes2Hex(r.LatestBlockHash[:]),
		}
	}
	return info, nil
}

// newPacket follows the handler tables of eth/protocols/eth/handler.go and
// eth/protocols/snap/handler.go.
func newPacket(protocol string, version uint, code uint64) any {
	if protocol == "snap" {
		return newSnapPacket(version, code)
	}
	switch code {
	case eth.TransactionsMsg:
		return new(eth.TransactionsPacket)
	case eth.NewPooledTransactionHashesMsg:
		if version >= eth.ETH72 {
			return new(eth.NewPooledTransactionHashesPacket72)
		}
		return new(eth.NewPooledTransactionHashesPacket71)
	case eth.GetBlockHeadersMsg:
		return new(eth.GetBlockHeadersPacket)
	case eth.BlockHeadersMsg:
		return new(eth.BlockHeadersPacket)
	case eth.GetBlockBodiesMsg:
		return new(eth.GetBlockBodiesPacket)
	case eth.BlockBodiesMsg:
		return new(eth.BlockBodiesPacket)
	case eth.GetReceiptsMsg:
		if version >= eth.ETH70 {
			return new(eth.GetReceiptsPacket70)
		}
		return new(eth.GetReceiptsPacket69)
	case eth.ReceiptsMsg:
		if version >= eth.ETH70 {
			return new(eth.ReceiptsPacket70)
		}
		return new(eth.ReceiptsPacket69)
	case eth.GetPooledTransactionsMsg:
		return new(eth.GetPooledTransactionsPacket)
	case eth.PooledTransactionsMsg:
		return new(eth.PooledTransactionsPacket)
	case eth.BlockRangeUpdateMsg:
		return new(eth.BlockRangeUpdatePacket)
	}
	if version >= eth.ETH71 {
		switch code {
		case eth.GetBlockAccessListsMsg:
			return new(eth.GetBlockAccessListsPacket)
		case eth.BlockAccessListsMsg:
			return new(eth.BlockAccessListPacket)
		}
	}
	if version >= eth.ETH72 {
		switch code {
		case eth.GetCellsMsg:
			return new(eth.GetCellsRequestPacket)
		case eth.CellsMsg:
			return new(eth.CellsPacket)
		}
	}
	return nil
}

func newSnapPacket(version uint, code uint64) any {
	switch code {
	case snap.GetAccountRangeMsg:
		return new(snap.GetAccountRangePacket)
	case snap.AccountRangeMsg:
		return new(snap.AccountRangePacket)
	case snap.GetStorageRangesMsg:
		return new(snap.GetStorageRangesPacket)
	case snap.StorageRangesMsg:
		return new(snap.StorageRangesPacket)
	case snap.GetByteCodesMsg:
		return new(snap.GetByteCodesPacket)
	case snap.ByteCodesMsg:
		return new(snap.ByteCodesPacket)
	}
	switch {
	case version < snap.SNAP2 && code == snap.GetTrieNodesMsg:
		return new(snap.GetTrieNodesPacket)
	case version < snap.SNAP2 && code == snap.TrieNodesMsg:
		return new(snap.TrieNodesPacket)
	case version >= snap.SNAP2 && code == snap.GetAccessListsMsg:
		return new(snap.GetAccessListsPacket)
	case version >= snap.SNAP2 && code == snap.AccessListsMsg:
		return new(snap.AccessListsPacket)
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
	case *eth.GetReceiptsPacket69:
		return eth.ReceiptsMsg, &eth.ReceiptsPacket69{RequestId: p.RequestId}, true
	case *eth.GetReceiptsPacket70:
		return eth.ReceiptsMsg, &eth.ReceiptsPacket70{RequestId: p.RequestId}, true
	case *eth.GetBlockAccessListsPacket:
		return eth.BlockAccessListsMsg, &eth.BlockAccessListPacket{
			RequestId: p.RequestId,
			List:      unavailable(len(p.GetBlockAccessListsRequest)),
		}, true
	case *eth.GetCellsRequestPacket:
		return eth.CellsMsg, &eth.CellsPacket{RequestId: p.RequestId, Mask: p.Mask}, true
	case *snap.GetAccountRangePacket:
		return snap.AccountRangeMsg, &snap.AccountRangePacket{ID: p.ID}, true
	case *snap.GetStorageRangesPacket:
		return snap.StorageRangesMsg, &snap.StorageRangesPacket{ID: p.ID}, true
	case *snap.GetByteCodesPacket:
		return snap.ByteCodesMsg, &snap.ByteCodesPacket{ID: p.ID}, true
	case *snap.GetTrieNodesPacket:
		return snap.TrieNodesMsg, &snap.TrieNodesPacket{ID: p.ID}, true
	case *snap.GetAccessListsPacket:
		return snap.AccessListsMsg, &snap.AccessListsPacket{ID: p.ID, AccessLists: unavailable(len(p.Hashes))}, true
	}
	return 0, nil, false
}

// unavailable is a list of access lists all of which are missing.
func unavailable(n int) (list rlp.RawList[rlp.RawValue]) {
	for range min(n, 1024) {
		list.AppendRaw(rlp.EmptyString)
	}
	return list
}
