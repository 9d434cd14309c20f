// Package scope says which local ports of an instance are in direct mode, if not
// all: an operator's list, as text, and the bitmap that the steering program and
// the instance look ports up in.
package scope

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"junction/portmap/table"
)

// Ports is a set of local ports of TCP and of UDP. Where a *Ports says what is in
// direct mode, nil means all that the instance has. It is not changed once it is made,
// so that any number of goroutines may use it.
type Ports struct {
	// bits are as in struct scope of steer.c: a bit for each port of each protocol.
	bits [Words]uint64
}

// Words is how many words the bitmap has.
const Words = int(table.Protos) * wordsPerProto

const wordsPerProto = 1 << 16 / 64

// ErrPorts is returned, wrapped, for a text that is no list of ports.
var ErrPorts = errors.New("not a list of ports, such as 80,443/tcp,5000-5010/udp")

// MaxEntries is how many entries a list may have: it fits into a message then.
const MaxEntries = 128

// Parse reads a list: numbers and ranges between commas, each of the protocol after
// its slash, or without one of both. Error: ErrPorts.
func Parse(list string) (*Ports, error) { return parse(list, MaxEntries) }

func parse(list string, limit int) (*Ports, error) {
	p := new(Ports)
	entries := strings.SplitN(list, ",", limit+1)
	if len(entries) > limit {
		return nil, fmt.Errorf("%w: more than %d entries", ErrPorts, limit)
	}
	for _, e := range entries {
		if err := p.parseEntry(strings.TrimSpace(e)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// parseEntry adds one entry.
func (p *Ports) parseEntry(entry string) error {
	numbers, name, named := strings.Cut(entry, "/")
	from, to, isRange := strings.Cut(numbers, "-")
	if !isRange {
		to = from
	}
	low, err := number(from)
	high, err2 := number(to)
	if errors.Join(err, err2) != nil {
		return fmt.Errorf("%w: %q: ports are 1 to 65535", ErrPorts, entry)
	}
	if low > high {
		return fmt.Errorf("%w: %q: from %d to %d", ErrPorts, entry, low, high)
	}
	found := false
	for proto := range table.Protos {
		if !named || proto.String() == name {
			found = true
			p.add(proto, low, high)
		}
	}
	if !found {
		return fmt.Errorf("%w: %q: accepted: tcp, udp", ErrPorts, entry)
	}
	return nil
}

// number reads a port: digits alone, and none is 0.
func number(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

func (p *Ports) add(proto table.Proto, low, high uint16) {
	for n := int(low); n <= int(high); n++ {
		p.bits[word(proto, uint16(n))] |= 1 << (n % 64)
	}
}

func word(proto table.Proto, port uint16) int { return int(proto)*wordsPerProto + int(port/64) }

// Of makes a set of a bitmap.
func Of(bits *[Words]uint64) *Ports { return &Ports{*bits} }

// Bits returns the bitmap: word proto*1024 + port/64, bit port%64. It is not to be
// written to.
func (p *Ports) Bits() *[Words]uint64 { return &p.bits }

// Has tells whether a port is in direct mode: with nil every one.
func (p *Ports) Has(proto table.Proto, port uint16) bool {
	return p == nil || proto < table.Protos && p.bits[word(proto, port)]>>(port%64)&1 != 0
}

// Equal tells whether two sets are the same.
func (p *Ports) Equal(o *Ports) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.bits == o.bits
}

// span is a range of ports of some protocols.
type span struct {
	low, high uint16
	protos    [table.Protos]bool
}

// spans lists the set by number. A port has one span for all its protocols.
func (p *Ports) spans() (all []span) {
	for n := 1; n < 1<<16; n++ {
		s := span{low: uint16(n), high: uint16(n)}
		for proto := range table.Protos {
			s.protos[proto] = p.Has(proto, uint16(n))
		}
		if s.protos == ([table.Protos]bool{}) {
			continue
		}
		if last := len(all) - 1; last >= 0 && int(all[last].high)+1 == n && all[last].protos == s.protos {
			all[last].high = uint16(n)
			continue
		}
		all = append(all, s)
	}
	return all
}

// String is the list that Parse reads, in order; of nil it is "all".
func (p *Ports) String() string {
	if p == nil {
		return "all"
	}
	var texts []string
	for _, s := range p.spans() {
		text := strconv.Itoa(int(s.low))
		if s.high != s.low {
			text += "-" + strconv.Itoa(int(s.high))
		}
		if i := slices.Index(s.protos[:], true); slices.Contains(s.protos[:], false) {
			text += "/" + table.Proto(i).String()
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ",")
}

// MarshalText implements encoding.TextMarshaler.
func (p *Ports) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what String made of any
// list, which may cut entries into parts.
func (p *Ports) UnmarshalText(b []byte) error {
	q, err := parse(string(b), 2*MaxEntries)
	if err == nil {
		*p = *q
	}
	return err
}
