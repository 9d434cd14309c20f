package protocol

import (
	"fmt"
	"slices"
	"strings"
)

// world is a monitor, an instance and what they act on. What is under way, a
// message, a mark or the outcome of an action, is in its lists until it is let go on.
type world struct {
	c   *Coordinator // nil: the monitor is dead
	p   *Participant // nil: the instance is dead
	log func(string)

	toP, toC []Message
	// tasks are actions whose outcome is to come, by whose they are.
	taskC, taskP []Action
	marks        [2][]Action // by path
	awaits       []Action

	steer, egress  Mode
	queue          bool // there is a queue
	uses           bool // the instance receives by it
	merging, stamp bool
	timer          bool
	server         bool // the network server runs
	lost           bool // the queue has died: nobody can use it, nor know that at once
	reports        []string
	asked          int
}

func newWorld(log func(string)) *world {
	return &world{c: New(Server, 0), p: new(Participant), server: true, log: log}
}

// monitor carries out what the coordinator wants.
func (w *world) monitor(do []Action) {
	for _, a := range do {
		w.log("monitor: " + a.String())
		switch a.Do {
		case DoSend:
			w.toP = append(w.toP, a.Message)
		case DoMake:
			w.taskC = append(w.taskC, a)
		case DoDrop:
			w.queue = false
		case DoStamp:
			w.stamp = true
		case DoUnstamp:
			w.stamp = false
		case DoSteer:
			w.steer = a.Mode
		case DoMark:
			if a.Mode == Direct && w.queue || a.Mode == Server && w.server {
				w.marks[a.Mode] = append(w.marks[a.Mode], a)
			}
		case DoTimer:
			w.timer = true
		case DoNoTimer:
			w.timer = false
		case DoReport:
			w.reports = append(w.reports, a.String())
		}
	}
}

// instance carries out what the participant wants.
func (w *world) instance(do []Action) {
	for _, a := range do {
		w.log("instance: " + a.String())
		switch a.Do {
		case DoSend:
			if w.c != nil { // else there is no connection
				w.toC = append(w.toC, a.Message)
			}
		case DoAdd, DoMove:
			w.taskP = append(w.taskP, a)
		case DoRemove:
			w.uses = false
		case DoMerge:
			w.merging = true
		case DoEndMerge:
			w.merging = false
		case DoAwait:
			w.awaits = append(w.awaits, a)
		}
	}
}

// makes ends DoMake.
func (w *world) makes(ok bool) {
	w.taskC = w.taskC[1:]
	if w.c == nil {
		return
	}
	if ok {
		w.queue, w.lost = true, false
		w.monitor(w.c.QueueMade())
		return
	}
	w.monitor(w.c.Failed("no queue is left"))
}

// works ends an instance's first task.
func (w *world) works(ok bool) {
	a := w.taskP[0]
	w.taskP = w.taskP[1:]
	switch {
	case a.Do == DoAdd && ok:
		if a.Mode == Direct {
			w.uses = true
		}
		w.instance(w.p.PathAdded())
	case a.Do == DoAdd:
		w.instance(w.p.PathRefused("the queue is unusable"))
	case ok || a.Force:
		w.egress = a.Mode
		w.instance(w.p.EgressMoved())
	default:
		w.instance(w.p.EgressStuck("the old path does not send what it has"))
	}
}

// arrive lets the first mark of a path arrive.
func (w *world) arrive(m Mode) {
	a := w.marks[m][0]
	w.marks[m] = w.marks[m][1:]
	if w.p == nil || m == Direct && !w.uses {
		return
	}
	i := slices.IndexFunc(w.awaits, func(b Action) bool { return b.Mark == a.Mark && b.Epoch == a.Epoch && b.Mode == m })
	if i < 0 {
		w.marks[m] = slices.Insert(w.marks[m], 0, a) // it is looked for later
		return
	}
	w.awaits = slices.Delete(w.awaits, i, i+1)
	w.instance(w.p.MarkSeen(a.Epoch, a.Mark))
}

// awaited tells whether the first mark of a path is waited for.
func (w *world) awaited(m Mode) bool {
	if len(w.marks[m]) == 0 || w.p == nil {
		return false
	}
	a := w.marks[m][0]
	return slices.ContainsFunc(w.awaits, func(b Action) bool { return b.Mark == a.Mark && b.Epoch == a.Epoch && b.Mode == m })
}

