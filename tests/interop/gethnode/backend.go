package main

import (
	"fmt"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/txpool"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto/kzg4844"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/eth/protocols/snap"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"github.com/ethereum/go-ethereum/rlp"
)

// pool is the eth.TxPool of a node: what it was given, nothing more.
type pool struct {
	mu  sync.Mutex
	txs map[common.Hash]*types.Transaction
}

func (p *pool) add(txs []*types.Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tx := range txs {
		p.txs[tx.Hash()] = tx
	}
}

func (p *pool) Get(hash common.Hash) *types.Transaction {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.txs[hash]
}

func (p *pool) GetRLP(hash common.Hash, _ uint) []byte {
	tx := p.Get(hash)
	if tx == nil {
		return nil
	}
	encoded, _ := rlp.EncodeToBytes(tx)
	return encoded
}

func (p *pool) GetMetadata(hash common.Hash) *txpool.TxMetadata {
	tx := p.Get(hash)
	if tx == nil {
		return nil
	}
	return &txpool.TxMetadata{Type: tx.Type(), Size: tx.Size(), SizeWithoutBlob: tx.Size()}
}

// noBlobs is an eth.BlobPool without any.
type noBlobs struct{}

func (noBlobs) GetBlobHashes(common.Hash) []common.Hash { return nil }
func (noBlobs) GetBlobCells([]common.Hash, types.CustodyBitmap) ([][]*kzg4844.Cell, [][]*kzg4844.Proof, error) {
	return nil, nil, nil
}
func (noBlobs) GetCustody(common.Hash) *types.CustodyBitmap { return nil }
func (noBlobs) Has(common.Hash) bool                        { return false }

// ethBackend gives geth's eth handler the chain, and prints what it hands on.
type ethBackend struct {
	server int
	chain  *core.BlockChain
	pool   *pool
	out    *output

	mu    sync.Mutex
	peers []*eth.Peer
}

func (b *ethBackend) Chain() *core.BlockChain       { return b.chain }
func (b *ethBackend) TxPool() eth.TxPool            { return b.pool }
func (b *ethBackend) BlobPool() eth.BlobPool        { return noBlobs{} }
func (b *ethBackend) AcceptTxs() bool               { return true }
func (b *ethBackend) PeerInfo(enode.ID) interface{} { return nil }

func (b *ethBackend) RunPeer(peer *eth.Peer, handler eth.Handler) error {
	head := b.chain.CurrentHeader()
	blocks := eth.BlockRangeUpdatePacket{LatestBlock: head.Number.Uint64(), LatestBlockHash: head.Hash()}
	if err := peer.Handshake(networkID, b.chain, blocks); err != nil {
		b.out.emit("refused", "server", b.server, "error", err.Error())
		return err
	}
	b.mu.Lock()
	b.peers = append(b.peers, peer)
	b.mu.Unlock()
	b.out.emit("connected", "server", b.server, "version", peer.Version())
	err := handler(peer)
	b.mu.Lock()
	b.peers = slices.DeleteFunc(b.peers, func(other *eth.Peer) bool { return other == peer })
	b.mu.Unlock()
	b.out.emit("disconnected", "server", b.server, "error", fmt.Sprint(err))
	return err
}

func (b *ethBackend) Handle(peer *eth.Peer, packet eth.Packet) error {
	switch p := packet.(type) {
	case *eth.NewPooledTransactionHashesPacket71:
		b.out.emit("announced", "server", b.server, "hashes", p.Hashes, "types", fmt.Sprintf("%x", p.Types), "sizes", p.Sizes)
	case *eth.NewPooledTransactionHashesPacket72:
		b.out.emit("announced", "server", b.server, "hashes", p.Hashes, "types", fmt.Sprintf("%x", p.Types), "sizes", p.Sizes)
	case *eth.PooledTransactionsPacket:
		txs, err := p.List.Items()
		if err != nil {
			return err
		}
		hashes := make([]common.Hash, len(txs))
		for i, tx := range txs {
			hashes[i] = tx.Hash()
			if _, err := types.Sender(types.LatestSigner(b.chain.Config()), tx); err != nil {
				return err
			}
		}
		b.out.emit("got", "server", b.server, "hashes", hashes)
	}
	return nil
}

// peer is the only one that is connected.
func (b *ethBackend) peer() (*eth.Peer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.peers) != 1 {
		return nil, fmt.Errorf("%d peers are connected", len(b.peers))
	}
	return b.peers[0], nil
}

// snapBackend gives geth's snap handler the chain.
type snapBackend struct {
	chain *core.BlockChain
}

func (b *snapBackend) Chain() *core.BlockChain                             { return b.chain }
func (b *snapBackend) PeerInfo(enode.ID) interface{}                       { return nil }
func (b *snapBackend) Handle(*snap.Peer, snap.Packet) error                { return nil }
func (b *snapBackend) RunPeer(peer *snap.Peer, handler snap.Handler) error { return handler(peer) }
