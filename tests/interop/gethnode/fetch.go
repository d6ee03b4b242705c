package main

import (
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
)

const (
	// As geth's downloader asks, and a little more than fits one answer.
	headersAtOnce = 192
	blocksAtOnce  = 128
	answerTime    = 30 * time.Second
)

// fetched is what a fetch has brought, all of it verified.
type fetched struct {
	headers, transactions, withdrawals, receipts int
	// Questions that were put to the peer, follow-ups of partial receipts included.
	roundtrips int
}

// fetch asks a peer for blocks 1 to count through geth's own eth.Peer, and
// verifies them: the headers are a chain from the genesis to the head, and the
// bodies and receipts have the roots that the headers name.
func fetch(peer *eth.Peer, genesis, head common.Hash, count int) (*fetched, error) {
	got := new(fetched)
	headers, err := got.fetchHeaders(peer, genesis, head, count)
	if err != nil {
		return nil, err
	}
	for start := 0; start < len(headers); {
		batch := headers[start:min(start+blocksAtOnce, len(headers))]
		n, err := got.fetchBodies(peer, batch)
		if err != nil {
			return nil, err
		}
		start += n
	}
	for start := 0; start < len(headers); {
		batch := headers[start:min(start+blocksAtOnce, len(headers))]
		n, err := got.fetchReceipts(peer, batch)
		if err != nil {
			return nil, err
		}
		start += n
	}
	return got, nil
}

func (got *fetched) fetchHeaders(peer *eth.Peer, genesis, head common.Hash, count int) ([]*types.Header, error) {
	var headers []*types.Header
	parent := genesis
	for len(headers) < count {
		sink := make(chan *eth.Response)
		amount := min(headersAtOnce, count-len(headers))
		req, err := peer.RequestHeadersByNumber(uint64(len(headers)+1), amount, 0, false, sink)
		if err != nil {
			return nil, err
		}
		res, err := got.await(req, sink)
		if err != nil {
			return nil, err
		}
		answered := *res.Res.(*eth.BlockHeadersRequest)
		if len(answered) == 0 {
			return nil, fmt.Errorf("no header after %d", len(headers))
		}
		for i, header := range answered {
			if header.ParentHash != parent {
				return nil, fmt.Errorf("header %v is not the next one", header.Number)
			}
			parent = res.Meta.([]common.Hash)[i]
		}
		headers = append(headers, answered...)
	}
	if parent != head {
		return nil, fmt.Errorf("the head is %x", parent)
	}
	got.headers = len(headers)
	return headers, nil
}

func (got *fetched) fetchBodies(peer *eth.Peer, headers []*types.Header) (int, error) {
	sink := make(chan *eth.Response)
	req, err := peer.RequestBodies(hashesOf(headers), sink)
	if err != nil {
		return 0, err
	}
	res, err := got.await(req, sink)
	if err != nil {
		return 0, err
	}
	bodies, hashes := *res.Res.(*eth.BlockBodiesResponse), res.Meta.(eth.BlockBodyHashes)
	if len(bodies) == 0 {
		return 0, fmt.Errorf("no body of %v", headers[0].Number)
	}
	for i, body := range bodies {
		header := headers[i]
		withdrawals := header.WithdrawalsHash
		if hashes.TransactionRoots[i] != header.TxHash || hashes.UncleHashes[i] != header.UncleHash ||
			(body.Withdrawals != nil) != (withdrawals != nil) || (withdrawals != nil && hashes.WithdrawalRoots[i] != *withdrawals) {
			return 0, fmt.Errorf("another body than that of %v", header.Number)
		}
		got.transactions += body.Transactions.Len()
		if body.Withdrawals != nil {
			got.withdrawals += body.Withdrawals.Len()
		}
	}
	return len(bodies), nil
}

func (got *fetched) fetchReceipts(peer *eth.Peer, headers []*types.Header) (int, error) {
	var gasUsed, times []uint64
	for _, header := range headers {
		gasUsed, times = append(gasUsed, header.GasUsed), append(times, header.Time)
	}
	sink := make(chan *eth.Response)
	req, err := peer.RequestReceipts(hashesOf(headers), gasUsed, times, sink)
	if err != nil {
		return 0, err
	}
	res, err := got.await(req, sink)
	if err != nil {
		return 0, err
	}
	roots := res.Meta.([]common.Hash)
	if len(roots) == 0 {
		return 0, fmt.Errorf("no receipts of %v", headers[0].Number)
	}
	for i, root := range roots {
		if root != headers[i].ReceiptHash {
			return 0, fmt.Errorf("other receipts than those of %v", headers[i].Number)
		}
	}
	got.receipts += len(roots)
	return len(roots), nil
}

func (got *fetched) await(req *eth.Request, sink chan *eth.Response) (*eth.Response, error) {
	select {
	case res := <-sink:
		res.Done <- nil
		got.roundtrips += res.Roundtrips
		return res, nil
	case <-time.After(answerTime):
		req.Close()
		return nil, fmt.Errorf("no answer within %v", answerTime)
	}
}

func hashesOf(headers []*types.Header) []common.Hash {
	hashes := make([]common.Hash, len(headers))
	for i, header := range headers {
		hashes[i] = header.Hash()
	}
	return hashes
}
