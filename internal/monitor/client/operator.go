package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// Operator asks the monitor for its state and gives it orders.
type Operator struct{ *caller }

// DialOperator connects to the monitor at path. Error: ErrNoMonitor.
func DialOperator(ctx context.Context, path string) (*Operator, error) {
	c, err := dial(ctx, path, "operator", wire.RoleOperator)
	if err != nil {
		return nil, err
	}
	c.listen()
	return &Operator{c}, nil
}

// Ask gives an order, with args as JSON unless nil and files beside it, and reads
// its result into v.
func (o *Operator) Ask(ctx context.Context, verb string, args, v any, files ...int) error {
	ask := wire.Ask{Verb: verb}
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
		ask.Args = b
	}
	var answer wire.Answer
	if err := o.call(ctx, wire.TypeAsk, ask, wire.TypeAnswer, &answer, files...); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return json.Unmarshal(answer, v)
}

// switchTime is how long a switch may take, with all its steps at their limits.
const switchTime = 2 * time.Minute

// Switch orders a switch. With Wait it orders it again and again, until ctx is
// done: the monitor answers in time what it cannot do yet.
func (o *Operator) Switch(ctx context.Context, order wire.SwitchOrder) (r wire.SwitchResult, err error) {
	for {
		limited, cancel := context.WithTimeout(ctx, switchTime)
		r = wire.SwitchResult{}
		err = o.Ask(limited, "switch", order, &r)
		cancel()
		var refusal *control.Error
		busy := errors.As(err, &refusal) && refusal.Code == uint32(unix.EBUSY)
		if !order.Wait || ctx.Err() != nil || !busy && (err != nil || !r.NoQueue) {
			return r, err
		}
	}
}

// Close ends the connection.
func (o *Operator) Close() { o.close() }
