package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

// script runs the commands of a transcript on a Map and the table it writes.
//
//	new ADDR... [range=LOW-HIGH] [slots=N] [maxwait=D] [unowned=M] [share=N]
//	join INST ADDR... [mode=M] [minport=N] [maxports=N] [maxsockets=N] [returning=1]
//	leave INST | settle INST | absent | ports | restart
//	bind INST SOCK PROTO ADDR:PORT [reuseaddr] [reuseport] [v6only] [uid=N] [connect|send]
//	listen INST SOCK | unlisten INST SOCK | close INST SOCK [D]
//	advance D
//	lookup PROTO ADDR:PORT
type script struct {
	t      require.TestingT
	opt    Options
	m      *Map
	writer *table.Writer
	view   *table.View
}

func (s *script) open(m *Map, err error) error {
	if err != nil {
		return err
	}
	s.close()
	s.m = m
	s.writer, s.view = newTable(s.t, m)
	return nil
}

// newTable makes the memory of m's table, as it is before m's first Changes.
func newTable(t require.TestingT, m *Map) (*table.Writer, *table.View) {
	w, err := table.NewWriter(m.Geometry(), nil)
	require.NoError(t, err)
	f, err := w.ViewFile()
	require.NoError(t, err)
	defer f.Close()
	v, err := table.OpenView(f)
	require.NoError(t, err)
	return w, v
}

func (s *script) close() {
	if s.writer != nil {
		require.NoError(s.t, s.view.Close())
		require.NoError(s.t, s.writer.Close())
		s.writer = nil
	}
}

// errSyntax is returned for what is no command.
var errSyntax = errors.New("not a command")

// exec runs one line and tells what it did.
func (s *script) exec(line string) (string, error) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return "", nil
	}
	a := &args{words: f[1:]}
	result, err := s.command(f[0], a)
	if a.err != nil {
		return "", fmt.Errorf("%q: %w", line, a.err)
	}
	if err != nil {
		result = errno(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", line, result)
	if s.m != nil {
		s.apply(&b)
	}
	return b.String(), nil
}

func (s *script) apply(b *strings.Builder) {
	changes := s.m.Changes()
	s.writer.Apply(changes)
	for _, c := range changes {
		fmt.Fprintf(b, "  %s\n", describe(s.opt.Shared, c))
	}
}

func describe(shared []netip.Addr, c table.Change) string {
	if c.Slot {
		return fmt.Sprintf("%v: %v", c.Key.Addr(), c.Word)
	}
	a, rest := shared[c.Index/table.PortsPerAddr], c.Index%table.PortsPerAddr
	return fmt.Sprintf("%v %v: %v", table.Proto(rest>>16), netip.AddrPortFrom(a, uint16(rest)), c.Word)
}

// errno is the errno's name and, for people, the reason.
func errno(err error) string {
	var e unix.Errno
	if !errors.As(err, &e) {
		return err.Error()
	}
	return unix.ErrnoName(e) + " (" + err.Error() + ")"
}

func (s *script) command(name string, a *args) (string, error) {
	if name == "new" {
		s.opt = a.options()
		if a.end() {
			return "ok", s.open(New(s.opt))
		}
		return "", nil
	}
	if s.m == nil {
		a.fail("before new")
		return "", nil
	}
	switch name {
	case "absent":
		return fmt.Sprint(s.m.Absent()), nil
	case "ports":
		return listing(s.m.Ports()), nil
	case "restart":
		return "ok", s.restart()
	case "advance":
		return "ok", s.m.Advance(a.duration(0))
	case "lookup":
		proto, ep := a.proto(), a.endpoint()
		return s.view.Lookup(table.KeyOf(ep.Addr()), proto, ep.Port()).String(), nil
	}
	return s.instanceCommand(name, Instance(a.number(32)), a)
}

func (s *script) instanceCommand(name string, id Instance, a *args) (string, error) {
	switch name {
	case "join":
		l := a.lease()
		return "ok", a.do(func() error { return s.m.Join(id, l) })
	case "leave":
		return "ok", a.do(func() error { s.m.Leave(id); return nil })
	case "settle":
		return "ok", a.do(func() error { return s.m.Settle(id) })
	case "bind":
		r := a.request()
		var got netip.AddrPort
		err := a.do(func() (err error) { got, err = s.m.Bind(id, r); return err })
		return got.String(), err
	}
	sock := Socket(a.number(64))
	switch name {
	case "listen", "unlisten":
		return "ok", a.do(func() error { return s.m.Listen(id, sock, name == "listen") })
	case "close":
		wait := a.duration(0)
		return "ok", a.do(func() error { return s.m.Close(id, sock, wait) })
	}
	a.fail("unknown command")
	return "", nil
}

// restart is a new monitor that takes the table over.
func (s *script) restart() error {
	mirror := s.m.mirror
	mirror.Slots, mirror.Ports = slices.Clone(mirror.Slots), slices.Clone(mirror.Ports)
	m, err := Restore(s.opt, mirror)
	if err != nil {
		return err
	}
	s.m = m // the table stays, as BPF maps do
	return nil
}

func listing(ports []PortStatus) string {
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, "\n  %v %v owner=%d %v mode=%v sockets=%d", p.Proto, p.Endpoint, p.Owner, p.State, p.Mode, p.Sockets)
	}
	return b.String()
}

