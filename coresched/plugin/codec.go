package plugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	cs "junction/coresched"
	"junction/ipc"
)

type kind uint8

const (
	kindSnapshot kind = iota + 1
	kindStart
	kindMessages
	kindResults
	kindBatch
	kindPing
	kinds
)

// Sizes of frames and their parts, in bytes.
const (
	headerSize  = 16
	messageSize = 64
	txnSize     = 16
	setSize     = cs.MaxCPUs / 8
	// perFrame messages keep a frame well below what a ring takes.
	perFrame = 128
)

// ErrFrame: a frame that no honest peer sends.
var ErrFrame = errors.New("malformed frame")

// header begins each frame.
type header struct {
	kind  kind
	group cs.Grouping
	count int    // of messages, results or transactions
	id    uint32 // of a batch
	agent cs.CPU
}

var order = binary.LittleEndian

func (h *header) put(b []byte) {
	b[0], b[1] = byte(h.kind), byte(h.group)
	order.PutUint16(b[2:], uint16(h.count))
	order.PutUint32(b[4:], h.id)
	order.PutUint32(b[8:], uint32(h.agent))
	order.PutUint32(b[12:], 0)
}

// parse reads a frame as it comes from the ring, and returns its header and
// what follows, which is as long as the header says.
func parse(frame []byte) (h header, body []byte, err error) {
	if len(frame) < ipc.VnetHdrLen+headerSize {
		return h, nil, fmt.Errorf("%w: %d bytes", ErrFrame, len(frame))
	}
	b := frame[ipc.VnetHdrLen:]
	h = header{
		kind: kind(b[0]), group: cs.Grouping(b[1]), count: int(order.Uint16(b[2:])),
		id: order.Uint32(b[4:]), agent: cs.CPU(order.Uint32(b[8:])),
	}
	body = b[headerSize:]
	want := 0
	switch h.kind {
	case kindSnapshot, kindMessages:
		want = h.count * messageSize
	case kindStart:
		want = setSize + 4*h.count
	case kindResults:
		want = h.count
	case kindBatch:
		want = h.count * txnSize
	case kindPing:
	default:
		return h, nil, fmt.Errorf("%w: kind %d", ErrFrame, h.kind)
	}
	if len(body) != want || h.count > cs.MaxCPUs || h.group > cs.Sync {
		return h, nil, fmt.Errorf("%w: %d bytes after the header of kind %d with %d parts", ErrFrame, len(body), h.kind, h.count)
	}
	return h, body, nil
}

// putMessage writes m into b, of messageSize.
func putMessage(b []byte, m *cs.Message) {
	flags := byte(0)
	if m.Runnable {
		flags |= 1
	}
	if m.OnCPU {
		flags |= 2
	}
	b[0], b[1], b[2], b[3] = byte(m.Type), flags, byte(m.Hints.Class), byte(m.Hints.Nice)
	order.PutUint32(b[4:], uint32(m.Task))
	order.PutUint32(b[8:], uint32(m.Seq))
	order.PutUint32(b[12:], uint32(m.Agent))
	order.PutUint32(b[16:], uint32(m.CPU))
	order.PutUint32(b[20:], uint32(m.Home))
	order.PutUint64(b[24:], uint64(m.Runtime))
	order.PutUint64(b[32:], uint64(m.At))
	order.PutUint64(b[40:], uint64(m.Hints.Deadline))
	order.PutUint32(b[48:], m.Hints.Group)
	order.PutUint16(b[52:], m.Hints.Guaranteed)
	clear(b[54:56])
	order.PutUint32(b[56:], uint32(min(max(0, m.Hints.Delay), cs.MaxDelay)))
	clear(b[60:messageSize])
}

// getMessage reads what putMessage wrote. Whether it makes sense is the agent's
// to judge.
func getMessage(b []byte, m *cs.Message) {
	*m = cs.Message{
		Type: cs.MessageType(b[0]), Runnable: b[1]&1 != 0, OnCPU: b[1]&2 != 0,
		Task: cs.Task(order.Uint32(b[4:])), Seq: cs.Seq(order.Uint32(b[8:])), Agent: cs.Seq(order.Uint32(b[12:])),
		CPU: cs.CPU(order.Uint32(b[16:])), Home: cs.CPU(order.Uint32(b[20:])),
		Runtime: time.Duration(order.Uint64(b[24:])), At: time.Duration(order.Uint64(b[32:])),
		Hints: cs.Hints{
			Class: cs.Class(b[2]), Nice: int8(b[3]), Deadline: time.Duration(order.Uint64(b[40:])),
			Group: order.Uint32(b[48:]), Guaranteed: order.Uint16(b[52:]),
			Delay: time.Duration(order.Uint32(b[56:])),
		},
	}
}

// putTxn writes t into b, of txnSize.
func putTxn(b []byte, t *cs.Txn) {
	order.PutUint32(b, uint32(t.CPU))
	order.PutUint32(b[4:], uint32(t.Task))
	order.PutUint32(b[8:], uint32(t.TaskSeq))
	order.PutUint32(b[12:], uint32(t.AgentSeq))
}

func getTxn(b []byte) cs.Txn {
	return cs.Txn{
		CPU: cs.CPU(order.Uint32(b)), Task: cs.Task(order.Uint32(b[4:])),
		TaskSeq: cs.Seq(order.Uint32(b[8:])), AgentSeq: cs.Seq(order.Uint32(b[12:])),
	}
}

func putSet(b []byte, s *cs.CPUSet) {
	for i, w := range s {
		order.PutUint64(b[8*i:], w)
	}
}

func getSet(b []byte) (s cs.CPUSet) {
	for i := range s {
		s[i] = order.Uint64(b[8*i:])
	}
	return s
}
