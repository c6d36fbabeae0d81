package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multihash"
)

const metricsTopic = "monitor.metrics"

// crdtTopic is the topic on which a cluster of this name announces its heads.
func crdtTopic(name string) string {
	mh, err := multihash.Sum([]byte(name), multihash.MD5, -1)
	if err != nil {
		panic(err) // MD5 is compiled in
	}
	return mh.B58String()
}

func privateKey(text string) (crypto.PrivKey, error) {
	if text == "" {
		key, _, err := crypto.GenerateEd25519Key(nil)
		return key, err
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return crypto.UnmarshalPrivateKey(raw)
}

// newHost makes the host: TCP and WebSocket below the secret, noise and TLS above it.
func newHost(ctx context.Context, s settings) (host.Host, error) {
	key, err := privateKey(s.key)
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Identity(key), libp2p.NoTransports, libp2p.ListenAddrStrings(s.listen...),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(websocket.New),
		libp2p.UserAgent("interop"), libp2p.DisableRelay(),
	}
	for _, name := range strings.Split(s.security, ",") {
		switch name {
		case "noise":
			opts = append(opts, libp2p.Security(noise.ID, noise.New))
		case "tls":
			opts = append(opts, libp2p.Security(libp2ptls.ID, libp2ptls.New))
		}
	}
	if s.secret != "" {
		psk, err := hex.DecodeString(s.secret)
		if err != nil || len(psk) != 32 {
			return nil, fmt.Errorf("secret is not 64 hex digits: %q", s.secret)
		}
		opts = append(opts, libp2p.PrivateNetwork(psk))
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, err
	}
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			emit("connected", M{"peer": c.RemotePeer(), "security": c.ConnState().Security})
		},
		DisconnectedF: func(n network.Network, c network.Conn) {
			if n.Connectedness(c.RemotePeer()) != network.Connected {
				emit("disconnected", M{"peer": c.RemotePeer()})
			}
		},
	})
	return h, printIdentify(ctx, h)
}

// printIdentify prints what peers say of themselves.
func printIdentify(ctx context.Context, h host.Host) error {
	sub, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return err
	}
	go func() {
		defer sub.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-sub.Out():
				ev := e.(event.EvtPeerIdentificationCompleted)
				emit("identify", M{"peer": ev.Peer, "agent": ev.AgentVersion, "protocols": ev.Protocols,
					"listen": texts(ev.ListenAddrs)})
			}
		}
	}()
	return nil
}

// connect dials an address.
func connect(ctx context.Context, h host.Host, addr string) error {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	dial, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return h.Connect(dial, *info)
}

// newGossip starts pubsub with the reference's parameters.
func newGossip(ctx context.Context, h host.Host, s settings) (*pubsub.PubSub, error) {
	p := pubsub.DefaultGossipSubParams()
	p.HeartbeatInterval = s.heartbeat
	p.HistoryLength, p.HistoryGossip = 6, 2
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout, p.Dlazy = 24, 20, 48, 16, 8, 24
	p.MaxIHaveLength = 10000
	return pubsub.NewGossipSub(ctx, h, pubsub.WithGossipSubParams(p), pubsub.WithPeerExchange(true),
		pubsub.WithMessageSigning(true), pubsub.WithStrictSignatureVerification(true),
		pubsub.WithRawTracer(meshTracer{}),
		pubsub.WithMessageIdFn(func(m *pubsubpb.Message) string {
			from := m.GetFrom()
			if len(from) > 16 {
				from = from[:16]
			}
			return string(from) + string(m.GetSeqno())
		}))
}

// meshTracer prints grafts and prunes: a message published before the first graft of its
// topic reaches nobody.
type meshTracer struct{}

func (meshTracer) Graft(p peer.ID, topic string) { emit("graft", M{"peer": p, "topic": topic}) }
func (meshTracer) Prune(p peer.ID, topic string) { emit("prune", M{"peer": p, "topic": topic}) }
func (meshTracer) RejectMessage(m *pubsub.Message, reason string) {
	emit("rejected", M{"from": m.GetFrom(), "reason": reason})
}
func (meshTracer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (meshTracer) OnClosedOutboundStream(peer.ID)           {}
func (meshTracer) Join(string)                              {}
func (meshTracer) Leave(string)                             {}
func (meshTracer) ValidateMessage(*pubsub.Message)          {}
func (meshTracer) DeliverMessage(*pubsub.Message)           {}
func (meshTracer) DuplicateMessage(*pubsub.Message)         {}
func (meshTracer) ThrottlePeer(peer.ID)                     {}
func (meshTracer) RecvRPC(*pubsub.RPC)                      {}
func (meshTracer) SendRPC(*pubsub.RPC, peer.ID)             {}
func (meshTracer) DropRPC(*pubsub.RPC, peer.ID)             {}
func (meshTracer) UndeliverableMessage(*pubsub.Message)     { emit("undeliverable", M{}) }

func texts[T fmt.Stringer](in []T) []string {
	out := []string{}
	for _, x := range in {
		out = append(out, x.String())
	}
	return out
}