// args parses the words after a command's name. Its first error stays.
type args struct {
	words []string
	err   error
}

func (a *args) fail(format string, v ...any) {
	if a.err == nil {
		a.err = fmt.Errorf("%w: %s", errSyntax, fmt.Sprintf(format, v...))
	}
}

// do runs f if all words were understood.
func (a *args) do(f func() error) error {
	if !a.end() {
		return nil
	}
	return f()
}

func (a *args) end() bool {
	if len(a.words) > 0 {
		a.fail("what is %q?", a.words[0])
	}
	return a.err == nil
}

func (a *args) next() string {
	if len(a.words) == 0 {
		a.fail("too few words")
		return ""
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *args) number(bits int) uint64 { return a.parseNumber(a.next(), bits) }

func (a *args) parseNumber(w string, bits int) uint64 {
	n, err := strconv.ParseUint(w, 10, bits)
	if err != nil {
		a.fail("%v", err)
	}
	return n
}

func (a *args) parseDuration(w string) time.Duration {
	d, err := time.ParseDuration(w)
	if err != nil {
		a.fail("%v", err)
	}
	return d
}

// duration is the next word's, or d if there is none.
func (a *args) duration(d time.Duration) time.Duration {
	if len(a.words) == 0 {
		return d
	}
	return a.parseDuration(a.next())
}

func (a *args) addr(w string) netip.Addr {
	addr, err := netip.ParseAddr(w)
	if err != nil {
		a.fail("%v", err)
	}
	return addr
}

func (a *args) endpoint() netip.AddrPort {
	ep, err := netip.ParseAddrPort(a.next())
	if err != nil {
		a.fail("%v", err)
	}
	return ep
}

func (a *args) proto() table.Proto {
	switch w := a.next(); w {
	case "tcp":
		return table.TCP
	case "udp":
		return table.UDP
	default:
		a.fail("protocol %q", w)
		return 0
	}
}

func (a *args) mode(w string) table.Mode {
	for m := table.Drop; m.Valid(); m++ {
		if m.String() == w {
			return m
		}
	}
	a.fail("mode %q", w)
	return 0
}

// options takes words of the form name=value, by the functions, and hands
// others to rest.
func (a *args) options() Options {
	var o Options
	a.each(func(w string) { o.Shared = append(o.Shared, a.addr(w)) }, map[string]func(string){
		"range": func(v string) {
			low, high, _ := strings.Cut(v, "-")
			o.EphemeralLow, o.EphemeralHigh = uint16(a.parseNumber(low, 16)), uint16(a.parseNumber(high, 16))
		},
		"slots": func(v string) {
			if o.Slots = uint32(a.parseNumber(v, 32)); o.Slots > 1<<12 {
				a.fail("a transcript's table is small") // for the fuzzer's sake
			}
		},
		"share":   func(v string) { o.Share = int(a.parseNumber(v, 31)) },
		"unowned": func(v string) { o.Unowned = a.mode(v) },
		"maxwait": func(v string) { o.MaxTimeWait = a.parseDuration(v) },
	})
	if len(o.Shared) > 3 {
		a.fail("a transcript has few shared addresses")
	}
	return o
}

func (a *args) lease() Lease {
	l := Lease{Mode: table.Server}
	a.each(func(w string) { l.Addrs = append(l.Addrs, a.addr(w)) }, map[string]func(string){
		"mode":       func(v string) { l.Mode = a.mode(v) },
		"minport":    func(v string) { l.MinPort = uint16(a.parseNumber(v, 16)) },
		"maxports":   func(v string) { l.MaxPorts = int(a.parseNumber(v, 31)) },
		"returning":  func(v string) { l.Returning = a.parseNumber(v, 1) == 1 },
		"maxsockets": func(v string) { l.MaxSockets = int(a.parseNumber(v, 31)) },
	})
	return l
}

func (a *args) request() Request {
	r := Request{Socket: Socket(a.number(64)), Proto: a.proto()}
	ep := a.endpoint()
	r.Addr, r.Port = ep.Addr(), ep.Port()
	flags := map[string]func(){
		"reuseaddr": func() { r.Options.ReuseAddr = true },
		"reuseport": func() { r.Options.ReusePort = true },
		"v6only":    func() { r.Options.V6Only = true },
		"connect":   func() { r.Purpose = ForConnect },
		"send":      func() { r.Purpose = ForSend },
	}
	a.each(func(w string) {
		if flags[w] == nil {
			a.fail("flag %q", w)
			return
		}
		flags[w]()
	}, map[string]func(string){
		"uid": func(v string) { r.Options.UID = uint32(a.parseNumber(v, 32)) },
	})
	return r
}

// each takes all words: name=value by the named function, others by rest.
func (a *args) each(rest func(string), named map[string]func(string)) {
	for len(a.words) > 0 {
		w := a.next()
		name, value, ok := strings.Cut(w, "=")
		switch {
		case !ok:
			rest(w)
		case named[name] != nil:
			named[name](value)
		default:
			a.fail("option %q", name)
		}
	}
}
