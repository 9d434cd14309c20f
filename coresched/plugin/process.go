package plugin

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/ipc"
)

// handshake keeps a policy from being run by hand, and versions apart.
var handshake = goplugin.HandshakeConfig{
	ProtocolVersion: 1, MagicCookieKey: "JUNCTION_POLICY", MagicCookieValue: "a policy is started by junction, not by hand",
}

// pluginName is what the process offers.
const pluginName = "policy"

// What a policy's process finds open.
const (
	firstRingFD = 3
	pageFD      = firstRingFD + ipc.FilesPerEnd
)

// Process is a policy in a process of its own.
type Process struct {
	// Traits are the policy's.
	Traits cs.Traits

	pid     int
	socket  string // where it answers control calls
	hard    func() // kills it, and what it has started
	client  *goplugin.Client
	control *control
	end     *ipc.End // until Attach
}

// StartTimeout is how long a program may take to serve a policy, unless its caller
// says otherwise.
const StartTimeout = 10 * time.Second

// ErrNoPolicy: a program that serves no policy, or did not in time.
var ErrNoPolicy = errors.New("it has to be a program that serves a policy, such as coresched/plugin/example")

// Start starts cmd, a program that calls Serve, and waits until it is ready, for
// as long as timeout (0: StartTimeout). Its log goes to log, if that is not nil.
// page is where the enclave shows its status words. It leads a process group,
// whose others are killed with it if it has to be killed. End it with Kill.
func Start(cmd *exec.Cmd, page *Page, log io.Writer, timeout time.Duration) (*Process, error) {
	pair, err := ipc.NewPair(ipc.Options{})
	if err != nil {
		return nil, err
	}
	defer pair.Close()
	end, err := pair.Attach(ipc.ServerSide)
	if err != nil {
		return nil, err
	}
	files, err := inherit(pair, page)
	if err != nil {
		return nil, errors.Join(err, end.Close())
	}
	defer closeFiles(files)
	cmd.ExtraFiles = files
	if log == nil {
		log = io.Discard
	}
	if timeout <= 0 {
		timeout = StartTimeout
	}
	// Whoever waits for the end of its output would wait for its children's, too.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	p := &Process{end: end, client: goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: goplugin.PluginSet{pluginName: &controlPlugin{}}, Cmd: cmd,
		Logger: hclog.NewNullLogger(), Stderr: log, SyncStderr: log, StartTimeout: timeout,
	})}
	p.hard = func() { p.killGroup(cmd) }
	if err := p.connectWithin(timeout); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start policy %s: %w", cmd.Path, err)
	}
	return p, nil
}

// killGroup kills a process that was started as a group's leader, and the group.
// Before its end was noted its number is nobody else's.
func (p *Process) killGroup(cmd *exec.Cmd) {
	if id, err := strconv.Atoi(p.client.ID()); err == nil && id > 0 && !p.client.Exited() {
		_ = unix.Kill(-id, unix.SIGKILL)
	}
}

// connectWithin is connect with a time limit for all of it: a program may also
// begin to speak and then be silent.
func (p *Process) connectWithin(timeout time.Duration) error {
	err := p.within(timeout, p.connect)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errLate):
		return fmt.Errorf("not ready after %v: %w", timeout, ErrNoPolicy)
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // go-plugin explains at length
	return fmt.Errorf("%s: %w", text, ErrNoPolicy)
}

// answerTime is how long a process that serves a policy may take to answer.
const answerTime = 10 * time.Second

var errLate = errors.New("it does not answer")

// within does what needs the process to answer, and kills it if that takes longer:
// one that was stopped would keep us for ever.
func (p *Process) within(timeout time.Duration, do func() error) error {
	late := time.AfterFunc(timeout, p.hard)
	err := do()
	if !late.Stop() {
		return fmt.Errorf("%w, and was killed after %v", errLate, timeout)
	}
	return err
}

// Survive has the process outlive this one by so much, should this one die: another
// one may Reattach until then.
func (p *Process) Survive(most time.Duration) error {
	return p.within(answerTime, func() error { return p.control.call("Survive", most, new(struct{})) })
}

