package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	cid "github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	crdtpb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/protobuf/proto"
)

// command runs one line; README.md says what each does.
func (p *aPeer) command(ctx context.Context, line string) (M, error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "put":
		key, value, _ := strings.Cut(rest, " ")
		b, err := hex.DecodeString(value)
		if err != nil {
			return nil, err
		}
		return nil, p.writer().Put(ctx, ds.NewKey(key), b)
	case "delete":
		return nil, p.writer().Delete(ctx, ds.NewKey(rest))
	case "puts":
		return nil, p.puts(ctx, rest)
	case "batch":
		b, err := p.set.Batch(ctx)
		p.batch = b
		return nil, err
	case "commit":
		if p.batch == nil {
			return nil, errors.New("no batch is open")
		}
		b := p.batch
		p.batch = nil
		return nil, b.Commit(ctx)
	case "set":
		return p.entries(ctx, p.set)
	case "store":
		return p.entries(ctx, p.store)
	case "heads":
		stats := p.set.InternalStats(ctx)
		return M{"heads": texts(stats.Heads), "height": stats.MaxHeight}, nil
	case "node":
		return p.forge(ctx, rest)
	case "block":
		return p.serve(ctx, rest)
	case "announce":
		data, err := encodeHeads(strings.Fields(rest))
		if err != nil {
			return nil, err
		}
		return nil, p.announcer.publish(ctx, data)
	case "take":
		data, err := encodeHeads(strings.Fields(rest))
		if err == nil {
			p.announcer.take(ctx, data)
		}
		return nil, err
	case "gossip":
		topic, data, _ := strings.Cut(rest, " ")
		b, err := hex.DecodeString(data)
		if err != nil {
			return nil, err
		}
		if topic == "heads" {
			return nil, p.announcer.publish(ctx, b)
		}
		return nil, p.metrics.Publish(ctx, b)
	case "fetch":
		return p.fetch(ctx, rest)
	case "answer":
		return nil, p.rpc.rule(rest)
	case "ask":
		return p.ask(ctx, rest)
	case "connect":
		return nil, connect(ctx, p.host, rest)
	}
	return nil, fmt.Errorf("unknown command %q", word)
}

// writer is the open batch, or the set itself.
func (p *aPeer) writer() ds.Write {
	if p.batch != nil {
		return batchWriter{p.batch}
	}
	return p.set
}

type batchWriter struct{ ds.Batch }

func (batchWriter) Sync(context.Context, ds.Key) error { return nil }

// puts writes many entries, a node each: COUNT KEY VALUE, `%d` in both is the number.
func (p *aPeer) puts(ctx context.Context, rest string) error {
	parts := strings.Fields(rest)
	if len(parts) != 3 {
		return errors.New("puts COUNT KEY HEX")
	}
	count, err := strconv.Atoi(parts[0])
	if err != nil {
		return err
	}
	for i := range count {
		value, err := hex.DecodeString(parts[2])
		if err != nil {
			return err
		}
		if err := p.writer().Put(ctx, ds.NewKey(fmt.Sprintf(parts[1], i)), value); err != nil {
			return err
		}
	}
	return nil
}

// entries is all that a datastore holds.
func (p *aPeer) entries(ctx context.Context, store ds.Read) (M, error) {
	res, err := store.Query(ctx, query.Query{})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	set := map[string]string{}
	for r := range res.Next() {
		if r.Error != nil {
			return nil, r.Error
		}
		set[r.Key] = hex.EncodeToString(r.Value)
	}
	return M{"set": set}, nil
}

// forged is a CRDT node to be made by hand, with any content.
type forged struct {
	Parents  []string `json:"parents"`
	Priority uint64   `json:"priority"`
	Elements []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"elements"`
	Tombstones []struct {
		Key string `json:"key"`
		ID  string `json:"id"`
	} `json:"tombstones"`
	Withhold bool `json:"withhold"` // do not serve the block
}

// forge makes a node and serves it. It enters this peer's own set by `take` alone.
func (p *aPeer) forge(ctx context.Context, text string) (M, error) {
	var f forged
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	delta := &crdtpb.Delta{Priority: f.Priority}
	for _, e := range f.Elements {
		value, err := hex.DecodeString(e.Value)
		if err != nil {
			return nil, err
		}
		delta.Elements = append(delta.Elements, &crdtpb.Element{Key: e.Key, Value: value})
	}
	for _, t := range f.Tombstones {
		delta.Tombstones = append(delta.Tombstones, &crdtpb.Element{Key: t.Key, Id: t.ID})
	}
	data, err := proto.Marshal(delta)
	if err != nil {
		return nil, err
	}
	nd := merkledag.NodeWithData(data)
	nd.SetCidBuilder(merkledag.V1CidPrefix())
	for _, text := range f.Parents {
		c, err := cid.Decode(text)
		if err != nil {
			return nil, err
		}
		if err := nd.AddRawLink("", &ipld.Link{Cid: c}); err != nil {
			return nil, err
		}
	}
	if !f.Withhold {
		if err := p.dag.Add(ctx, nd); err != nil {
			return nil, err
		}
	}
	return M{"cid": nd.Cid().String(), "block": hex.EncodeToString(nd.RawData())}, nil
}

// serve keeps any bytes as the block of a node.
func (p *aPeer) serve(ctx context.Context, text string) (M, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	c, err := cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}.Sum(b)
	if err != nil {
		return nil, err
	}
	blk, err := blocks.NewBlockWithCid(b, c)
	if err != nil {
		return nil, err
	}
	return M{"cid": c.String()}, p.dag.blocks.AddBlock(ctx, blk)
}

// encodeHeads is the message that announces heads.
func encodeHeads(heads []string) ([]byte, error) {
	msg := &crdtpb.CRDTBroadcast{}
	for _, text := range heads {
		c, err := cid.Decode(text)
		if err != nil {
			return nil, err
		}
		msg.Heads = append(msg.Heads, &crdtpb.Head{Cid: c.Bytes()})
	}
	return proto.Marshal(msg)
}

// fetch gets a block by bitswap.
func (p *aPeer) fetch(ctx context.Context, text string) (M, error) {
	c, err := cid.Decode(text)
	if err != nil {
		return nil, err
	}
	fetch, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	b, err := p.dag.blocks.GetBlock(fetch, c)
	if err != nil {
		return nil, err
	}
	return M{"block": hex.EncodeToString(b.RawData())}, nil
}
