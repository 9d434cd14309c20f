package client

import (
	"context"
	"encoding/json"
	"fmt"

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

// Close ends the connection.
func (o *Operator) Close() { o.close() }
