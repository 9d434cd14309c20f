package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// Obey carries out an order, by its verb, and returns the answer. What it does
// not take from files is closed afterwards: it sets what it takes to -1. An error
// that wraps a unix.Errno is told with it, a *control.Error as it is. It may be called from several goroutines at once.
type Obey func(ctx context.Context, verb string, args json.RawMessage, files []int) (any, error)

// ErrVerb is for an order that an Obey does not know.
var ErrVerb = fmt.Errorf("unknown order; use programs of one release: %w", unix.ENOSYS)

// carryOut does what the monitor asks and answers. It takes the envelope over.
func (c *caller) carryOut(ctx context.Context, env *control.Envelope) {
	defer env.Close()
	var ask wire.Ask
	err := wire.Decode(env, wire.TypeAsk, &ask)
	var answer any
	if err == nil {
		answer, err = c.obey(ctx, ask.Verb, ask.Args, env.Files)
	}
	if err == nil {
		err = wire.Send(ctx, c.conn, env.ID, wire.TypeAnswer, answer)
	} else {
		err = c.conn.Send(ctx, env.ID, refusal(err))
	}
	if err != nil && ctx.Err() == nil {
		_ = c.conn.Close() // as good as gone
	}
}

func refusal(err error) *control.Error {
	e := &control.Error{Code: uint32(unix.EINVAL), Text: err.Error()}
	var told *control.Error
	var errno unix.Errno
	switch {
	case errors.As(err, &told):
		e = &control.Error{Code: told.Code, Text: told.Text}
	case errors.As(err, &errno):
		e.Code = uint32(errno)
	}
	e.Text = strings.ToValidUTF8(e.Text[:min(len(e.Text), control.MaxText)], "")
	return e
}
