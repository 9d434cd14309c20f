package monitor

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/internal/monitor/wire"
)

// supervisor keeps a network server running.
type supervisor struct {
	m *Monitor

	mu sync.Mutex
	// +checklocks:mu
	proc process // none between two servers
	// +checklocks:mu
	wasReady bool // the present server
	// +checklocks:mu
	ordered bool // its end
	// +checklocks:mu
	serving *child // the last server that this monitor started
	// +checklocks:mu
	spare *child
	// +checklocks:mu
	ends bool // there will be no spare any more

	// +checklocks:mu
	program []string // the server's command line
	// +checklocks:mu
	unready chan string // if not nil, told of the next server that ends without having been ready

	views        chan *brought // from the server of the monitor before
	adoptedEnded chan struct{} // closed when there is none, or no more

	// +checklocks:mu
	session *session // nil unless the server is connected and ready
	// +checklocks:mu
	readiness chan struct{} // closed while session is not nil
	// +checklocks:mu
	link wire.Ready // of the last server that was ready
	// +checklocks:mu
	history ServerHistory
	// +checklocks:mu
	ended time.Time // when the last server did
}

// ServerHistory says how network servers have fared.
type ServerHistory struct {
	// Restarts counts how often a server was started again; Hangs how many of
	// those were killed because they gave no sign of life.
	Restarts uint64 `json:"restarts"`
	Hangs    uint64 `json:"hangs"`
	// LastEnd says how the last one ended, LastOutage how long it took from then
	// to the next one's being ready.
	LastEnd    string        `json:"last_end,omitempty"`
	LastOutage time.Duration `json:"last_outage_ns,omitempty"`
}

func (s *supervisor) init(m *Monitor) {
	s.m, s.readiness, s.program = m, make(chan struct{}), m.opts.Server
	s.views, s.adoptedEnded = make(chan *brought, 1), make(chan struct{})
}

// bring hands over what a server brought, the view and what it has kept of the
// uplink; only the first one counts.
func (s *supervisor) bring(uplink *direct.Export, files []int) {
	b := &brought{os.NewFile(uintptr(files[0]), "the view of the monitor before"), uplink, files[1:]}
	select {
	case s.views <- b:
	default:
		b.close()
	}
}

// readyTime is how long a server has to become ready.
const readyTime = 10 * time.Second

// supervise runs servers until ctx is done: first the one that another monitor
// left, if it still runs, which may have been that one's spare.
func (s *supervisor) supervise(ctx context.Context, before ...process) {
	defer s.dropSpare()
	for _, p := range before {
		s.adopted(ctx, p)
	}
	close(s.adoptedEnded)
	backoff := newBackoff()
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			s.mu.Lock()
			s.history.Restarts++
			s.mu.Unlock()
		}
		begun := time.Now()
		how, err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			how = err.Error()
		}
		lived, wait := time.Since(begun), time.Duration(0)
		if !s.wasOrdered() {
			wait = backoff.after(lived, s.hadBeenReady())
		}
		s.m.opts.Logger.Error("the network server ended; starting another", "how", how, "lived", lived, "backoff", wait)
		s.mu.Lock()
		s.history.LastEnd = how
		s.mu.Unlock()
		if wait == 0 {
			continue
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// adopted waits for the end of a server that this monitor has not started.
func (s *supervisor) adopted(ctx context.Context, p process) {
	if p.PID == 0 {
		return
	}
	s.setProcess(p)
	late := time.AfterFunc(readyTime, func() {
		if s.current() == nil {
			s.kill("it has not come back")
		}
	})
	ran := watchAdopted(ctx, p)
	late.Stop()
	if ctx.Err() != nil {
		s.kill("the monitor ends")
	}
	s.setProcess(process{})
	s.lost(nil)
	if ran && ctx.Err() == nil {
		s.m.opts.Logger.Error("the network server ended; starting another", "pid", p.PID)
	}
}

// setProgram sets what servers are started from now on, and returns what was.
func (s *supervisor) setProgram(p []string) (before []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, s.program = s.program, p
	return before
}

// failures returns a channel that tells how the next server ended that had not
// been ready.
func (s *supervisor) failures() <-chan string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unready = make(chan string, 1)
	return s.unready
}

// setProcess notes which process is the server.
func (s *supervisor) setProcess(p process) {
	s.mu.Lock()
	s.proc = p
	if p.PID == 0 {
		s.ended = time.Now()
	}
	s.mu.Unlock()
}

// processes returns the server and its spare, as far as there are any.
func (s *supervisor) processes() (server, spare process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil {
		spare = s.spare.process
	}
	return s.proc, spare
}

// hadBeenReady tells whether the present server has been ready.
func (s *supervisor) hadBeenReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wasReady
}

// fail tells who waits for it that a server ended before it was ready.
func (s *supervisor) fail(how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wasReady || s.unready == nil {
		return
	}
	s.unready <- how
	s.unready = nil
}

// kill ends a server that does not do its work.
func (s *supervisor) kill(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc.PID == 0 {
		return
	}
	s.m.opts.Logger.Error("killing the network server", "pid", s.proc.PID, "why", why)
	// Nobody else has the number: its process is waited for only after proc is
	// emptied, or is checked by its start.
	if startOf(s.proc.PID) == s.proc.Start {
		_ = unix.Kill(s.proc.PID, unix.SIGKILL)
	}
}

// replace ends the server for the spare to take its place.
func (s *supervisor) replace(why string) {
	s.mu.Lock()
	s.ordered = true
	s.mu.Unlock()
	s.kill(why)
}

// wasOrdered tells whether the server that has ended was told to.
func (s *supervisor) wasOrdered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.ordered
	s.ordered = false
	return was
}

// isServer tells whether pid is that of the server that was started, or its spare's.
func (s *supervisor) isServer(pid int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.PID != 0 && s.proc.PID == int(pid) || s.spare != nil && s.spare.PID == int(pid)
}

func (s *supervisor) current() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// awaitReady waits until a server has opened the uplink, and returns what it is.
func (s *supervisor) awaitReady(ctx context.Context) (wire.Ready, error) {
	for {
		s.mu.Lock()
		ready, link, now := s.readiness, s.link, s.session != nil || s.link.MAC != ""
		s.mu.Unlock()
		if now {
			return link, nil // the uplink stays the same if the server is replaced
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return wire.Ready{}, ctx.Err()
		}
	}
}

// awaitOther waits until another session than x is ready.
func (s *supervisor) awaitOther(ctx context.Context, x *session) error {
	for {
		s.mu.Lock()
		ready, now := s.readiness, s.session
		s.mu.Unlock()
		if now != nil && now != x {
			return nil
		}
		if now == x {
			ready = x.over
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// found makes x the session of the server that is ready.
func (s *supervisor) found(x *session, r wire.Ready) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil { // the same server has connected twice
		close(s.session.over)
	} else {
		close(s.readiness)
	}
	s.session, s.link, s.wasReady = x, r, true
	if !s.ended.IsZero() {
		s.history.LastOutage = time.Since(s.ended)
	}
}

// lost ends session x, or any if x is nil.
func (s *supervisor) lost(x *session) {
	s.mu.Lock()
	if s.session == nil || x != nil && s.session != x {
		s.mu.Unlock()
		return
	}
	close(s.session.over)
	s.session = nil
	s.readiness = make(chan struct{})
	s.mu.Unlock()
	s.m.serverGone()
}

// uplink is what the uplink is like, as the last server that was ready had it.
func (s *supervisor) uplink() wire.Ready {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}
