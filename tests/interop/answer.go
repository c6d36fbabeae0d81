package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const rpcProtocol = "/ipfscluster/1.0/rpc"

// rule is what calls of a method get.
type rule struct {
	mode        string
	first, then []byte
}

// answers gives the calls of others scripted bytes.
type answers struct {
	mu    sync.Mutex
	rules map[string]rule
}

// rule sets what a method answers: METHOD MODE [HEX [HEX]].
func (a *answers) rule(text string) error {
	words := strings.Fields(text)
	if len(words) < 2 {
		return fmt.Errorf("answer METHOD MODE [HEX [HEX]]: %q", text)
	}
	r := rule{mode: words[1]}
	for i, into := range []*[]byte{&r.first, &r.then} {
		if len(words) > 2+i {
			b, err := hex.DecodeString(words[2+i])
			if err != nil {
				return err
			}
			*into = b
		}
	}
	if r.mode != "hang" && r.mode != "send" && (r.mode != "endless" || len(r.then) == 0) {
		return fmt.Errorf("no such answer: %q", text)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rules[words[0]] = r
	return nil
}

// find looks for the rule of the method that a request names: its name is a short msgpack string.
func (a *answers) find(request []byte) (string, rule, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for method, r := range a.rules {
		if bytes.Contains(request, append([]byte{0xa0 | byte(len(method))}, method...)) {
			return method, r, true
		}
	}
	return "", rule{}, false
}

// serve answers one call.
func (a *answers) serve(ctx context.Context, s network.Stream) {
	defer s.Reset()
	request := make([]byte, 4096)
	n, err := s.Read(request)
	if err != nil {
		return
	}
	method, r, ok := a.find(request[:n])
	emit("asked", M{"peer": s.Conn().RemotePeer(), "method": method})
	if !ok {
		return
	}
	sent, _ := s.Write(r.first)
	switch r.mode {
	case "hang":
		// nothing tells of a reset but a write, which would be an answer
		<-ctx.Done()
	case "send":
		s.CloseWrite()
		io.Copy(io.Discard, s)
	case "endless":
		then := bytes.Repeat(r.then, 1+(64<<10)/len(r.then))
		for ctx.Err() == nil && err == nil {
			n, err = s.Write(then)
			sent += n
		}
	}
	emit("answered", M{"method": method, "bytes": sent})
}

// ask calls a peer with any bytes: PEER HEX.
func (p *aPeer) ask(ctx context.Context, text string) (M, error) {
	to, data, _ := strings.Cut(text, " ")
	id, err := peer.Decode(to)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(data)
	if err != nil {
		return nil, err
	}
	s, err := p.host.NewStream(ctx, id, rpcProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write(b); err != nil {
		return nil, err
	}
	s.SetReadDeadline(time.Now().Add(2 * time.Second))
	reply, err := io.ReadAll(io.LimitReader(s, 1<<20))
	if len(reply) > 0 {
		err = nil
	}
	return M{"reply": hex.EncodeToString(reply)}, err
}
