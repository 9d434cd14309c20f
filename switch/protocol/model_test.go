package protocol

import (
	"testing"

	"pgregory.net/rapid"
)

// options lists what can happen next. Faults are possible only while faults is
// true; what goes on by itself is listed first.
func (w *world) options(faults bool) (names []string) {
	add := func(name string, can bool) {
		if can {
			names = append(names, name)
		}
	}
	add("make", len(w.taskC) > 0)
	add("work", w.p != nil && len(w.taskP) > 0)
	add("to instance", w.p != nil && len(w.toP) > 0)
	add("to monitor", w.c != nil && len(w.toC) > 0)
	add("mark server", w.awaited(Server))
	add("mark direct", w.awaited(Direct))
	add("server returns", !w.server)
	add("monitor returns", w.c == nil && w.p != nil)
	if !faults {
		return names
	}
	add("request direct", w.c != nil)
	add("request server", w.c != nil)
	add("make fails", len(w.taskC) > 0)
	add("work fails", w.p != nil && len(w.taskP) > 0)
	add("timeout", w.timer && w.c != nil)
	add("give up", w.p != nil)
	add("server dies", w.server)
	add("monitor dies", w.c != nil && w.p != nil)
	add("queue dies", w.queue && w.c != nil)
	add("instance dies", w.p != nil && w.c != nil)
	return names
}

func (w *world) step(name string) {
	w.log("* " + name)
	switch name {
	case "make":
		w.makes(true)
	case "work":
		w.works(true)
	case "to instance":
		w.tellInstance()
	case "to monitor":
		w.tellMonitor()
	case "mark server":
		w.arrive(Server)
	case "mark direct":
		w.arrive(Direct)
	case "server returns":
		w.server = true
	case "monitor returns":
		w.monitorReturns()
	case "request direct":
		w.request(Direct)
	case "request server":
		w.request(Server)
	case "make fails":
		w.makes(false)
	case "work fails":
		w.works(false)
	case "timeout":
		w.timer = false
		w.monitor(w.c.Timeout())
	case "give up":
		w.instance(w.p.GiveUp())
	case "server dies":
		w.serverDies()
	case "monitor dies":
		w.monitorDies()
	case "queue dies":
		w.queueDies()
	case "instance dies":
		w.instanceDies()
	}
}

// Whatever happens in whatever order, an instance that lives has a path each
// way at each moment, and when all is done it is in one mode, with a queue if and only if
// that is direct, and everybody who asked has been told.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(func(s string) { t.Log(s) })
		n := rapid.IntRange(0, 80).Draw(t, "steps")
		rare := []string{"server dies", "monitor dies", "instance dies", "queue dies", "timeout", "give up", "make fails", "work fails"}
		for range n {
			all := w.options(true)
			name := rapid.SampledFrom(all).Draw(t, "next")
			for _, r := range rare { // lest nothing ever comes far
				if name == r && rapid.IntRange(0, 3).Draw(t, "rare") != 0 {
					name = all[0]
				}
			}
			w.step(name)
			if err := w.check(); err != nil {
				t.Fatal(err)
			}
		}
		w.finish(t)
	})
}

// finish lets everything go on without further faults. Time passes only when
// nothing else happens.
func (w *world) finish(t interface {
	Fatalf(string, ...any)
}) {
	for n := 0; ; n++ {
		if n > 1000 {
			t.Fatalf("no end")
		}
		names := w.options(false)
		switch {
		case len(names) > 0:
			w.step(names[0])
		case w.c != nil && w.timer:
			w.step("timeout")
		case w.p != nil && w.p.Switching() && w.p.phase == goingBack:
			w.step("give up")
		default:
			if err := w.settled(); err != nil {
				t.Fatalf("in the end: %v", err)
			}
			return
		}
		if err := w.check(); err != nil {
			t.Fatalf("%v", err)
		}
	}
}
