package impair

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"junction/internal/lab/afpacket"
)

// Stats of a Forwarder.
type Stats struct {
	ToServer DirectionStats `json:"to_server"`
	ToClient DirectionStats `json:"to_client"`
}

// DirectionStats are the line's counters and those of the sockets around it:
// Out = Sent + SendFailed, but for the one frame that may be under way.
type DirectionStats struct {
	Counters
	// Sent frames were taken by the kernel.
	Sent uint64 `json:"sent"`
	// SendFailed frames were refused, for example as longer than the MTU.
	SendFailed uint64 `json:"send_failed"`
	// Unreadable frames were too long or had a partial checksum; they never got
	// to the line.
	Unreadable uint64 `json:"unreadable"`
	// SocketFull frames were dropped by the kernel because the forwarder did not
	// keep up; they never got to the line.
	SocketFull uint64 `json:"socket_full"`
}

// Forwarder forwards frames between two interfaces, with one goroutine for each
// direction. Stats may be called from anywhere.
type Forwarder struct {
	client, server *afpacket.Socket
	toServer       *way
	toClient       *way
	running        sync.WaitGroup
	closeOnce      sync.Once
	closeErr       error
}

// way is one direction.
type way struct {
	from, to *afpacket.Socket
	start    time.Time
	deadline time.Duration // set on from; 0: none

	mu    sync.Mutex
	line  *Line          // guarded by mu
	stats DirectionStats // guarded by mu; but for Counters
}

// Start forwards frames between two interfaces of the calling thread's network
// namespace, one towards the client and one towards the server. What reaches
// them must have its checksums and be no longer than the MTU: switch offloads
// off at the far ends. Close it.
func Start(clientNIC, serverNIC string, p Plan) (*Forwarder, error) {
	toServer, err := NewLine(p.ToServer, p.Seed)
	if err != nil {
		return nil, fmt.Errorf("to the server: %w", err)
	}
	toClient, err := NewLine(p.ToClient, ^p.Seed)
	if err != nil {
		return nil, fmt.Errorf("to the client: %w", err)
	}
	client, err := afpacket.Open(clientNIC, afpacket.Options{})
	if err != nil {
		return nil, err
	}
	server, err := afpacket.Open(serverNIC, afpacket.Options{})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	now := time.Now()
	f := &Forwarder{
		client: client, server: server,
		toServer: &way{from: client, to: server, line: toServer, start: now},
		toClient: &way{from: server, to: client, line: toClient, start: now},
	}
	f.running.Go(f.toServer.run)
	f.running.Go(f.toClient.run)
	return f, nil
}

// Close stops forwarding. Frames that wait are dropped; Stats still counts them.
func (f *Forwarder) Close() error {
	f.closeOnce.Do(func() {
		f.closeErr = errors.Join(f.toServer.readDrops(), f.toClient.readDrops(), f.client.Close(), f.server.Close())
		f.running.Wait()
	})
	return f.closeErr
}

// Stats returns what has happened so far.
func (f *Forwarder) Stats() Stats {
	return Stats{ToServer: f.toServer.snapshot(), ToClient: f.toClient.snapshot()}
}

func (w *way) snapshot() DirectionStats {
	_ = w.readDrops() // closed: Close has read them
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Counters = w.line.Counters()
	return s
}

// readDrops asks the kernel, which counts from zero after each answer.
func (w *way) readDrops() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.from.Dropped()
	w.stats.SocketFull += n
	return err
}

func (w *way) run() {
	buf := make([]byte, afpacket.MaxFrame)
	for w.receive(buf) {
		w.transmit()
	}
}

// receive puts the next frame on the line, unless one on it is due before. It
// says whether to go on.
func (w *way) receive(buf []byte) bool {
	if err := w.await(); err != nil {
		return false // closed
	}
	n, err := w.from.Receive(buf)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.line.Push(time.Since(w.start), buf[:n])
	case errors.Is(err, os.ErrClosed):
		return false
	case errors.Is(err, afpacket.ErrTooLong), errors.Is(err, afpacket.ErrPartialChecksum):
		w.stats.Unreadable++
	}
	return true // a passed deadline, or a link that has gone down and may come up again
}

// await sets the deadline of the next receive to the time of the line's next
// frame.
func (w *way) await() error {
	w.mu.Lock()
	at, ok := w.line.Next()
	w.mu.Unlock()
	if !ok {
		at = 0
	} else {
		at = max(at, 1)
	}
	if at == w.deadline {
		return nil
	}
	w.deadline = at
	if at == 0 {
		return w.from.SetReceiveDeadline(time.Time{})
	}
	return w.from.SetReceiveDeadline(w.start.Add(at))
}

// transmit sends what is due. It sends without the lock, for sending may wait.
func (w *way) transmit() {
	for {
		frame, ok := w.pop()
		if !ok {
			return
		}
		err := w.to.Send(frame)
		w.mu.Lock()
		if err != nil {
			w.stats.SendFailed++
		} else {
			w.stats.Sent++
		}
		w.mu.Unlock()
	}
}

func (w *way) pop() ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line.Pop(time.Since(w.start))
}
