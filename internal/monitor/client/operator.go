package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"junction/internal/monitor/wire"
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

// Switch orders a switch. With Wait it has a place in the monitor's line until the
// connection ends, so who does not want to wait any more, as ctx is done, calls Close.
func (o *Operator) Switch(ctx context.Context, order wire.SwitchOrder) (r wire.SwitchResult, err error) {
	if !order.Wait {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, switchTime)
		defer cancel()
	}
	err = o.Ask(ctx, "switch", order, &r)
	return r, err
}

// Close ends the connection.
func (o *Operator) Close() { o.close() }
