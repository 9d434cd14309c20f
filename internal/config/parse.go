package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	maxFile = 1 << 20 // bytes of a file
	maxLine = 4096    // bytes of a line
)

// Load reads and parses the file at path, which must be a regular file.
// Every error is an *Error.
func Load(path string) (*Config, []Warning, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, &Error{File: path, Kind: ErrFile, detail: err.Error()}
	}
	return Parse(path, data)
}

// readFile reads a regular file of at most maxFile bytes. It never waits: a
// pipe or a terminal is refused after an open that does not block.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the configuration file: %w", unwrapPath(err))
	}
	defer f.Close()
	if err := checkRegular(f); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration file: %w", unwrapPath(err))
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes; that is no configuration file", maxFile)
	}
	return data, nil
}

func checkRegular(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return unwrapPath(err)
	case info.IsDir():
		return fmt.Errorf("is a directory; give a file of `key value` lines")
	case !info.Mode().IsRegular():
		return fmt.Errorf("is no regular file; give a file of `key value` lines")
	}
	return nil
}

// unwrapPath drops the operation and the path of a file error, which Error says already.
func unwrapPath(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

// Parse parses the content of a file; name is used in messages. It returns
// the settings and a warning for each that has no effect yet, in file order,
// or the first mistake as an *Error.
func Parse(name string, data []byte) (*Config, []Warning, error) {
	p := parser{file: name, cfg: new(Config), seen: make(map[string]int)}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for raw := range bytes.Lines(data) {
		p.line++
		if err := p.parseLine(raw); err != nil {
			return nil, nil, err
		}
	}
	if err := p.checkWhole(); err != nil {
		return nil, nil, err
	}
	return p.cfg, p.warnings, nil
}

// parser holds the state of one Parse.
type parser struct {
	file     string
	line     int
	cfg      *Config
	seen     map[string]int // line of each key (and static_arp address) seen so far
	warnings []Warning
}

func (p *parser) parseLine(raw []byte) error {
	if len(raw) > maxLine {
		return p.errorf("", ErrSyntax, "line of %d bytes; at most %d are accepted", len(raw), maxLine)
	}
	if !utf8.Valid(raw) {
		return p.errorf("", ErrSyntax, "is not UTF-8 text; give a file of `key value` lines")
	}
	fields := splitFields(string(raw))
	if len(fields) == 0 {
		return nil
	}
	k, ok := keys[fields[0]]
	if !ok {
		return p.errorf("", ErrUnknownKey, "unknown key %q%s", clip(fields[0]), suggest(fields[0]))
	}
	return p.set(fields[0], k, fields[1:])
}

// splitFields splits a line at blanks, without its comment.
func splitFields(line string) []string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if f[0] == '#' {
			return fields[:i]
		}
	}
	return fields
}

// set checks the number of values and duplicates, then stores the setting.
func (p *parser) set(name string, k key, values []string) error {
	want := max(k.values, 1)
	if len(values) < want {
		return p.errorf(name, ErrMissing, "missing value; accepted: %s", k.accepts)
	}
	if len(values) > want {
		return p.errorf(name, ErrSyntax, "unexpected %q after the value; accepted: %s", clip(values[want]), k.accepts)
	}
	if err := k.set(p.cfg, values); err != nil {
		return p.errorf(name, ErrValue, "%v; accepted: %s", err, k.accepts)
	}
	id := name
	if k.values > 1 { // such a key may occur again with another first value
		id = name + " " + values[0]
	}
	if first := p.seen[id]; first != 0 {
		return p.errorf(name, ErrDuplicate, "%q is already set in line %d; remove one of the two", clip(id), first)
	}
	p.seen[id] = p.line
	if k.ignored != "" {
		p.warnings = append(p.warnings, Warning{Key: name, File: p.file, Line: p.line, Reason: k.ignored})
	}
	return nil
}

// checkWhole checks what no single line can tell.
func (p *parser) checkWhole() error {
	c := p.cfg
	if c.HostAddr.Set && !c.HostNetmask.Set {
		p.line = p.seen["host_addr"]
		return p.errorf("host_addr", ErrMissing, "host_netmask is missing; add `host_netmask 255.255.255.0` or the mask of your network")
	}
	if c.Kthreads.Set && c.GuaranteedKthreads.V > c.Kthreads.V {
		p.line = p.seen["runtime_guaranteed_kthreads"]
		return p.errorf("runtime_guaranteed_kthreads", ErrValue, "%d is more than runtime_kthreads, %d", c.GuaranteedKthreads.V, c.Kthreads.V)
	}
	return nil
}

func (p *parser) errorf(key string, kind error, format string, args ...any) error {
	return &Error{File: p.file, Line: p.line, Key: key, Kind: kind, detail: fmt.Sprintf(format, args...)}
}

// clip shortens what a message quotes.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
