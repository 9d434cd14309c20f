package actors

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// depth is how many moments of each kind a board remembers.
const depth = 4096

// Moments are the last times at which something happened, by Clock. One thread
// writes them, others may read them meanwhile.
type Moments struct {
	count atomic.Uint64
	at    [depth]atomic.Int64
	who   [depth]atomic.Int32
}

// Moment is when something happened, and to which of several.
type Moment struct {
	At  time.Duration
	Who int
}

// Add notes a moment.
func (m *Moments) Add(at time.Duration, who int) {
	n := m.count.Load()
	m.at[n%depth].Store(int64(at))
	m.who[n%depth].Store(int32(who))
	m.count.Store(n + 1)
}

// Since appends what has happened since there were seen moments, except what was
// forgotten meanwhile, and returns how many there are now.
func (m *Moments) Since(seen uint64, to []Moment) (uint64, []Moment) {
	n := m.count.Load()
	const margin = 16 // that are being written over
	if n > seen+depth-margin {
		seen = n - (depth - margin)
	}
	for ; seen < n; seen++ {
		to = append(to, Moment{time.Duration(m.at[seen%depth].Load()), int(m.who[seen%depth].Load())})
	}
	return n, to
}

// Actor is what one of a board's two actors says of itself.
type Actor struct {
	// Runs are moments at which it began to run again, or for the first time.
	Runs Moments
	// Leaves are those at which it gave its core up, or wanted one.
	Leaves Moments
}

// Board is memory in which actors write down what they do.
type Board struct {
	Actors [2]Actor
	// Decided are a rotor's decisions, and for whom.
	Decided Moments
}

// OpenBoard maps the board in a file, which is made if it is not there. The
// mapping is kept until the process ends, or until CloseBoard.
func OpenBoard(path string) (*Board, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(boardSize); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(boardSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return boardIn(m), nil
}

// CloseBoard gives up the mapping. Nobody may use it any more.
func CloseBoard(b *Board) error { return unix.Munmap(b.memory()) }

var errBoard = errors.New("which board?")

// boardOf opens the board that an actor's arguments begin with.
func boardOf(args []string) (*Board, []string, error) {
	if len(args) == 0 {
		return nil, nil, errBoard
	}
	b, err := OpenBoard(args[0])
	return b, args[1:], err
}
