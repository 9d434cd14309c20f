package live

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A guard is told of each thread that is taken and given back, and restores
// those that were not given back when its input ends, or the actuator, its
// parent, stands still.

const (
	// late is after what time without a word the guard begins to look.
	late = 3 * beatEvery
	// silence is after what time it restores, whatever the reason: a thread that
	// waits is slow for so long at most.
	silence = 10 * time.Second
)

// note is what a guard is told: a thread taken, one given back, or a sign of
// life.
type note struct {
	Take    int    `json:"take,omitempty"`
	Give    int    `json:"give,omitempty"`
	Process bool   `json:"process,omitempty"` // Take is of all its threads, and of its children's
	Started uint64 `json:"started,omitempty"`
	originalRecord
	// Keep is the beginning of the names of cpusets with exclusive cores; Unkeep:
	// there are none any more.
	Keep   string `json:"keep,omitempty"`
	Unkeep bool   `json:"unkeep,omitempty"`
	// Group is a CPU cgroup of ours, Ungroup one that is no more.
	Group   string `json:"group,omitempty"`
	Ungroup string `json:"ungroup,omitempty"`
	// Enclave is Take's; State where the actuator's record is.
	Enclave string `json:"enclave,omitempty"`
	State   string `json:"state,omitempty"`
}

// guard is the actuator's end.
type guard struct {
	identity
	cmd   *exec.Cmd
	pipe  io.WriteCloser
	mu    sync.Mutex
	enc   *json.Encoder
	ended chan struct{}
	err   error // once it has ended
	// restored is closed when only groups are left to end.
	restored chan struct{}
}

// startGuard starts cmd, a program that calls Guard with its standard input. It has
// the watcher's map and BPF programs as well.
func startGuard(cmd *exec.Cmd, w *watcher) (*guard, error) {
	files, err := w.share()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	defer closeAll(files)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, files
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a ^C is for the actuator
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, pipe.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	g := &guard{identity: identityOf(cmd.Process.Pid), cmd: cmd, pipe: pipe, enc: json.NewEncoder(pipe), ended: make(chan struct{}), restored: make(chan struct{})}
	go func() {
		if _, err := io.ReadFull(out, make([]byte, 1)); err == nil {
			close(g.restored)
		}
		g.err = cmd.Wait()
		close(g.ended)
	}()
	return g, nil
}

// gone tells whether the guard has ended.
func (g *guard) gone() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// deaf is how long a guard may take to make room for a word, after which it is of
// no use.
const deaf = time.Second

// tell says something to the guard. One that does not listen any more is killed.
func (g *guard) tell(n *note) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.pipe.(*os.File); ok {
		_ = f.SetWriteDeadline(time.Now().Add(deaf)) // a pipe has them
	}
	err := g.enc.Encode(n)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = g.cmd.Process.Kill() // that it has ended shows
	}
	return err
}

func (g *guard) take(tid int, started uint64, o *original, enclave string) error {
	return g.tell(&note{Take: tid, Enclave: enclave, Started: started, originalRecord: o.record()})
}

// takeProcess is take for all threads of a process and of its descendants.
func (g *guard) takeProcess(pid int, started uint64, o *original) error {
	return g.tell(&note{Take: pid, Process: true, Started: started, originalRecord: o.record()})
}

// close ends the guard, which restores what was not given back. It does not wait for
// groups whose processes are just ending.
func (g *guard) close() error {
	_ = g.pipe.Close() // it may have ended by itself
	select {
	case <-g.restored:
		return nil
	case <-g.ended:
		return g.err
	}
}

// taken is a thread that a guard watches over.
type taken struct {
	process bool
	started uint64
	original
	enclave string
}

// Guard is all that the guard's process does; in is its standard input. It
// returns when there is nothing left to guard.
func Guard(in *os.File) error {
	// Who ends all of a service's processes at once ends the actuator too, and whoever
	// reads what is said here.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	// With more, Go's runtime has a thread wake every 20 µs while this one waits in
	// poll: 1.5 % of a core.
	runtime.GOMAXPROCS(1)
	watched, err := ebpf.NewMapFromFD(sharedMap)
	if err != nil {
		return fmt.Errorf("descriptor %d is no map of threads: %w", sharedMap, err)
	}
	defer watched.Close()
	g := listener{fd: int(in.Fd()), threads: map[int]taken{}, watched: watched, cgroups: map[string]bool{}}
	g.groups, _ = openGroups() // where there are none it is told of none
	actuator, last := suspect{pid: os.Getppid()}, time.Now()
	for wait := late; ; {
		if len(g.threads)+len(g.cgroups) == 0 && g.keep == "" {
			wait = -1
		}
		switch heard, err := g.listen(wait); {
		case err != nil:
			return errors.Join(g.end("the actuator has ended"), g.awaitGroups())
		case heard:
			actuator.clear()
			last, wait = time.Now(), late
			continue
		}
		wait = beatEvery
		now := time.Now()
		if why := standsStill(&actuator, now, now.Sub(last)); why != "" && !g.hears(0) {
			return errors.Join(errors.New("no sign of life of the actuator: "+why), g.end(why), g.endGroups())
		}
	}
}

// end gives everything back, and notes that down for the actuator's successor.
func (l *listener) end(why string) error {
	at := clock()
	return errors.Join(l.restore(why), l.seal(at))
}

