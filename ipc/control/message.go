package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"junction/ipc"
)

// Limits.
const (
	// MaxMessage is the length of the longest message in bytes, header included.
	MaxMessage = 32 << 10
	// MaxFiles is how many descriptors go with one message at most; the kernel's
	// own limit is SCM_MAX_FD, 253.
	MaxFiles = 252
	// MaxName and MaxText are the lengths of Hello.Name and Error.Text in bytes.
	MaxName = 255
	MaxText = 4096
)

// Version is that of the message format.
const Version = 1

// Types of messages.
const (
	TypeHello uint16 = 1
	TypeError uint16 = 2
	TypeRings uint16 = 3
	// FirstRaw is the first type that a Raw message may have.
	FirstRaw uint16 = 256
)

const headerLen = 8

// Errors, for errors.Is.
var (
	// ErrProtocol: the other side sent what no honest one does.
	ErrProtocol = errors.New("broken control message")
	// ErrVersion: the other side speaks another version of the format.
	ErrVersion = errors.New("control protocol of another version")
	// ErrMessage: a message that cannot be sent as it is.
	ErrMessage = errors.New("control message cannot be sent")
)

// Message is a Hello, *Error, Rings or Raw.
type Message interface {
	// Type returns the message's number.
	Type() uint16
	// files says how many descriptors belong to it, at least and at most.
	files() (least, most int)
	// check says why the message is impossible, if it is.
	check() error
	// append appends the body to b.
	append(b []byte) []byte
}

// Hello is the first message in both directions.
type Hello struct {
	// Version of what is spoken above this format.
	Version uint32
	// PID is the sender's own, as it sees it; see Conn.Peer for the kernel's word.
	PID int32
	// Features is a set of bits.
	Features uint64
	// Name of the instance or service: printable UTF-8.
	Name string
}

// Error is a refusal. It is a Go error too.
type Error struct {
	Code uint32
	// Text says what failed, on what, and what to do: UTF-8.
	Text string
}

// Rings hands over Queues ring pairs, each with ipc.FilesPerEnd descriptors in
// the order of ipc.Pair.Files, for the given side.
type Rings struct {
	Side   ipc.Side
	Queues uint16
}

// Raw is any other message.
type Raw struct {
	// Kind is its type, FirstRaw at least.
	Kind uint16
	// Payload is the body. It may be nil.
	Payload []byte
}

// Type implements Message.
func (Hello) Type() uint16 { return TypeHello }

// Type implements Message.
func (*Error) Type() uint16 { return TypeError }

// Type implements Message.
func (Rings) Type() uint16 { return TypeRings }

// Type implements Message.
func (r Raw) Type() uint16 { return r.Kind }

// Error implements error. It is Printable.
func (e *Error) Error() string { return Printable(e.Text) }

// Printable is a peer's text, at most MaxText bytes of it, for a log or a terminal:
// what that would take for orders is replaced, all but line ends.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && unprintable(r) {
			return utf8.RuneError
		}
		return r
	}, text[:min(len(text), MaxText)])
}

func (Hello) files() (int, int)  { return 0, 0 }
func (*Error) files() (int, int) { return 0, 0 }
func (Raw) files() (int, int)    { return 0, MaxFiles }

func (r Rings) files() (int, int) {
	n := int(r.Queues) * ipc.FilesPerEnd
	return n, n
}

func (h Hello) check() error {
	if len(h.Name) > MaxName || !utf8.ValidString(h.Name) || strings.ContainsFunc(h.Name, unprintable) {
		return fmt.Errorf("hello: name %.40q… is not up to %d bytes of printable UTF-8", h.Name, MaxName)
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func (e *Error) check() error {
	if len(e.Text) > MaxText || !utf8.ValidString(e.Text) {
		return fmt.Errorf("error: text %.40q… is not up to %d bytes of UTF-8", e.Text, MaxText)
	}
	return nil
}

func (r Rings) check() error {
	if r.Side > ipc.InstanceSide || r.Queues == 0 || int(r.Queues)*ipc.FilesPerEnd > MaxFiles {
		return fmt.Errorf("rings: %d queues for %v; 1 to %d are possible", r.Queues, r.Side, MaxFiles/ipc.FilesPerEnd)
	}
	return nil
}

func (r Raw) check() error {
	if r.Kind < FirstRaw || len(r.Payload) > MaxMessage-headerLen {
		return fmt.Errorf("raw: type %d with %d bytes; it needs a type from %d on and up to %d bytes",
			r.Kind, len(r.Payload), FirstRaw, MaxMessage-headerLen)
	}
	return nil
}

var le = binary.LittleEndian

func (h Hello) append(b []byte) []byte {
	b = le.AppendUint32(b, h.Version)
	b = le.AppendUint32(b, uint32(h.PID))
	b = le.AppendUint64(b, h.Features)
	return append(b, h.Name...)
}

func (e *Error) append(b []byte) []byte { return append(le.AppendUint32(b, e.Code), e.Text...) }

func (r Rings) append(b []byte) []byte {
	return le.AppendUint16(le.AppendUint16(b, uint16(r.Side)), r.Queues)
}

func (r Raw) append(b []byte) []byte { return append(b, r.Payload...) }

// encode returns the bytes of m.
func encode(id uint32, m Message, files int) ([]byte, error) {
	if m == nil {
		return nil, fmt.Errorf("%w: no message", ErrMessage)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if least, most := m.files(); files < least || files > most {
		return nil, fmt.Errorf("%w: type %d with %d descriptors", ErrMessage, m.Type(), files)
	}
	b := le.AppendUint16(make([]byte, 0, 64), Version)
	b = le.AppendUint16(b, m.Type())
	return m.append(le.AppendUint32(b, id)), nil
}

// decode is the reverse of encode; the message shares no memory with b.
func decode(b []byte, files int) (id uint32, m Message, err error) {
	if len(b) < headerLen || len(b) > MaxMessage {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrProtocol, len(b))
	}
	if v := le.Uint16(b); v != Version {
		return 0, nil, fmt.Errorf("%w: %d, this program speaks %d; use programs of one release", ErrVersion, v, Version)
	}
	kind := le.Uint16(b[2:])
	if m = decodeBody(kind, b[headerLen:]); m == nil {
		return 0, nil, fmt.Errorf("%w: type %d with %d bytes", ErrProtocol, kind, len(b))
	}
	if err := m.check(); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if least, most := m.files(); files < least || files > most {
		return 0, nil, fmt.Errorf("%w: type %d with %d descriptors", ErrProtocol, kind, files)
	}
	return le.Uint32(b[4:]), m, nil
}

// decodeBody returns nil for a type that does not exist or a body of a length
// that it cannot have.
func decodeBody(kind uint16, b []byte) Message {
	switch {
	case kind == TypeHello && len(b) >= 16:
		return Hello{Version: le.Uint32(b), PID: int32(le.Uint32(b[4:])), Features: le.Uint64(b[8:]), Name: string(b[16:])}
	case kind == TypeError && len(b) >= 4:
		return &Error{Code: le.Uint32(b), Text: string(b[4:])}
	case kind == TypeRings && len(b) == 4 && b[1] == 0:
		return Rings{Side: ipc.Side(b[0]), Queues: le.Uint16(b[2:])}
	case kind >= FirstRaw:
		return Raw{Kind: kind, Payload: append([]byte(nil), b...)}
	}
	return nil
}