// tell lets the first message in a direction arrive.
func (w *world) tellInstance() {
	m := w.toP[0]
	w.toP = w.toP[1:]
	w.instance(w.p.Receive(m))
}

func (w *world) tellMonitor() {
	m := w.toC[0]
	w.toC = w.toC[1:]
	w.monitor(w.c.Receive(m))
}

func (w *world) request(to Mode) {
	do, refused := w.c.Request(to)
	if refused != nil {
		w.log("refused: " + refused.Error())
		return
	}
	w.asked++
	w.monitor(do)
}

func (w *world) serverDies() {
	w.server = false
	w.marks[Server] = nil
	if w.c != nil {
		w.monitor(w.c.ServerGone())
	}
}

func (w *world) queueDies() {
	w.queue, w.lost = false, true
	w.marks[Direct] = nil
	idle := w.c.Step() == Idle || w.c.Step() == Silent
	w.monitor(w.c.QueueLost())
	if idle && w.c.Step() == Aborting {
		w.asked++ // its end is reported, to nobody
	}
}

func (w *world) monitorDies() {
	w.c, w.toP, w.toC, w.taskC, w.timer = nil, nil, nil, nil, false
	w.asked, w.reports = 0, nil
}

func (w *world) monitorReturns() {
	if !w.p.Switching() && (w.p.Mode() == Server || w.queue) {
		w.c = New(w.p.Mode(), w.p.Epoch())
		w.stamp = false
		if w.p.Mode() == Server {
			w.steer, w.queue = Server, false
		}
		return
	}
	var do []Action
	w.c, do = Resume(w.p.Epoch())
	w.asked = 1 // its end is reported, to nobody
	w.monitor(do)
}

func (w *world) instanceDies() {
	w.p, w.toP, w.toC, w.taskP, w.awaits = nil, nil, nil, nil, nil
	w.uses, w.merging = false, false
	w.monitor(w.c.InstanceGone())
}

// check tells what must never be.
func (w *world) check() error {
	if w.p == nil {
		return nil
	}
	if w.lost {
		w.lost = w.egress == Direct || w.uses // until it has been given up
		return nil
	}
	if w.steer == Direct && !(w.queue && w.uses) {
		return fmt.Errorf("frames are steered to a queue that nobody has: queue %v, in use %v", w.queue, w.uses)
	}
	if w.egress == Direct && !(w.queue && w.uses) {
		return fmt.Errorf("packets leave by a queue that is not there: queue %v, in use %v", w.queue, w.uses)
	}
	return nil
}

// settled tells what is wrong when nothing is under way any more.
func (w *world) settled() error {
	if err := w.check(); err != nil {
		return err
	}
	if w.c.Step() != Idle || len(w.reports) != w.asked {
		return fmt.Errorf("in step %v, %d of %d switches reported", w.c.Step(), len(w.reports), w.asked)
	}
	mode := Server
	if w.p != nil {
		mode = w.p.Mode()
		if w.p.Switching() || w.merging || w.egress != mode {
			return fmt.Errorf("the instance is not done: switching %v, merging %v, egress %v, mode %v", w.p.Switching(), w.merging, w.egress, mode)
		}
		if w.uses != (mode == Direct) {
			return fmt.Errorf("mode %v, and uses the queue: %v", mode, w.uses)
		}
	}
	if w.steer != mode || w.p != nil && w.c.Mode() != mode || w.queue != (mode == Direct) || w.stamp {
		return fmt.Errorf("mode %v, steered %v, monitor's %v, queue %v, stamping %v", mode, w.steer, w.c.Mode(), w.queue, w.stamp)
	}
	return nil
}

// text describes a world for transcripts.
func (w *world) text() string {
	var b strings.Builder
	if w.c != nil {
		fmt.Fprintf(&b, "monitor %v in step %v", w.c.Mode(), w.c.Step())
	} else {
		b.WriteString("no monitor")
	}
	if w.p != nil {
		fmt.Fprintf(&b, "; instance %v", w.p.Mode())
	}
	fmt.Fprintf(&b, "; steered %v, queue %v\n", w.steer, w.queue)
	return b.String()
}
