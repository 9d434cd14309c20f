package monitor

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/portmap"
)

// Offence is what a peer did that no honest one does.
type Offence struct {
	// Name is the one that the peer gave itself.
	Name string `json:"name"`
	// Kind is the name of a breach of the rings' protocol (ipc.Breach),
	// bad_rings, bad_message or wrong_version.
	Kind  string    `json:"kind"`
	Count uint64    `json:"count"`
	PID   int32     `json:"pid"` // of the last one
	UID   uint32    `json:"uid"`
	Last  time.Time `json:"last"`
}

// maxOffences is how many pairs of name and kind are told apart: names are the
// offenders' to choose. Further ones are counted under otherNames.
const (
	maxOffences = 256
	otherNames  = "(others)"
)

// offences counts. The zero value is ready for use, from any goroutine.
type offences struct {
	mu sync.Mutex
	// +checklocks:mu
	all map[[2]string]*Offence
}

// note counts err if it is an offence.
func (o *offences) note(name string, peer control.Peer, err error) {
	switch {
	case errors.Is(err, control.ErrVersion):
		o.add(name, "wrong_version", peer)
	case errors.Is(err, control.ErrProtocol):
		o.add(name, "bad_message", peer)
	}
}

func (o *offences) add(name, kind string, peer control.Peer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[[2]string]*Offence)
	}
	key := [2]string{name, kind}
	if o.all[key] == nil && len(o.all) >= maxOffences {
		key[0] = otherNames
	}
	at := o.all[key]
	if at == nil {
		at = &Offence{Name: key[0], Kind: kind}
		o.all[key] = at
	}
	at.Count++
	at.PID, at.UID, at.Last = peer.PID, peer.UID, time.Now()
}

// list returns all, by name and kind.
func (o *offences) list() []Offence {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]Offence, 0, len(o.all))
	for _, at := range o.all {
		out = append(out, *at)
	}
	slices.SortFunc(out, func(a, b Offence) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// cutOff ends the lease of an instance that broke the rings' protocol.
func (m *Monitor) cutOff(b *wire.Broken) {
	m.mu.Lock()
	i := m.instances[portmap.Instance(b.ID)]
	m.mu.Unlock()
	if i == nil {
		return
	}
	m.offences.add(i.name, b.Breach, i.peer)
	m.opts.Logger.Error("instance cut off", "id", b.ID, "name", i.name, "pid", i.peer.PID, "why", b.Reason)
	_ = i.conn.Close() // serveInstance frees the rest
}