// listener reads what the guard is told. It is one thread that waits and reads:
// of two the one that reads could be kept from it while the other one waits in
// vain.
type listener struct {
	fd   int
	part []byte // of a line
	// What there is to restore:
	threads map[int]taken
	watched *ebpf.Map // all threads, also those of which nobody told
	state   string    // where the actuator's record is
	keep    string    // the beginning of our cpusets' names; empty: there are none
	groups  *groups
	cgroups map[string]bool // in groups
}

// maxNote is how long a line is at most: one that is longer is none of ours.
const maxNote = 64 << 10

// listen heeds what it is told within a time; a negative one has no end. Its
// error says that there will be no more.
func (l *listener) listen(wait time.Duration) (heard bool, err error) {
	if !l.hears(wait) {
		return false, nil
	}
	b := make([]byte, 4096)
	n, err := unix.Read(l.fd, b)
	switch {
	case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
		return false, nil
	case err != nil || n == 0:
		return false, errors.Join(io.EOF, err)
	}
	l.part = append(l.part, b[:n]...)
	for {
		line, rest, ok := bytes.Cut(l.part, []byte("\n"))
		if !ok {
			break
		}
		var x note
		if json.Unmarshal(line, &x) == nil {
			l.heed(&x)
		}
		l.part = append(l.part[:0], rest...)
	}
	if len(l.part) > maxNote {
		l.part = nil
	}
	return true, nil
}

// hears tells whether there is something to read, or the end.
func (l *listener) hears(wait time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	ms := -1
	if wait >= 0 {
		ms = int(wait.Milliseconds())
	}
	n, _ := unix.Poll(p, ms) // a signal ends it early
	return n > 0
}

// standsStill returns why the actuator is held to stand still, or "".
func standsStill(actuator *suspect, now time.Time, quiet time.Duration) string {
	actuator.look(now)
	switch {
	case actuator.asleep > standstill:
		return fmt.Sprintf("it sleeps or is stopped, for %v", quiet.Round(time.Millisecond))
	case actuator.busy > busyStandstill:
		return fmt.Sprintf("it has used %v of CPU time since", actuator.busy.Round(time.Millisecond))
	case quiet > silence:
		return fmt.Sprintf("for %v", quiet.Round(time.Millisecond))
	}
	return ""
}

func (l *listener) heed(n *note) {
	switch {
	case n.Take > 0:
		if o, err := n.original(); err == nil {
			l.threads[n.Take] = taken{n.Process, n.Started, o, n.Enclave}
		}
	case n.Give > 0:
		delete(l.threads, n.Give)
	case n.State != "":
		l.state = n.State
	case n.Keep != "":
		l.keep = n.Keep
	case n.Unkeep:
		l.keep = ""
	case n.Group != "" && l.groups != nil:
		l.cgroups[n.Group] = true
	case n.Ungroup != "":
		delete(l.cgroups, n.Ungroup)
	}
}

// restore gives everything back but groups, which are of no effect any more. What
// takes effect at once comes first, what takes longer last.
func (l *listener) restore(why string) error {
	return errors.Join(l.calm(), l.restoreKept(why))
}

// restoreKept gives cores and threads back. All may use all cores before threads
// are told which ones.
func (l *listener) restoreKept(why string) error {
	if l.keep == "" {
		return l.restoreAll(why)
	}
	h, owner := home{dir: filepath.Dir(l.keep)}, strings.TrimSuffix(filepath.Base(l.keep), ".")
	dirs, err := h.owned(owner)
	if err == nil {
		err = h.widenAll(dirs)
	}
	return errors.Join(err, l.restoreAll(why), h.clear(owner))
}

// calm has no group be idle any more.
func (l *listener) calm() error {
	var errs []error
	for group := range l.cgroups {
		if err := l.groups.setIdle(group, false); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// endGroups removes groups. Those whose processes are just ending stay.
func (l *listener) endGroups() error {
	var errs []error
	for group := range l.cgroups {
		err := l.groups.end(group)
		if err == nil {
			delete(l.cgroups, group)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// awaitGroups is endGroups until none is left. An actuator that waits for the guard is
// told that this takes longer.
func (l *listener) awaitGroups() error {
	err := l.endGroups()
	if errors.Is(err, unix.EBUSY) {
		_, _ = os.Stdout.WriteString("\n") // nobody may wait
	}
	for end := time.Now().Add(groupEnds); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = l.endGroups() {
		time.Sleep(beatEvery) // nothing tells
	}
	return err
}

func (l *listener) restoreAll(why string) error {
	var errs []error
	from, restored := time.Now(), 0
	for tid, t := range l.threads {
		if s, err := readStatAlone(tid); err != nil || s.started != t.started {
			continue // it has ended, and its number may be somebody else's
		}
		restore := t.restore
		if t.process {
			restore = func(pid int) error { return restoreProcess(pid, t.started, &t.original) }
		}
		if err := restore(tid); err != nil {
			errs = append(errs, fmt.Errorf("restore thread %d: %w", tid, err))
		}
		restored++
	}
	n, err := restoreStrays(l.watched, l.threads)
	errs = append(errs, err)
	if restored += n; restored > 0 {
		fmt.Fprintf(os.Stderr, "core scheduling's guard: %d threads restored in %v: %s\n", restored, time.Since(from), why)
	}
	return errors.Join(errs...)
}
