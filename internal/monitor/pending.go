package monitor

import (
	"context"
	"sync"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// result is what is answered: an error is a *control.Error.
type result struct {
	answer wire.Answer
	err    error
}

// pending are questions that the other side of a connection has not answered
// yet. Its methods may be called from any goroutine.
type pending struct {
	mu sync.Mutex
	// +checklocks:mu
	last uint32
	// +checklocks:mu
	waiting map[uint32]chan result
	// +checklocks:mu
	over bool
}

// begin gives a question its number. Not ok: there will be no answer.
func (p *pending) begin() (id uint32, answer <-chan result, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return 0, nil, false
	}
	if p.waiting == nil {
		p.waiting = make(map[uint32]chan result)
	}
	p.last++
	ch := make(chan result, 1)
	p.waiting[p.last] = ch
	return p.last, ch, true
}

// take takes an answer, or the error that came instead. It returns an error for
// a message that is neither.
func (p *pending) take(env *control.Envelope) error {
	var a wire.Answer
	err := wire.Decode(env, wire.TypeAnswer, &a)
	if err != nil && env.Message.Type() != control.TypeError {
		return err
	}
	p.answered(env.ID, result{a, err})
	return nil
}

// answered hands an answer to who waits for it, if anybody still does.
func (p *pending) answered(id uint32, a result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ch := p.waiting[id]; ch != nil {
		delete(p.waiting, id)
		ch <- a
	}
}

// await waits for an answer. gone is the error when none will come.
func (p *pending) await(ctx context.Context, id uint32, answer <-chan result, gone error) (wire.Answer, error) {
	select {
	case r, ok := <-answer:
		if !ok {
			return nil, gone
		}
		return r.answer, r.err
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, id)
		return nil, ctx.Err()
	}
}

// end tells all who wait that no answer will come.
func (p *pending) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ch := range p.waiting {
		close(ch)
	}
	p.waiting, p.over = nil, true
}
