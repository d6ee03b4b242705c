package main

import (
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/beacon"
	"github.com/ethereum/go-ethereum/consensus/ethash"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/holiman/uint256"
)

const (
	networkID   = 7331
	genesisTime = 1_700_000_000
	// The chain maker of geth puts blocks 10 s apart.
	blockSeconds = 10
	// In each of these blocks and the next ones another fork is in force.
	shanghaiBlock  = 100
	cancunBlock    = 250
	pragueBlock    = 400
	osakaBlock     = 550
	amsterdamBlock = 750
	// Room for eleven logs of 1 MiB, each of which costs 10.7 million gas.
	gasLimit = 150_000_000
	// What each large receipt logs.
	largeLogBytes = 1 << 20
)

var (
	senderKey, _ = crypto.HexToECDSA("b71c71a67e1177ad4e901695e1b4b9ee17ae16c6668d313eac2f96dbcda3f291")
	signerKey, _ = crypto.HexToECDSA("8a1f9a8f95be41cd7ccb6168179afb4504aefe388d1e14474d32c45c72ce7b7a")
	// SSTORE(number, number), then its data is logged under the block's number.
	logger     = common.HexToAddress("0x00000000000000000000000000000000000010c5")
	loggerCode = common.FromHex("0x43435536600060003743366000a100")
	// As many zeros are logged as the first word of its data says.
	largeLogger     = common.HexToAddress("0x00000000000000000000000000000000001a46e5")
	largeLoggerCode = common.FromHex("0x6000356000a000")
)

func forkTime(block uint64) *uint64 {
	t := uint64(genesisTime + block*blockSeconds)
	return &t
}

// newGenesis has all forks since the Merge ahead of it.
func newGenesis() *core.Genesis {
	config := *params.MergedTestChainConfig
	config.ChainID = big.NewInt(networkID)
	config.ShanghaiTime = forkTime(shanghaiBlock)
	config.CancunTime = forkTime(cancunBlock)
	config.PragueTime = forkTime(pragueBlock)
	config.OsakaTime = forkTime(osakaBlock)
	config.AmsterdamTime = forkTime(amsterdamBlock)
	config.BlobScheduleConfig = &params.BlobScheduleConfig{
		Cancun: params.DefaultCancunBlobConfig,
		Prague: params.DefaultPragueBlobConfig,
	}
	rich := new(big.Int).Exp(big.NewInt(10), big.NewInt(24), nil)
	return &core.Genesis{
		Config:     &config,
		Timestamp:  genesisTime,
		GasLimit:   gasLimit,
		BaseFee:    big.NewInt(params.InitialBaseFee),
		Difficulty: new(big.Int),
		ExtraData:  []byte("gethnode test chain"),
		Alloc: types.GenesisAlloc{
			crypto.PubkeyToAddress(senderKey.PublicKey): {Balance: rich},
			crypto.PubkeyToAddress(signerKey.PublicKey): {Balance: rich},
			logger:                           {Code: loggerCode, Balance: new(big.Int)},
			largeLogger:                      {Code: largeLoggerCode, Balance: new(big.Int)},
			params.BeaconRootsAddress:        {Nonce: 1, Code: params.BeaconRootsCode, Balance: new(big.Int)},
			params.HistoryStorageAddress:     {Nonce: 1, Code: params.HistoryStorageCode, Balance: new(big.Int)},
			params.WithdrawalQueueAddress:    {Nonce: 1, Code: params.WithdrawalQueueCode, Balance: new(big.Int)},
			params.ConsolidationQueueAddress: {Nonce: 1, Code: params.ConsolidationQueueCode, Balance: new(big.Int)},
			params.BuilderDepositAddress:     {Nonce: 1, Code: params.BuilderDepositCode, Balance: new(big.Int)},
			params.BuilderExitAddress:        {Nonce: 1, Code: params.BuilderExitCode, Balance: new(big.Int)},
		},
	}
}

// newChain generates the chain and executes it again into a BlockChain, which
// has its state as well. largeLogs transactions of its last block log 1 MiB each.
func newChain(blocks, largeLogs int) (*core.BlockChain, error) {
	genesis := newGenesis()
	engine := beacon.New(ethash.NewFaker())
	_, generated, _ := core.GenerateChainWithGenesis(genesis, engine, blocks, func(i int, b *core.BlockGen) {
		fill(b)
		for n := range largeLogs {
			if i == blocks-1 {
				data := common.BigToHash(big.NewInt(largeLogBytes))
				add(b, senderKey, &types.LegacyTx{To: &largeLogger, Gas: 12_000_000, Data: data[:], Value: big.NewInt(int64(n))})
			}
		}
	})
	config := core.DefaultConfig()
	// snap is served from all nodes of the state.
	config.ArchiveMode = true
	chain, err := core.NewBlockChain(rawdb.NewMemoryDatabase(), genesis, engine, config)
	if err != nil {
		return nil, err
	}
	if i, err := chain.InsertChain(generated); err != nil {
		return nil, fmt.Errorf("block %d: %w", i+1, err)
	}
	return chain, nil
}

