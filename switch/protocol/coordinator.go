package protocol

import "fmt"

// Step is where a Coordinator is.
type Step uint8

// The steps; see the package's comment.
const (
	Idle Step = iota
	Making
	Preparing
	Aligning
	Moving
	Finishing
	Aborting
	// Silent: the switch has ended and been reported, but the instance has not
	// said that it does not use the queue any more.
	Silent
	// Late: the same of a queue that is still being made.
	Late
	steps
)

var stepNames = [steps]string{"idle", "make", "prepare", "align", "move", "finish", "roll back", "silent", "late"}

// String is the step's name.
func (s Step) String() string { return stepNames[s] }

// Coordinator is the monitor's side of an instance's switches.
type Coordinator struct {
	step   Step
	mode   Mode // as steered, but during a switch
	to     Mode
	epoch  uint64
	reason string // why it is rolled back
	gone   bool
	out    []Action
}

// New makes the Coordinator of an instance that is in a mode. epoch is the last
// that the instance knows, 0 if it is new.
func New(m Mode, epoch uint64) *Coordinator { return &Coordinator{mode: m, to: m, epoch: epoch} }

// Resume makes the Coordinator of an instance that another monitor was switching,
// or that has a queue which this one does not: it goes to server mode. epoch is the last that it knows.
func Resume(epoch uint64) (*Coordinator, []Action) {
	c := &Coordinator{epoch: epoch + 1, to: Direct, mode: Server}
	c.rollBack("another monitor has taken over")
	return c, c.take()
}

// Step returns where a switch is, Idle without one.
func (c *Coordinator) Step() Step { return c.step }

// Mode returns the mode that is in use; during a switch the one before.
func (c *Coordinator) Mode() Mode { return c.mode }

// To returns the mode that a switch under way goes to.
func (c *Coordinator) To() Mode { return c.to }

// Epoch returns the number of the present or last switch.
func (c *Coordinator) Epoch() uint64 { return c.epoch }

func (c *Coordinator) do(a Action) {
	a.Epoch = c.epoch
	c.out = append(c.out, a)
}

func (c *Coordinator) send(k Kind, to Mode, reason string) {
	c.do(Action{Do: DoSend, Message: Message{Kind: k, Epoch: c.epoch, To: to, Reason: reason}})
}

func (c *Coordinator) mark(m Mark, by Mode) { c.do(Action{Do: DoMark, Mark: m, Mode: by}) }

func (c *Coordinator) enter(s Step) {
	c.step = s
	c.do(Action{Do: DoTimer})
}

// take returns what is to be done.
func (c *Coordinator) take() []Action {
	out := c.out
	c.out = nil
	return out
}

// Request begins a switch. One that is not needed, or cannot be, is reported at
// once, the second in refused, for who asked for another may be waiting.
func (c *Coordinator) Request(to Mode) (do []Action, refused error) {
	switch {
	case c.gone:
		return nil, fmt.Errorf("the instance has ended")
	case c.step == Silent:
		return nil, fmt.Errorf("the instance does not answer since the last switch")
	case c.step == Late:
		return nil, fmt.Errorf("the queue of the last switch is still being made")
	case c.step != Idle:
		return nil, fmt.Errorf("a switch to %v is under way (%v)", c.to, c.step)
	case c.mode == to:
		c.do(Action{Do: DoReport, Mode: to})
		return c.take(), nil
	}
	c.epoch++
	c.to, c.reason = to, ""
	if to == Direct {
		c.enter(Making)
		c.do(Action{Do: DoMake})
	} else {
		c.prepare()
	}
	return c.take(), nil
}

func (c *Coordinator) prepare() {
	c.enter(Preparing)
	c.send(Prepare, c.to, "")
	c.mark(MarkProbe, c.to)
}

// QueueMade follows DoMake.
func (c *Coordinator) QueueMade() []Action {
	switch c.step {
	case Making:
		c.prepare()
	case Late:
		c.step = Idle
		c.do(Action{Do: DoDrop})
	default:
		c.do(Action{Do: DoDrop}) // the instance has ended
	}
	return c.take()
}

// Failed says that the present step cannot be done, and why.
func (c *Coordinator) Failed(reason string) []Action {
	switch c.step {
	case Making:
		c.end(c.mode, reason)
	case Late:
		c.step = Idle
	case Preparing, Aligning, Moving:
		c.rollBack(reason)
	}
	return c.take()
}

// ServerGone says that the network server has ended.
func (c *Coordinator) ServerGone() []Action {
	if c.step == Preparing && c.to == Direct {
		return nil // it has no part in that
	}
	if c.step == Making || c.step == Late {
		return nil
	}
	return c.Failed("the network server ended")
}