func (p *Process) connect() error {
	if err := p.dial(); err != nil {
		return err
	}
	return p.control.call("Begin", struct{}{}, new(struct{})) // nothing comes through the rings until Attach
}

// dial reaches the process, which go-plugin starts if need be, and asks what it is.
func (p *Process) dial() error {
	client, err := p.client.Client()
	if err != nil {
		return err
	}
	at := p.client.ReattachConfig()
	p.pid, p.socket = at.Pid, at.Addr.String()
	raw, err := client.Dispense(pluginName)
	if err != nil {
		return err
	}
	p.control = raw.(*control)
	var traits cs.Traits
	if err := p.control.call("Traits", struct{}{}, &traits); err != nil {
		return err
	}
	p.Traits = traits
	return checkTraits(&traits)
}

// maxName is how long a policy's name may be.
const maxName = 64

// checkTraits refuses what no policy is called, and no way to commit. Names are shown
// to operators.
func checkTraits(t *cs.Traits) error {
	odd := func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError }
	switch {
	case t.Name == "" || len(t.Name) > maxName || strings.ContainsFunc(t.Name, odd):
		return fmt.Errorf("its Traits have the name %.80q; take 1 to %d letters, digits and signs, without spaces", t.Name, maxName)
	case t.Group > cs.Sync:
		return fmt.Errorf("its Traits have the grouping %d, which there is not", t.Group)
	}
	return nil
}

// inherit duplicates what the process gets, for files to own.
func inherit(pair *ipc.Pair, page *Page) (files []*os.File, err error) {
	ring := pair.Files(ipc.InstanceSide)
	for _, fd := range append(ring[:], page.FD()) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeFiles(files)
			return nil, fmt.Errorf("duplicate a descriptor for a policy: %w", err)
		}
		files = append(files, os.NewFile(uintptr(dup), "policy"))
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// Attach puts the policy in charge of an enclave that has none. Once only.
func (p *Process) Attach(now cs.Time, e *cs.Enclave) (*Driver, error) {
	if p.end == nil {
		return nil, cs.ErrAttached
	}
	end := p.end
	p.end = nil
	return NewDriver(now, e, end, p.Traits)
}

// PID returns the process's number.
func (p *Process) PID() int { return p.pid }

// Exited tells whether the process has ended.
func (p *Process) Exited() bool { return p.client.Exited() }

// killTime is how long a process has to end by itself. It has nothing to save.
const killTime = 200 * time.Millisecond

// Kill ends the process, and returns when it has ended. Its driver is to be closed
// beside.
func (p *Process) Kill() {
	if p.end != nil {
		_ = p.end.Close()
		p.end = nil
	}
	hard := time.AfterFunc(killTime, p.hard) // one that stands still would keep the client waiting
	defer hard.Stop()
	p.client.Kill()
	p.removeSocket()
}

// removeSocket removes what go-plugin leaves of a process that was killed: nobody
// listens there any more. What is not named as go-plugin does is somebody else's.
func (p *Process) removeSocket() {
	if !filepath.IsAbs(p.socket) || !strings.HasPrefix(filepath.Base(p.socket), "plugin") {
		return
	}
	if st, err := os.Lstat(p.socket); err == nil && st.Mode().Type() == os.ModeSocket {
		_ = os.Remove(p.socket) // it may have ended just now, and done so itself
	}
}

// control is the actuator's end of the control calls.
type control struct{ client *rpc.Client }

func (c *control) call(method string, args, reply any) error {
	return c.client.Call("Plugin."+method, args, reply)
}

// controlPlugin is both ends of the control calls, as go-plugin wants them.
type controlPlugin struct{ server *controlServer }

// Server implements plugin.Plugin.
func (p *controlPlugin) Server(*goplugin.MuxBroker) (any, error) { return p.server, nil }

// Client implements plugin.Plugin.
func (p *controlPlugin) Client(_ *goplugin.MuxBroker, c *rpc.Client) (any, error) {
	return &control{c}, nil
}
