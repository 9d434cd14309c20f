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

	cmd     *exec.Cmd
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
	p := &Process{cmd: cmd, end: end, client: goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: goplugin.PluginSet{pluginName: &controlPlugin{}}, Cmd: cmd,
		Logger: hclog.NewNullLogger(), Stderr: log, SyncStderr: log,
	})}
	if err := p.connect(); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start policy %s: %w", cmd.Path, err)
	}
	return p, nil
}

func (p *Process) connect() error {
	client, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := client.Dispense(pluginName)
	if err != nil {
		return err
	}
	p.control = raw.(*control)
	if err := p.control.call("Traits", &p.Traits); err != nil {
		return err
	}
	return p.control.call("Begin", new(struct{})) // nothing comes through the rings until Attach
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
func (p *Process) PID() int { return p.cmd.Process.Pid }

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
	if p.cmd.Process != nil { // one that stands still would keep the client waiting
		hard := time.AfterFunc(killTime, func() { _ = p.cmd.Process.Kill() })
		defer hard.Stop()
	}
	p.client.Kill()
}

// control is the actuator's end of the control calls.
type control struct{ client *rpc.Client }

func (c *control) call(method string, reply any) error {
	return c.client.Call("Plugin."+method, struct{}{}, reply)
}

// controlPlugin is both ends of the control calls, as go-plugin wants them.
type controlPlugin struct{ server *controlServer }

// Server implements plugin.Plugin.
func (p *controlPlugin) Server(*goplugin.MuxBroker) (any, error) { return p.server, nil }

// Client implements plugin.Plugin.
func (p *controlPlugin) Client(_ *goplugin.MuxBroker, c *rpc.Client) (any, error) {
	return &control{c}, nil
}
