package netserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A capture is a stream of records: TapHeader bytes, little-endian, then the
// frame as it passed, with partial checksums and whole segments.
//
//	 0  int64   nanoseconds since 1970
//	 8  uint32  length of the frame
//	12  uint8   0: from the captured party, 1: to it
//	13  3 bytes, 0
//	16  uint64  how many frames the capture has lost so far
const TapHeader = 24

// ErrCaptured is returned, wrapped, for a party that is captured already.
var ErrCaptured = errors.New("captured already; end the other capture first")

// tapDepth is how many frames wait to be written before further ones are lost
// to the capture: forwarding never waits for it.
const tapDepth = 4096

// tap copies the frames of one party, the uplink or an instance.
type tap struct {
	frames chan []byte
	lost   atomic.Uint64
	w      io.Writer
	over   chan struct{} // closed when another takes its place
}

// tapPoint is where a tap may be.
type tapPoint struct{ atomic.Pointer[tap] }

// frame copies a frame to the tap, if there is one.
func (p *tapPoint) frame(to byte, parts [][]byte) {
	t := p.Load()
	if t == nil {
		return
	}
	b := make([]byte, TapHeader, TapHeader+2048)
	for _, part := range parts {
		b = append(b, part...)
	}
	binary.LittleEndian.PutUint64(b, uint64(time.Now().UnixNano()))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-TapHeader))
	b[12] = to
	binary.LittleEndian.PutUint64(b[16:], t.lost.Load())
	select {
	case t.frames <- b:
	default:
		t.lost.Add(1)
	}
}

// Capture writes the frames of an instance, or with 0 those of the uplink, to w
// until that fails or the party is gone; then it closes w. Errors: ErrPort,
// ErrCaptured; w is closed then too.
func (s *Server) Capture(id uint32, w io.WriteCloser) error {
	point, gone := &s.tap, s.closing
	if id != 0 {
		p := s.ports.Load().byID[id]
		if p == nil {
			return errors.Join(fmt.Errorf("capture instance %d: %w", id, ErrPort), w.Close())
		}
		point, gone = &p.tap, p.pace.quit
	}
	t := &tap{frames: make(chan []byte, tapDepth), w: w, over: make(chan struct{})}
	if !point.put(t) {
		return errors.Join(fmt.Errorf("capture %d: %w", id, ErrCaptured), w.Close())
	}
	ended := make(chan struct{})
	s.taps.Go(func() { // closing is what ends a write that nobody reads
		select {
		case <-ended:
		case <-gone:
		}
		_ = w.Close()
	})
	s.taps.Go(func() {
		defer close(ended)
		defer point.CompareAndSwap(t, nil)
		for {
			select {
			case b := <-t.frames:
				if _, err := w.Write(b); err != nil {
					return // whoever looked does so no more
				}
			case <-t.over:
				return
			case <-gone:
				return
			}
		}
	})
	return nil
}

// put sets a tap where there is none, or one that nobody reads any more: its end
// shows only with the next frame.
func (p *tapPoint) put(t *tap) bool {
	for {
		old := p.Load()
		if old != nil && !unread(old.w) {
			return false
		}
		if !p.CompareAndSwap(old, t) {
			continue // it has just ended, or another has taken its place
		}
		if old != nil {
			close(old.over)
		}
		return true
	}
}

// unread tells whether w is a pipe, or socket, whose other end is closed.
func unread(w io.Writer) bool {
	f, ok := w.(syscall.Conn)
	if !ok {
		return false
	}
	c, err := f.SyscallConn()
	if err != nil {
		return true // closed already
	}
	var events int16
	err = c.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		for {
			if _, err := unix.Poll(poll, 0); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		events = poll[0].Revents
	})
	return err != nil || events&(unix.POLLERR|unix.POLLHUP) != 0
}
