package netserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"junction/direct"
	"junction/ipc"
	"junction/portmap/table"
)

// Options are the parameters of New.
type Options struct {
	// Uplink is the NIC. It stays the caller's, to be closed after Close.
	Uplink direct.Device
	// View says who owns which address and port. It stays the caller's too.
	View *table.View
	// Begin is closed when frames from the wire may be taken: once the instances
	// that there were before are attached, so that what waits for them is not lost.
	// nil: at once.
	Begin <-chan struct{}
	// Spin is how long a worker looks for further frames before it sleeps.
	Spin time.Duration
	// Patience is for how long in all a batch of an instance's frames waits for
	// other instances' full rings, before what does not fit is dropped. Default:
	// long enough for a receiver that was not running just now, short enough for
	// the sender's other flows when one does not run any more.
	Patience time.Duration
	// Broken is called when an instance broke the protocol of its rings
	// (ipc.ErrPeer): they cannot be used any more. It must not call the Server.
	Broken func(id uint32, err error)
	// Logger receives what goes wrong. Default: discarded.
	Logger *slog.Logger
}

// Server forwards frames from New to Close. Its methods may be called from
// any goroutine.
type Server struct {
	opts     Options
	fwd      forwarder
	uplinks  []outlet
	workers  []*worker // of the uplink
	maxFrame int       // not to be segmented, in bytes
	offloads direct.Offloads
	start    time.Time
	running  sync.WaitGroup
	failed   chan error
	tap      tapPoint // of the uplink
	trace    atomic.Pointer[tracer]
	taps     sync.WaitGroup
	closing  chan struct{}

	ports atomic.Pointer[portSet]
	mu    sync.Mutex // of changes to ports
	gone  Account    // of ports that are no more; with mu held
}

// Port describes an instance to the server.
type Port struct {
	ID   uint32
	Name string
	// Shared has bit i set if the instance may use shared address i.
	Shared uint64
	// Rate is how many bytes it may send in a second; 0: any number.
	Rate uint64
	// Weight is its part of a busy uplink, in proportion to others': from 1 to
	// MaxWeight; 0 is 1.
	Weight uint32
}

// port is an attached instance.
type port struct {
	sender
	name string
	end  *ipc.End
	out  outlet
	pace pacer
	tap  tapPoint

	weight atomic.Uint32
	groups groups
	work   *worker
	done   chan struct{}
}

// portSet is never changed once it is published.
type portSet struct {
	byID map[uint32]*port
	all  []*port
}

// ErrPort is returned, wrapped, for a port that cannot be attached or found.
var ErrPort = errors.New("no such port, or one too many")

// New makes a server and begins to forward.
func New(o Options) (*Server, error) {
	hw := o.Uplink.MAC()
	if len(hw) != len(mac{}) {
		return nil, fmt.Errorf("uplink %s: its address %q is not Ethernet's", o.Uplink.Mode().NIC, hw)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	s := &Server{
		opts: o, start: time.Now(), maxFrame: o.Uplink.MTU() + ethLen, offloads: o.Uplink.Offloads(), failed: make(chan error, 1), closing: make(chan struct{}),
		uplinks: make([]outlet, len(o.Uplink.Queues())),
	}
	s.fwd.mac = mac(hw)
	s.fwd.table.Store(o.View)
	s.ports.Store(&portSet{})
	for i, q := range o.Uplink.Queues() {
		s.uplinks[i].q, s.uplinks[i].uplink, s.uplinks[i].tap, s.uplinks[i].index = q, true, &s.tap, i
	}
	for _, q := range o.Uplink.Queues() {
		w := newWorker(s, nil)
		s.workers = append(s.workers, w)
		s.running.Go(func() {
			if !s.mayBegin() {
				return
			}
			if err := w.serveUplink(q); !errors.Is(err, net.ErrClosed) {
				select {
				case s.failed <- err:
				default:
				}
			}
		})
	}
	return s, nil
}

// mayBegin waits until frames from the wire may be taken; false: the server closes.
func (s *Server) mayBegin() bool {
	if s.opts.Begin == nil {
		return true
	}
	select {
	case <-s.opts.Begin:
		return true
	case <-s.closing:
		return false
	}
}

// SetView replaces the view, after a change of monitors. The one before must
// stay open as long as the server: a worker may be looking at it.
func (s *Server) SetView(v *table.View) { s.fwd.table.Store(v) }

// Attached returns the numbers of all attached instances.
func (s *Server) Attached() (ids []uint32) {
	for _, p := range s.ports.Load().all {
		ids = append(ids, p.id)
	}
	return ids
}

// Failed delivers the error that ended an uplink queue, if one does.
func (s *Server) Failed() <-chan error { return s.failed }

// Attach begins to forward for an instance. The server takes e, the server's
// side of its rings, over, also when it fails.
func (s *Server) Attach(p Port, e *ipc.End) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ports.Load()
	if _, ok := old.byID[p.ID]; ok || p.ID == 0 {
		_ = e.Close()
		return fmt.Errorf("attach instance %d: %w", p.ID, ErrPort)
	}
	n := &port{sender: sender{p.ID, p.Shared, new(limiter)}, name: p.Name, end: e, done: make(chan struct{})}
	n.weight.Store(min(p.Weight, MaxWeight))
	n.out.q, n.out.room, n.out.id, n.out.tap, n.work = e, e, p.ID, &n.tap, newWorker(s, n)
	n.pace.quit = make(chan struct{})
	n.pace.rate.Store(p.Rate)
	s.publish(append(slices.Clone(old.all), n))
	go func() {
		defer close(n.done)
		err := n.work.serveRing(e)
		// Of an instance that is gone the monitor knows.
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, ipc.ErrGone) && s.opts.Broken != nil {
			s.opts.Broken(p.ID, err)
		}
	}()
	return nil
}

