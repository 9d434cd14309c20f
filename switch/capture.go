package modeswitch

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"
)

// Capture writes the frames that pass an endpoint to a pcap file
// (draft-ietf-opsawg-pcap, nanosecond times, LINKTYPE_ETHERNET). Frames appear
// as they cross the border to the back end: segments of up to 64 KiB are whole
// and partial checksums are not filled in. It is safe for concurrent use.
type Capture struct {
	mu sync.Mutex
	// +checklocks:mu
	w io.Writer
	// +checklocks:mu
	buf []byte
	// +checklocks:mu
	err error
}

const (
	pcapMagicNano   = 0xa1b23c4d
	pcapSnapLen     = 1 << 18
	pcapEthernet    = 1
	pcapRecordBytes = 16
)

// NewCapture writes the file header to w. Every frame is one Write, so that a
// file is complete up to the last frame whatever happens to the process.
func NewCapture(w io.Writer) (*Capture, error) {
	le := binary.LittleEndian
	h := le.AppendUint32(nil, pcapMagicNano)
	h = le.AppendUint16(h, 2)
	h = le.AppendUint16(h, 4)
	h = le.AppendUint64(h, 0) // time zone and accuracy, unused
	h = le.AppendUint32(h, pcapSnapLen)
	h = le.AppendUint32(h, pcapEthernet)
	if _, err := w.Write(h); err != nil {
		return nil, fmt.Errorf("capture file: %w", err)
	}
	return &Capture{w: w}, nil
}

// Err returns the error that ended the capture, or nil.
func (c *Capture) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// frame records the frame that is the concatenation of parts.
func (c *Capture) frame(parts ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now, le := time.Now(), binary.LittleEndian
	b := le.AppendUint32(c.buf[:0], uint32(now.Unix()))
	b = le.AppendUint32(b, uint32(now.Nanosecond()))
	b = le.AppendUint64(b, 0)
	for _, p := range parts {
		b = append(b, p...)
	}
	n := uint32(len(b) - pcapRecordBytes)
	le.PutUint32(b[8:], min(n, pcapSnapLen))
	le.PutUint32(b[12:], n)
	c.buf = b
	if _, err := c.w.Write(b[:min(len(b), pcapRecordBytes+pcapSnapLen)]); err != nil {
		c.err = fmt.Errorf("capture file: %w", err)
	}
}
