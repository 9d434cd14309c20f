package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"junction/ipc/control"
)

// Limits in bytes: of the JSON in one message, and of a value.
const (
	maxChunk = control.MaxMessage - 64
	maxValue = 16 << 20
	// unfinished is what a value counts for, beside its bytes, while it is not whole:
	// there may be many.
	unfinished = 4 << 10
)

// First byte of a message: whether more of the value follows.
const (
	last byte = iota
	more
)

// Send sends v, with files beside its last message.
func Send(ctx context.Context, c *control.Conn, id uint32, kind uint16, v any, files ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("message of type %d: %w", kind, err)
	}
	for len(b) > maxChunk {
		if err := c.Send(ctx, id, control.Raw{Kind: kind, Payload: append([]byte{more}, b[:maxChunk]...)}); err != nil {
			return err
		}
		b = b[maxChunk:]
	}
	return c.Send(ctx, id, control.Raw{Kind: kind, Payload: append([]byte{last}, b...)}, files...)
}

// Receiver puts values together that came in several messages. It is for one
// goroutine.
type Receiver struct {
	Conn    *control.Conn
	partial map[uint32][]byte
	size    int
}

// Receive waits for the next value, or message of another kind: then the
// envelope's Message is what control decoded, else a control.Raw with the whole
// value in its Payload. Errors are control.Conn.Receive's.
func (r *Receiver) Receive(ctx context.Context) (control.Envelope, error) {
	for {
		env, err := r.Conn.Receive(ctx)
		if err != nil {
			return env, err
		}
		raw, ok := env.Message.(control.Raw)
		if !ok {
			return env, nil
		}
		whole, done, err := r.add(env.ID, raw.Payload)
		if err != nil {
			env.Close()
			return control.Envelope{}, err
		}
		if done {
			env.Message = control.Raw{Kind: raw.Kind, Payload: whole}
			return env, nil
		}
		env.Close()
	}
}

// add adds a message's payload to what has come of its value.
func (r *Receiver) add(id uint32, b []byte) (whole []byte, done bool, err error) {
	if len(b) == 0 || b[0] > more {
		return nil, false, fmt.Errorf("%w: no value", control.ErrProtocol)
	}
	whole, begun := r.partial[id]
	if b[0] == last && !begun {
		return b[1:], true, nil
	}
	if !begun {
		r.size += unfinished
	}
	if r.size += len(b) - 1; r.size > maxValue {
		return nil, false, fmt.Errorf("%w: values of more than %d bytes", control.ErrProtocol, maxValue)
	}
	whole = append(whole, b[1:]...)
	if b[0] == last {
		delete(r.partial, id)
		r.size -= len(whole) + unfinished
		return whole, true, nil
	}
	if r.partial == nil {
		r.partial = make(map[uint32][]byte)
	}
	r.partial[id] = whole
	return nil, false, nil
}

// Decode reads a message of the given type into v. An error is
// control.ErrProtocol, or the *control.Error that came instead.
func Decode(env *control.Envelope, kind uint16, v any) error {
	switch m := env.Message.(type) {
	case *control.Error:
		return m
	case control.Raw:
		if m.Kind != kind {
			return fmt.Errorf("%w: type %d instead of %d", control.ErrProtocol, m.Kind, kind)
		}
		d := json.NewDecoder(bytes.NewReader(m.Payload))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			return fmt.Errorf("%w: type %d: %w", control.ErrProtocol, kind, err)
		}
		return nil
	}
	return fmt.Errorf("%w: type %d instead of %d", control.ErrProtocol, env.Message.Type(), kind)
}