// QueueLost says that the queue is not there any more, as when its NIC was
// deleted: an instance that uses it, or is about to, goes to server mode.
func (c *Coordinator) QueueLost() []Action {
	if c.gone || c.step == Idle && c.mode == Server || c.step == Making || c.step == Late {
		return nil
	}
	c.epoch++ // what is under way belongs to a switch that is over
	c.mode, c.to = Server, Direct
	c.reason = "the queue is gone"
	c.enter(Aborting)
	c.do(Action{Do: DoSteer, Mode: Server})
	c.do(Action{Do: DoSend, Message: Message{Kind: Abort, Epoch: c.epoch, To: Server, Reason: c.reason, Gone: true}})
	return c.take()
}

// Timeout says that the present step takes too long.
func (c *Coordinator) Timeout() []Action {
	switch c.step {
	case Making:
		c.end(c.mode, "no queue was made in time")
		c.step = Late
	case Preparing, Aligning, Moving:
		c.rollBack(fmt.Sprintf("%v took too long", c.step))
	case Finishing:
		c.silent(c.to, "the instance does not confirm the switch")
	case Aborting:
		c.silent(c.mode, c.reason+"; and the instance does not confirm that it went back")
	}
	return c.take()
}

// InstanceGone says that the instance has ended.
func (c *Coordinator) InstanceGone() []Action {
	if c.gone {
		return nil
	}
	c.gone = true
	if c.step != Idle && c.step != Silent && c.step != Late {
		c.do(Action{Do: DoReport, Mode: c.mode, Reason: "the instance ended"})
	}
	if c.step != Idle || c.mode == Direct {
		c.do(Action{Do: DoSteer, Mode: Server})
		c.do(Action{Do: DoUnstamp})
		c.do(Action{Do: DoDrop})
	}
	c.step = Idle
	c.do(Action{Do: DoNoTimer})
	return c.take()
}

// Receive takes a message of the instance. What does not belong to the present
// step came too late, or is a lie that only hurts the instance.
func (c *Coordinator) Receive(m Message) []Action {
	if m.Epoch != c.epoch || c.gone {
		return nil
	}
	switch {
	case m.Kind == Prepared && c.step == Preparing:
		c.enter(Aligning)
		c.do(Action{Do: DoStamp})
		c.send(Align, 0, "")
		c.mark(MarkStamped, c.mode)
	case m.Kind == Aligned && c.step == Aligning:
		c.enter(Moving)
		c.do(Action{Do: DoSteer, Mode: c.to})
		c.send(Move, 0, "")
		c.mark(MarkDrained, c.mode)
	case m.Kind == Moved && c.step == Moving:
		c.enter(Finishing)
		c.mode = c.to
		c.send(Finish, 0, "")
	case m.Kind == Finished && (c.step == Finishing || c.step == Silent && c.reason == ""):
		c.finished()
	case m.Kind == Refused && (c.step == Preparing || c.step == Moving):
		c.rollBack(m.Reason)
	case m.Kind == Aborted && (c.step == Aborting || c.step == Silent && c.reason != ""):
		c.aborted()
	}
	return c.take()
}

func (c *Coordinator) finished() {
	silent := c.step == Silent
	c.do(Action{Do: DoUnstamp})
	if c.mode == Server {
		c.do(Action{Do: DoDrop})
	}
	if silent {
		c.step = Idle
		return
	}
	c.end(c.mode, "")
}

// rollBack goes back to the mode before.
func (c *Coordinator) rollBack(reason string) {
	c.reason = reason
	c.enter(Aborting)
	c.do(Action{Do: DoSteer, Mode: c.mode})
	c.send(Abort, c.mode, reason)
	c.mark(MarkBack, c.to)
}

func (c *Coordinator) aborted() {
	silent := c.step == Silent
	c.do(Action{Do: DoUnstamp})
	if c.mode == Server {
		c.do(Action{Do: DoDrop})
	}
	if silent {
		c.step = Idle
		return
	}
	c.end(c.mode, c.reason)
}

// silent reports the end of a switch of which the instance has not said that it
// has ended for it too.
func (c *Coordinator) silent(mode Mode, reason string) {
	c.end(mode, reason)
	c.step = Silent
}

func (c *Coordinator) end(mode Mode, reason string) {
	c.step = Idle
	c.do(Action{Do: DoNoTimer})
	c.do(Action{Do: DoReport, Mode: mode, Reason: reason})
}
