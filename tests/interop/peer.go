package main

import (
	"context"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	cid "github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	crdt "github.com/ipfs/go-ds-crdt"
	crdtpb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	logging "github.com/ipfs/go-log/v2"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

// aPeer keeps the cluster's set in memory: go-ds-crdt on the cluster's topic, its nodes
// over bitswap. Keys and values are what they are; it knows no pins.
type aPeer struct {
	host      host.Host
	store     ds.Batching
	set       *crdt.Datastore
	batch     ds.Batch
	dag       *dagService
	announcer *announcer
	metrics   *pubsub.Topic
	rpc       *answers
}

func newPeer(ctx context.Context, s settings) (*aPeer, error) {
	h, err := newHost(ctx, s)
	if err != nil {
		return nil, err
	}
	p := &aPeer{host: h, rpc: &answers{rules: map[string]rule{}}}
	h.SetStreamHandler(rpcProtocol, func(s network.Stream) { p.rpc.serve(ctx, s) })
	addrs, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(h))
	if err != nil {
		return nil, err
	}
	emit("started", M{"id": h.ID(), "addresses": texts(addrs), "crdt_topic": crdtTopic(s.cluster)})
	ps, err := newGossip(ctx, h, s)
	if err != nil {
		return nil, err
	}
	if err := p.joinMetrics(ctx, ps); err != nil {
		return nil, err
	}
	if err := p.joinSet(ctx, ps, s); err != nil {
		return nil, err
	}
	for _, addr := range s.bootstrap {
		if err := connect(ctx, h, addr); err != nil {
			// a wrong secret ends here, and a test may want to see just that
			emit("unreachable", M{"address": addr, "error": err.Error()})
		}
	}
	return p, nil
}

func (p *aPeer) close() {
	p.set.Close()
	p.host.Close()
}

// joinMetrics prints every message of the metrics topic.
func (p *aPeer) joinMetrics(ctx context.Context, ps *pubsub.PubSub) (err error) {
	if p.metrics, err = ps.Join(metricsTopic); err != nil {
		return err
	}
	sub, err := p.metrics.Subscribe(pubsub.WithBufferSize(1024))
	if err != nil {
		return err
	}
	go func() {
		for {
			msg, err := sub.Next(ctx)
			if err != nil {
				return
			}
			emit("metric", M{"from": msg.GetFrom(), "data": hex.EncodeToString(msg.GetData())})
		}
	}()
	return nil
}

// joinSet runs the CRDT on the cluster's topic, in the namespace and with the settings of
// the reference.
func (p *aPeer) joinSet(ctx context.Context, ps *pubsub.PubSub, s settings) (err error) {
	topic := crdtTopic(s.cluster)
	trusted := strings.Split(s.trusted, ",")
	err = ps.RegisterTopicValidator(topic, func(_ context.Context, _ peer.ID, msg *pubsub.Message) bool {
		from := msg.GetFrom()
		for _, id := range trusted {
			if id == "*" || id == from.String() {
				return true
			}
		}
		return from == p.host.ID()
	})
	if err != nil {
		return err
	}
	heads, err := ps.Join(topic)
	if err != nil {
		return err
	}
	sub, err := heads.Subscribe()
	if err != nil {
		return err
	}
	p.store = dssync.MutexWrap(ds.NewMapDatastore())
	p.dag = newDAGService(ctx, p.host, namespace.Wrap(p.store, ds.NewKey("/c/b")))
	opts := crdt.DefaultOptions()
	opts.Logger = logging.Logger("crdt")
	opts.RebroadcastInterval, opts.DAGSyncerTimeout = s.rebroadcast, s.fetchLimit
	opts.NumWorkers, opts.MultiHeadProcessing = 50, false
	opts.RepairInterval = time.Hour
	opts.PutHook = func(k ds.Key, v []byte) { emit("put", M{"key": k.String(), "value": hex.EncodeToString(v)}) }
	opts.DeleteHook = func(k ds.Key) { emit("delete", M{"key": k.String()}) }
	p.announcer = newAnnouncer(ctx, p.host.ID(), heads, sub, s.deaf)
	p.set, err = crdt.New(p.store, ds.NewKey("/c"), p.dag, p.announcer, opts)
	return err
}

// announcer carries heads between go-ds-crdt and the topic, and prints those of others.
type announcer struct {
	topic *pubsub.Topic
	deaf  bool
	heard chan []byte
	// what was published by hand: it is not for this peer's own set
	byHand sync.Map
}

func newAnnouncer(ctx context.Context, self peer.ID, topic *pubsub.Topic, sub *pubsub.Subscription, deaf bool) *announcer {
	a := &announcer{topic: topic, deaf: deaf, heard: make(chan []byte)}
	go func() {
		for {
			msg, err := sub.Next(ctx)
			if err != nil {
				return
			}
			_, byHand := a.byHand.Load(string(msg.GetData()))
			isOwn := msg.GetFrom() == self
			if !isOwn {
				heads, err := decodeHeads(msg.GetData())
				emit("heads", M{"from": msg.GetFrom(), "heads": texts(heads), "error": errText(err)})
			}
			if !a.deaf && !(isOwn && byHand) {
				a.take(ctx, msg.GetData())
			}
		}
	}()
	return a
}

// take gives a message to the set.
func (a *announcer) take(ctx context.Context, data []byte) {
	select {
	case a.heard <- data:
	case <-ctx.Done():
	}
}

// publish announces something made by hand.
func (a *announcer) publish(ctx context.Context, data []byte) error {
	a.byHand.Store(string(data), true)
	return a.topic.Publish(ctx, data)
}

func (a *announcer) Broadcast(ctx context.Context, data []byte) error {
	return a.topic.Publish(ctx, data)
}

func (a *announcer) Next(ctx context.Context) ([]byte, error) {
	select {
	case data := <-a.heard:
		return data, nil
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
}

func decodeHeads(data []byte) ([]cid.Cid, error) {
	var b crdtpb.CRDTBroadcast
	if err := proto.Unmarshal(data, &b); err != nil {
		return nil, err
	}
	heads := []cid.Cid{}
	for _, h := range b.Heads {
		c, err := cid.Cast(h.Cid)
		if err != nil {
			return nil, err
		}
		heads = append(heads, c)
	}
	return heads, nil
}

// dagService is the store of CRDT nodes: local blocks, and bitswap as the reference runs it.
type dagService struct {
	ipld.DAGService
	blocks blockservice.BlockService
}

func (d *dagService) Session(ctx context.Context) ipld.NodeGetter {
	return merkledag.NewSession(ctx, d.DAGService)
}

func newDAGService(ctx context.Context, h host.Host, store ds.Batching) *dagService {
	bs := blockstore.NewIdStore(blockstore.NewBlockstore(store, blockstore.WriteThrough(true)))
	ex := bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, bs, bitswap.WithWantHaveReplaceSize(1024))
	serv := blockservice.New(bs, ex)
	return &dagService{merkledag.NewDAGService(serv), serv}
}