func (s *Server) publish(all []*port) {
	set := &portSet{byID: make(map[uint32]*port, len(all)), all: all}
	for _, p := range all {
		set.byID[p.id] = p
	}
	s.ports.Store(set)
}

// Detach ends forwarding for an instance. Error: ErrPort.
func (s *Server) Detach(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ports.Load()
	p := old.byID[id]
	if p == nil {
		return fmt.Errorf("detach instance %d: %w", id, ErrPort)
	}
	s.publish(slices.DeleteFunc(slices.Clone(old.all), func(q *port) bool { return q == p }))
	s.remove(p)
	return nil
}

// Limit sets what an instance may send, as in its Port: how many bytes in a
// second, and its weight; nil leaves one as it is. Error: ErrPort.
func (s *Server) Limit(id uint32, rate *uint64, weight *uint32) error {
	p := s.ports.Load().byID[id]
	if p == nil {
		return fmt.Errorf("limit instance %d: %w", id, ErrPort)
	}
	if rate != nil {
		p.pace.rate.Store(*rate)
	}
	if weight != nil {
		p.weight.Store(min(*weight, MaxWeight))
	}
	return nil
}

// remove ends a port that is not published any more.
func (s *Server) remove(p *port) {
	close(p.pace.quit)
	_ = p.end.Close()
	<-p.done
	a := p.work.account()
	s.gone.add(&a)
}

// Close ends the workers and captures. It must be called once, before the uplink is closed, and
// waits for the uplink's workers, who end with it: see Wait.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ports.Load()
	s.publish(nil)
	for _, p := range old.all {
		s.remove(p)
	}
	close(s.closing)
	s.taps.Wait()
}

// Wait waits for the workers of the uplink, which its Close ends.
func (s *Server) Wait() { s.running.Wait() }

func (s *Server) outletOf(id uint32) *outlet {
	if p := s.ports.Load().byID[id]; p != nil {
		return &p.out
	}
	return nil
}

// uplinkFor chooses the queue of the uplink for a packet: one for all packets
// of a flow, so that they keep their order. Fragments have no ports to tell.
func (s *Server) uplinkFor(p *packet) *outlet {
	if len(s.uplinks) == 1 {
		return &s.uplinks[0]
	}
	h := p.ip.src[0] ^ p.ip.src[1] ^ p.ip.dst[0] ^ p.ip.dst[1]
	if !p.ip.fragment {
		h ^= uint64(p.ip.sport) ^ uint64(p.ip.dport)
	}
	h ^= h >> 32
	h ^= h >> 16
	return &s.uplinks[h%uint64(len(s.uplinks))]
}

// spin tells whether to look again instead of sleeping, for a worker that has
// found nothing since *idle.
func (s *Server) spin(idle *time.Time) bool {
	if s.opts.Spin <= 0 {
		return false
	}
	now := time.Now()
	if idle.IsZero() {
		*idle = now
	} else if now.Sub(*idle) >= s.opts.Spin {
		return false
	}
	runtime.Gosched()
	return true
}
