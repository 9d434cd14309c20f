package protocol

import "fmt"

// Mode is one of the two that an instance can be in.
type Mode uint8

// The modes.
const (
	Server Mode = iota // behind the network server
	Direct             // on a queue of its own
	modes
)

// String is "server" or "direct".
func (m Mode) String() string {
	switch m {
	case Server:
		return "server"
	case Direct:
		return "direct"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// ParseMode is String's inverse.
func ParseMode(s string) (Mode, error) {
	for m := range modes {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q; accepted: server, direct", s)
}

// MarshalText implements encoding.TextMarshaler.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMode(string(b))
	return err
}

// other is the mode that m is not.
func (m Mode) other() Mode { return Direct - m }

// Kind is what a Message says.
type Kind uint8

// The messages, in the order of the protocol. The first group is the monitor's.
const (
	Prepare Kind = iota + 1
	Align
	Move
	Finish
	Abort
	Prepared
	Aligned
	Moved
	Finished
	Aborted
	Refused // instead of Prepared or Moved
	kinds
)

var kindNames = [kinds]string{"", "prepare", "align", "move", "finish", "abort", "prepared", "aligned", "moved", "finished", "aborted", "refused"}

// String is the message's name.
func (k Kind) String() string {
	if k > 0 && k < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("message %d", uint8(k))
}

// Message is between monitor and instance.
type Message struct {
	Kind Kind `json:"kind"`
	// Epoch tells one switch from another. It grows.
	Epoch uint64 `json:"epoch"`
	// To is the mode to go to, of Prepare and Abort.
	To Mode `json:"to,omitempty"`
	// Reason is of Abort and Refused.
	Reason string `json:"reason,omitempty"`
	// Gone is of Abort: nothing comes or goes by the path left any more, so no mark
	// follows, and what it has is not waited for.
	Gone bool `json:"gone,omitempty"`
}

// Mark is a frame that comes by a path behind all that took it before.
type Mark uint8

// The marks of a switch.
const (
	MarkProbe   Mark = iota // the new path works
	MarkStamped             // what follows on the old path is stamped
	MarkDrained             // nothing more comes by the old path
	MarkBack                // nothing more comes by the new path, after Abort
)

// Nonce is what a mark's frame bears.
func (m Mark) Nonce(epoch uint64) uint64 { return epoch<<8 | uint64(m) }

// Tag is what an epoch's frames are stamped with; never 0, which is "not at all".
func Tag(epoch uint64) uint8 { return uint8(epoch%255) + 1 }

// Do is what an Action does.
type Do uint8

// The actions. Those of the monitor:
const (
	// DoSend sends Message.
	DoSend Do = iota
	// DoMake makes a queue; QueueMade or Failed follows.
	DoMake
	// DoDrop frees the queue.
	DoDrop
	// DoStamp stamps the instance's frames from now on, with the epoch's Tag;
	// DoUnstamp ends that. DoSteer steers its frames to Mode. Failed may follow.
	DoStamp
	DoUnstamp
	DoSteer
	// DoMark sends Mark by the path of Mode. Failed may follow.
	DoMark
	// DoTimer asks for a Timeout of the present step, instead of one asked for
	// before; DoNoTimer for none.
	DoTimer
	DoNoTimer
	// DoReport tells who asked for the switch how it ended: Reason is empty, or
	// why it is not in the mode asked for. Mode is the mode that it is in.
	DoReport

	// Those of the instance; DoSend and DoMark are its own too: DoAwait waits
	// for Mark by the path of Mode, MarkSeen follows unless it is given up for.

	// DoAdd begins to use the path of Mode; PathAdded or PathRefused follows.
	DoAdd
	// DoRemove ends the use of the queue.
	DoRemove
	// DoMerge puts frames of both paths in order from now on, the one of Mode
	// being the new one; DoEndMerge ends that.
	DoMerge
	DoEndMerge
	// DoAwait waits for Mark by the path of Mode: MarkSeen follows, if it comes.
	DoAwait
	// DoStamped and DoDrained tell the merging what a mark said of the path of Mode.
	DoStamped
	DoDrained
	// DoMove makes packets leave by the path of Mode when the other one has sent
	// what it has; EgressMoved or EgressStuck follows. With Force, it does not wait for that.
	DoMove
	dos
)

var doNames = [dos]string{"send", "make", "drop", "stamp", "unstamp", "steer", "mark", "timer", "no timer", "report",
	"add", "remove", "merge", "end merge", "await", "stamped", "drained", "move"}

// Action is something to be done.
type Action struct {
	Do      Do
	Message Message // DoSend
	Mode    Mode
	Mark    Mark
	Epoch   uint64
	Reason  string
	Force   bool // DoMove
}

// String is for transcripts.
func (a Action) String() string {
	s := doNames[a.Do]
	switch a.Do {
	case DoSend:
		return s + " " + a.Message.String()
	case DoMark, DoAwait:
		return fmt.Sprintf("%s %d by %v", s, a.Mark, a.Mode)
	case DoSteer, DoAdd, DoMove, DoStamped, DoDrained, DoMerge:
		s = fmt.Sprintf("%s %v", s, a.Mode)
	case DoReport:
		if a.Reason != "" {
			return fmt.Sprintf("%s %v: %s", s, a.Mode, a.Reason)
		}
		return fmt.Sprintf("%s %v", s, a.Mode)
	}
	if a.Force {
		s += " by force"
	}
	return s
}

// String is for transcripts.
func (m Message) String() string {
	s := fmt.Sprintf("%v(%d)", m.Kind, m.Epoch)
	if m.Kind == Prepare || m.Kind == Abort {
		s += " to " + m.To.String()
	}
	if m.Reason != "" {
		s += ": " + m.Reason
	}
	if m.Gone {
		s += " (gone)"
	}
	return s
}
