package plugin

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"time"

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
	hard    func() // kills it
	client  *goplugin.Client
	control *control
	end     *ipc.End // until Attach
}

// Start starts cmd, a program that calls Serve, and waits until it is ready. Its
// log goes to log, if that is not nil. page is where the enclave shows its status
// words. End it with Kill.
func Start(cmd *exec.Cmd, page *Page, log io.Writer) (*Process, error) {
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
	hard := func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	}
	p := &Process{end: end, hard: hard, client: goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: goplugin.PluginSet{pluginName: &controlPlugin{}}, Cmd: cmd,
		Logger: hclog.NewNullLogger(), Stderr: log, SyncStderr: log,
	})}
	if err := p.connect(); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start policy %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Survive has the process outlive this one by so much, should this one die: another
// one may Reattach until then.
func (p *Process) Survive(most time.Duration) error {
	return p.control.call("Survive", most, new(struct{}))
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
	p.pid = p.client.ReattachConfig().Pid
	raw, err := client.Dispense(pluginName)
	if err != nil {
		return err
	}
	p.control = raw.(*control)
	return p.control.call("Traits", struct{}{}, &p.Traits)
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