// fill puts transactions of every kind that the fork of the block has, and
// withdrawals, into a block.
func fill(b *core.BlockGen) {
	number := b.Number().Uint64()
	data := make([]byte, 7*(number%50))
	for i := range data {
		data[i] = byte(number)
	}
	fresh := common.BigToAddress(new(big.Int).SetUint64(0xabc000 + number))
	add(b, senderKey, &types.LegacyTx{To: &fresh, Gas: 500_000, Value: big.NewInt(1000 + int64(number))})
	if number%2 == 0 {
		access := types.AccessList{{Address: logger, StorageKeys: []common.Hash{{}}}}
		add(b, senderKey, &types.AccessListTx{To: &logger, Gas: 500_000, Data: data, AccessList: access})
	}
	if number%3 == 0 {
		add(b, senderKey, &types.DynamicFeeTx{To: &logger, Gas: 500_000, Data: data})
	}
	if number%7 == 0 {
		// It makes a contract whose code is one byte, STOP.
		add(b, senderKey, &types.LegacyTx{Gas: 500_000, Data: common.FromHex("0x60016000f3")})
	}
	if number >= shanghaiBlock && number%10 == 0 {
		for i := range number % 30 {
			b.AddWithdrawal(&types.Withdrawal{Validator: i, Address: fresh, Amount: number})
		}
	}
	if number >= cancunBlock && number%5 == 0 {
		blob := common.Hash{0x01, byte(number)}
		add(b, senderKey, &types.BlobTx{To: fresh, Gas: 500_000, BlobFeeCap: uint256.NewInt(params.GWei), BlobHashes: []common.Hash{blob}})
	}
	if number >= pragueBlock && number%11 == 0 {
		signer := crypto.PubkeyToAddress(signerKey.PublicKey)
		auth, _ := types.SignSetCode(signerKey, types.SetCodeAuthorization{
			ChainID: *uint256.NewInt(networkID), Address: logger, Nonce: b.TxNonce(signer),
		})
		add(b, senderKey, &types.SetCodeTx{To: signer, Gas: 500_000, AuthList: []types.SetCodeAuthorization{auth}})
	}
}

// add signs a transaction with the next nonce of its sender, and a price that is
// always enough.
func add(b *core.BlockGen, key *ecdsa.PrivateKey, data types.TxData) {
	tx := sign(b.Signer(), b.TxNonce(crypto.PubkeyToAddress(key.PublicKey)), key, data)
	b.AddTx(tx)
}

func sign(signer types.Signer, nonce uint64, key *ecdsa.PrivateKey, data types.TxData) *types.Transaction {
	price, price256 := big.NewInt(100*params.GWei), uint256.NewInt(100*params.GWei)
	chain, chain256 := big.NewInt(networkID), uint256.NewInt(networkID)
	switch tx := data.(type) {
	case *types.LegacyTx:
		tx.Nonce, tx.GasPrice = nonce, price
	case *types.AccessListTx:
		tx.ChainID, tx.Nonce, tx.GasPrice = chain, nonce, price
	case *types.DynamicFeeTx:
		tx.ChainID, tx.Nonce, tx.GasFeeCap, tx.GasTipCap = chain, nonce, price, big.NewInt(1)
	case *types.BlobTx:
		tx.ChainID, tx.Nonce, tx.GasFeeCap, tx.GasTipCap = chain256, nonce, price256, uint256.NewInt(1)
	case *types.SetCodeTx:
		tx.ChainID, tx.Nonce, tx.GasFeeCap, tx.GasTipCap = chain256, nonce, price256, uint256.NewInt(1)
	}
	return types.MustSignNewTx(key, signer, data)
}

// looseTransactions are of no block: one of each kind that is gossiped in full.
func looseTransactions(chain *core.BlockChain, count int) []*types.Transaction {
	signer := types.LatestSigner(chain.Config())
	txs := make([]*types.Transaction, count)
	for i := range txs {
		data := binary.BigEndian.AppendUint64(nil, uint64(i))
		kinds := []types.TxData{
			&types.LegacyTx{To: &logger, Gas: 500_000, Data: data},
			&types.AccessListTx{To: &logger, Gas: 500_000, Data: data},
			&types.DynamicFeeTx{To: &logger, Gas: 500_000, Data: data},
		}
		txs[i] = sign(signer, uint64(1_000_000+i), senderKey, kinds[i%len(kinds)])
	}
	return txs
}

// export writes chain.rlp as `geth export` does, and receipts.rlp in the same
// manner: for each block the list of its receipts as consensus encodes them.
func export(chain *core.BlockChain, folder string) error {
	blocks, err := os.Create(filepath.Join(folder, "chain.rlp"))
	if err != nil {
		return err
	}
	defer blocks.Close()
	if err := chain.Export(blocks); err != nil {
		return err
	}
	receipts, err := os.Create(filepath.Join(folder, "receipts.rlp"))
	if err != nil {
		return err
	}
	defer receipts.Close()
	for number := range chain.CurrentBlock().Number.Uint64() + 1 {
		if err := rlp.Encode(receipts, chain.GetReceiptsByHash(chain.GetCanonicalHash(number))); err != nil {
			return err
		}
	}
	return nil
}
